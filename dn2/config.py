"""Every setting a user may change: one validated field each, which says all there is to say of it.

Command line, forms, footers, names of results and the reference are made from these models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from dn2.checks import check_crop, check_device, check_name, check_sha256, fingerprint
from dn2.errors import ConfigError
from dn2.fields import BASIC, EMBEDDER, LAST, NOTHING, PLACE, SLICES, Config, Names, Neutral, Typed

PILLOW_PIXEL_LIMIT = 178_956_970  # above this Pillow itself refuses to open an image
_REPORT_FORMAT = 3  # raised when a report gets more files or figures: older ones are made anew
_CLEANING_FORMAT = 1
_GROUP_REPORT_FORMAT = 1


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


Name = Annotated[str, AfterValidator(check_name)]
Clusters = Annotated[tuple[str, ...], Neutral([]), AfterValidator(_sorted)]

# Fields that several groups of settings have: each is described once.
Rate = Annotated[float, BASIC, Typed("--far"), LAST, Field(gt=0, lt=1)]
OwnRate = Annotated[float | None, BASIC, Typed("--far"), LAST, Field(gt=0, lt=1)]
SearchMemory = Annotated[int, NOTHING, Field(ge=16, description="Working memory of the neighbour search, in MiB.")]
BankMemory = Annotated[
    float,
    NOTHING,
    Field(gt=0, description="Memory for the vectors of a bank, in GiB. A bank that needs more is refused."),
]
GroupMemory = Annotated[
    float,
    NOTHING,
    Field(gt=0, description="Memory for the vectors of the groups, in GiB. Groups that need more are refused."),
]
RejectRate = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="Training stops and scoring warns if more than this share of the images is unreadable, and more "
        "than max_rejects.",
    ),
]
Rejects = Annotated[int, Field(ge=0, description="Up to this many unreadable images, nothing stops or warns.")]
Neighbors = Annotated[
    int, BASIC, LAST, Field(ge=1, le=1000, description="Neighbours whose squared distances are averaged.")
]
Discoveries = Annotated[float, BASIC, Typed("--fdr"), LAST, Field(gt=0, lt=1)]


class EmbedConfig(Config):
    """How images become embeddings."""

    backbone: Annotated[str, BASIC, EMBEDDER] = Field(
        "auto",
        min_length=1,
        description="Pretrained network: auto, efficientnet_lite0, _lite1 or _lite2, a classification model of "
        "torchvision by its name, or module:object for your own. auto takes the bank's; without a bank "
        "resnet101 if its weights are on this machine, else efficientnet_lite0.",
    )
    crop: Annotated[str, BASIC, EMBEDDER, AfterValidator(check_crop)] = Field(
        "auto",
        description="Which part of an image is used. center: the central square, as in the paper; full: all of it, "
        "squeezed to a square; tiles-RxC: R rows of C tiles, each squeezed to a square, of which the worst one counts. "
        "auto takes the bank's; without a bank center.",
    )
    weights: Annotated[str | None, PLACE, EMBEDDER] = Field(
        None,
        min_length=1,
        description="Path or URL of the backbone's weights, a state dict saved by torch. By default those that belong "
        "to its name.",
    )
    weights_sha256: Annotated[Annotated[str, AfterValidator(check_sha256)] | None, NOTHING] = Field(
        None, description="Expected sha256 of the weights; others are refused. By default not checked."
    )
    download: Annotated[bool, NOTHING] = Field(
        False, description="Download weights that are not on this machine from torch's hub. Off by default."
    )
    engine: Annotated[Literal["auto", "openvino", "torch"], NOTHING] = Field(
        "auto", description="Library that runs the network. auto takes torch on a GPU and OpenVINO on a CPU."
    )
    device: Annotated[str, NOTHING, AfterValidator(check_device)] = Field(
        "auto",
        description="auto, cpu, cuda, cuda:N, or several with commas between. auto takes all GPUs, or the CPU if there "
        "is none. Each device has a worker of its own.",
    )
    precision: Annotated[Literal["auto", "float32", "float16"], NOTHING] = Field(
        "auto",
        description="Numbers that the network calculates with. auto takes float16 on a GPU and float32 on a CPU.",
    )
    batch_size: Annotated[int, NOTHING] = Field(32, ge=1, le=4096, description="Images per forward pass.")
    shard_size: Annotated[int, SLICES] = Field(
        2000,
        ge=1,
        le=100_000,
        description="Images per shard, the unit of work. A killed run loses only shards that were not finished.",
    )
    decode_threads: Annotated[int, NOTHING] = Field(
        0, ge=0, le=256, description="Threads that read and decode. 0: one per core, 16 for a bucket or a table."
    )
    thumbnail_px: int = Field(96, ge=16, le=512, description="Longest side of the stored thumbnails, in pixels.")
    max_pixels: int = Field(
        PILLOW_PIXEL_LIMIT // 2,
        ge=1,
        le=PILLOW_PIXEL_LIMIT,
        description="Images with more pixels are rejected, to limit the memory of decoding.",
    )

    def shard_fingerprint(self) -> str:
        """Return 8 hex digits over the settings that change what a finished shard of an embedder holds."""
        return fingerprint(self.identity(), length=8)


class TrainingLimits(Config):
    """How many unreadable images are too many to train with. A training that goes on is the same, whatever they are."""

    max_reject_rate: Annotated[RejectRate, NOTHING] = 0.05
    max_rejects: Annotated[Rejects, NOTHING] = 20


class ScoringLimits(Config):
    """How many unreadable images are so many that a report warns."""

    max_reject_rate: Annotated[RejectRate, LAST] = 0.05
    max_rejects: Annotated[Rejects, LAST] = 20


class CleanConfig(TrainingLimits):
    """Which training images are dropped because they do not look like the others."""

    rule: Annotated[Literal["none", "paper", "auto"], BASIC, Typed("--clean")] = Field(
        "none",
        description="Cleaning. paper: drop the half with the largest distances to their 2 nearest others (DN2); auto: "
        "drop images like no other, and ask about dense groups apart.",
    )
    contamination: float | None = Field(
        None,
        ge=0,
        le=0.5,
        description="Cleaning: assumed share of anomalies among the training images. By default it is estimated.",
    )
    drop_fraction: Annotated[float | None, Typed("--drop")] = Field(
        None,
        ge=0,
        lt=1,
        description="Cleaning: share of the training images to drop, at least the contamination. "
        "By default 0.5 for paper; for auto as many as are odd, or 0.25 to 0.6 with clusters drop.",
    )
    clusters: Annotated[Literal["ask", "drop"], Neutral("drop")] = Field(
        "ask",
        description="Cleaning by the rule auto: dense groups apart. ask: they stay in until you say what they are; "
        "drop: what is not like most others is dropped, whole groups too, and nobody is asked.",
    )
    keep: Clusters = Field((), description="Cleaning: id of a cluster that is normal; may be given several times.")
    drop_cluster: Clusters = Field(
        (), description="Cleaning: id of a cluster that is not normal; may be given several times."
    )
    report_images: int = Field(24, ge=0, le=500, description="Images shown in each part of the page about cleaning.")
    bank_memory_gb: BankMemory = 8.0
    search_memory_mb: SearchMemory = 512

    @model_validator(mode="after")
    def _drops_enough(self) -> CleanConfig:
        if self.rule == "none" and not (self.contamination is None and self.drop_fraction is None):
            raise ConfigError("got a contamination or drop_fraction with rule none, expected rule paper or auto")
        if self.contamination and self.drop_fraction is not None and self.drop_fraction < self.contamination:
            raise ConfigError(
                f"got drop_fraction {self.drop_fraction:g} below contamination {self.contamination:g}, expected at "
                f"least that: all assumed anomalies must be dropped"
            )
        return self

    @model_validator(mode="after")
    def _answers_what_was_asked(self) -> CleanConfig:
        answered = [*self.keep, *self.drop_cluster]
        if answered and not self.asks:
            raise ConfigError("got keep or drop_cluster, expected rule auto with clusters ask: nothing else asks")
        both = sorted(set(self.keep) & set(self.drop_cluster))
        if both:
            raise ConfigError(f"got cluster {both[0]} in keep and in drop_cluster, expected it in one of them")
        return self

    @property
    def asks(self) -> bool:
        """Whether dense groups stay in until someone says what they are."""
        return self.rule == "auto" and self.clusters == "ask"

    def identity(self, *, without: Collection[Names] = ()) -> dict[str, Any]:
        """Return what names a cleaning: only the rule auto finds clusters."""
        found = Config.identity(self, without=without)
        return found if self.rule == "auto" else {name: value for name, value in found.items() if name != "clusters"}

    def fingerprint(self) -> str:
        """Return hex digits over the settings that change what a finished cleaning holds."""
        return fingerprint([_CLEANING_FORMAT, self.identity()])


class FitConfig(TrainingLimits):
    """How normal embeddings become a bank with a threshold."""

    k: Neighbors = 2
    metric: Annotated[Literal["l2", "cosine"], BASIC] = Field(
        "l2", description="l2: squared Euclidean distance; cosine: the same after scaling every embedding to length 1."
    )
    scale: Annotated[Literal["none", "local"], LAST, Neutral("none")] = Field(
        "none",
        description="What a distance is divided by. none: nothing; local: how far the neighbours' own neighbours lie, "
        "so that rare and widely spread kinds of normal images are not flagged more often than others.",
    )
    false_alarm_rate: Rate = Field(0.01, description="Share of normal images that may be flagged: sets the threshold.")
    calibration: Literal["auto", "leave-one-out", "held-out"] = Field(
        "auto",
        description="Where calibration scores come from. auto: leave-one-out up to 10,000 images, "
        "a held-out split above.",
    )
    units: Annotated[Literal["auto", "images"], LAST, Neutral("images")] = Field(
        "auto",
        description="What counts once in calibration. auto: a unit, which is images of one group, of equal bytes or "
        "near copies, such as a burst; images: every image, as if none depended on another.",
    )
    index: Literal["auto", "exact", "ivf", "centroids"] = Field(
        "auto",
        description="How neighbours are searched. exact: among all images; ivf: among those of the nearest k-means "
        "cells; centroids: among k-means centres instead of images, as in the paper; auto: exact or ivf, whichever "
        "takes less time for the expected images.",
    )
    expected_queries: Annotated[int, LAST] = Field(
        100_000,
        ge=1,
        description="Index auto: about how many images the bank will score. Making cells pays off for many.",
    )
    nlist: int | None = Field(
        None,
        ge=1,
        description="Index ivf: number of cells. By default four times the square root of the number of images.",
    )
    nprobe: Annotated[int | None, LAST] = Field(
        None, ge=1, description="Index ivf: cells visited. By default as many as the recall needs."
    )
    recall: Annotated[float, LAST] = Field(
        0.99, gt=0, le=1, description="Index ivf: share of the true nearest neighbours that must be found."
    )
    centroids: int = Field(100, ge=1, description="Index centroids: number of k-means centres, at most.")
    segment_rows: int | None = Field(
        None,
        ge=1,
        description="Images of one segment of the bank. Segments that do not fit into memory together are searched one "
        "after the other. By default one segment holds all.",
    )
    bank_memory_gb: BankMemory = 8.0
    search_memory_mb: SearchMemory = 512

    @model_validator(mode="after")
    def _has_neighbours(self) -> FitConfig:
        if self.scale == "local" and self.index == "centroids":
            raise ConfigError(
                "got scale local with index centroids, expected scale none or another index: what lies around a "
                "centre is gone"
            )
        return self


class AddConfig(TrainingLimits):
    """How confirmed normal images are added to a bank."""

    flagged: Annotated[bool, BASIC, Neutral(False)] = Field(
        False,
        description="All of them were flagged before, and turned out to be normal: they go into the bank and never "
        "calibrate it. Without it, that is so for images that a report of the bank has scored.",
    )
    bank_memory_gb: BankMemory = 8.0
    search_memory_mb: SearchMemory = 512


class ThresholdConfig(Config):
    """Above which score an image is anomalous: by one rule at most; without any, the bank's own threshold."""

    false_alarm_rate: OwnRate = Field(None, description="Threshold: share of normal images that may be flagged.")
    quantile: Annotated[float | None, LAST] = Field(
        None, gt=0, le=1, description="Threshold: share of the bank's calibration scores that are not above it."
    )
    value: Annotated[float | None, BASIC, LAST, Typed("--threshold")] = Field(
        None, ge=0, le=1e38, description="The threshold itself, in the units of the scores."
    )
    budget: Annotated[int | None, BASIC, LAST] = Field(
        None, ge=1, description="Threshold: flag at most this many images of the batch, those with the largest scores."
    )

    @model_validator(mode="after")
    def _one_rule(self) -> ThresholdConfig:
        given = [f"{name} {value}" for name, value in self if value is not None]
        if len(given) > 1:
            names = ", ".join(type(self).model_fields)
            raise ConfigError(f"got {' and '.join(given)}, expected at most one of {names}")
        return self


class ScoreConfig(ScoringLimits):
    """How a batch is scored and reported."""

    threshold: Annotated[ThresholdConfig, LAST] = Field(
        ThresholdConfig(), description="Score above which an image is anomalous. By default the bank's own threshold."
    )
    false_discovery_rate: Discoveries = Field(
        0.1, description="Expected share of normal images among the selected ones, at most."
    )
    report_images: Annotated[int, LAST] = Field(
        24, ge=0, le=500, description="Worst images shown with pictures in report.html."
    )
    bank_memory_gb: BankMemory = 8.0
    search_memory_mb: SearchMemory = 512

    def report_fingerprint(self) -> str:
        """Return hex digits over the settings that change what a finished report holds."""
        return fingerprint([_REPORT_FORMAT, self.identity()])


class GroupFitConfig(TrainingLimits):
    """How groups of normal images become a bank with thresholds for every group size."""

    pooling: Annotated[Literal["mean", "histogram", "concat"], BASIC] = Field(
        "mean",
        description="How the embeddings of a group become one vector. mean: their mean, as in the paper; histogram: "
        "how they spread over kinds of images (k-means cells); concat: one after the other, for groups of one size.",
    )
    cells: int = Field(16, ge=2, le=4096, description="Kinds of images that a histogram tells apart, at most.")
    k: Neighbors = 2
    metric: Annotated[Literal["l2", "cosine"], BASIC] = Field(
        "l2", description="l2: embeddings as they are; cosine: every embedding is scaled to length 1 before pooling."
    )
    min_size: Annotated[int, BASIC] = Field(
        2, ge=1, description="Groups with fewer readable images are not trained with and not scored."
    )
    false_alarm_rate: Rate = Field(0.01, description="Share of normal groups that may be flagged: sets the thresholds.")
    units: Annotated[Literal["auto", "images"], LAST, Neutral("images")] = Field(
        "auto",
        description="What counts once in a group's size. auto: a unit, which is an image with its near copies, such as "
        "a burst; images: every image, as if none depended on another.",
    )
    group_memory_gb: GroupMemory = 8.0
    search_memory_mb: SearchMemory = 512


class GroupScoreConfig(ScoringLimits):
    """How groups are scored and reported."""

    false_alarm_rate: OwnRate = Field(
        None, description="Share of normal groups that may be flagged. By default the bank's own rate."
    )
    false_discovery_rate: Discoveries = Field(
        0.1, description="Expected share of normal groups among the selected ones, at most."
    )
    report_groups: int = Field(24, ge=0, le=500, description="Worst groups shown with pictures in report.html.")
    report_members: int = Field(12, ge=1, le=100, description="Images shown of each of them.")
    group_memory_gb: GroupMemory = 8.0
    search_memory_mb: SearchMemory = 512

    def report_fingerprint(self) -> str:
        """Return hex digits over the settings that change what a finished report holds."""
        return fingerprint([_GROUP_REPORT_FORMAT, self.identity()])
