"""Every setting a user may change: one validated field each, the same object from form to Parquet footer."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dn2.errors import ConfigError

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 200, 200
PILLOW_PIXEL_LIMIT = 178_956_970  # above this Pillow itself refuses to open an image
_REPORT_FORMAT = 3  # raised when a report gets more files or figures: older ones are made anew
_CLEANING_FORMAT = 1
_GROUP_REPORT_FORMAT = 1
_DEVICE = re.compile(r"auto|(cpu|cuda(:\d+)?)(,(cpu|cuda(:\d+)?))*")
_TILES = re.compile(r"tiles-([1-9][0-9]?)x([1-9][0-9]?)|tiles\( ?([1-9][0-9]?) ?, ?([1-9][0-9]?) ?\)")
_SHA256 = re.compile("[0-9a-f]{64}")
_MOST_TILES = 16  # in a row, and in a column
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def fingerprint(value: Any, *, length: int = 16) -> str:
    """Return the first `length` hex digits of the sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def check_name(name: str) -> str:
    """Return a dataset's or bank's name if it can be a folder's name everywhere.

    Raises:
        ConfigError: it is empty, over 100 characters, starts with a dot or dash, or holds other characters
            than letters, digits, dot, dash and underscore.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"name {name!r} cannot be used: expected 1 to 100 letters, digits, dots, dashes or underscores, "
            f"starting with a letter or digit"
        )
    return name


def check_device(device: str) -> str:
    """Return the name of a device if it is one.

    Raises:
        ConfigError: it is not.
    """
    if not _DEVICE.fullmatch(device):
        raise ConfigError(f"got {device!r}, expected auto, cpu, cuda or cuda:N, or several with commas between")
    return device


def tile_grid(crop: str) -> tuple[int, int] | None:
    """Return rows and columns of the tiles that a crop cuts an image into; full is one tile, center none at all.

    Raises:
        ConfigError: the crop is none.
    """
    if crop == "center":
        return None
    if crop == "full":
        return 1, 1
    found = _TILES.fullmatch(crop)
    rows, columns = (int(number) for number in found.groups() if number is not None) if found else (0, 0)
    if not (1 <= rows <= _MOST_TILES and 1 <= columns <= _MOST_TILES):
        raise ConfigError(
            f"got {crop!r}, expected auto, center, full, or tiles-RxC with 1 to {_MOST_TILES} rows R and columns C, "
            f"such as tiles-2x3"
        )
    return rows, columns


def check_sha256(digits: str) -> str:
    """Return a sha256 as it is written in names, in small letters.

    Raises:
        ConfigError: it is none.
    """
    if not _SHA256.fullmatch(digits.lower()):
        raise ConfigError(f"got {digits!r}, expected a sha256: 64 hex digits, as sha256sum prints them")
    return digits.lower()


def check_crop(crop: str) -> str:
    """Return a crop as it is written in names: tiles(2, 3) as tiles-2x3, and one tile as full.

    Raises:
        ConfigError: it is none.
    """
    grid = None if crop == "auto" else tile_grid(crop)
    if grid is None:
        return crop
    return "full" if grid == (1, 1) else f"tiles-{grid[0]}x{grid[1]}"


Name = Annotated[str, AfterValidator(check_name)]


class Config(BaseModel):
    """A frozen group of settings that refuses unknown fields, and numbers that JSON has no word for."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class EmbedConfig(Config):
    """How images become embeddings."""

    backbone: str = Field(
        "auto",
        min_length=1,
        description="Pretrained network: auto, efficientnet_lite0, _lite1 or _lite2, a classification model of "
        "torchvision by its name, or module:object for one of your own. auto takes the bank's; without a bank "
        "resnet101 if its weights are on this machine, else efficientnet_lite0.",
    )
    weights: str | None = Field(
        None,
        min_length=1,
        description="Path or URL of the backbone's weights, a state dict saved by torch. By default those that belong "
        "to its name.",
    )
    weights_sha256: Annotated[str, AfterValidator(check_sha256)] | None = Field(
        None, description="Weights with another sha256 are refused. By default not checked."
    )
    download: bool = Field(
        False, description="Fetch weights that are not on this machine from torch's hub. Not done by default."
    )
    crop: Annotated[str, AfterValidator(check_crop)] = Field(
        "auto",
        description="What of an image is seen. center: the central square, as in the paper; full: all of it, squeezed "
        "to a square; tiles-RxC: R rows of C tiles, each squeezed to a square, of which the worst one counts. auto "
        "takes the bank's; without a bank center.",
    )
    engine: Literal["auto", "openvino", "torch"] = Field(
        "auto", description="What runs the network. auto takes torch on a GPU and OpenVINO on a CPU."
    )
    device: Annotated[str, AfterValidator(check_device)] = Field(
        "auto",
        description="auto, cpu, cuda, cuda:N, or several with commas between. auto takes all GPUs, or the CPU if there "
        "is none. Each device has a worker of its own.",
    )
    precision: Literal["auto", "float32", "float16"] = Field(
        "auto", description="What the network calculates with. auto takes float16 on a GPU and float32 on a CPU."
    )
    batch_size: int = Field(32, ge=1, le=4096, description="Images per forward pass. Does not change scores.")
    shard_size: int = Field(
        2000,
        ge=1,
        le=100_000,
        description="Images per shard, the unit of work and resume. Does not change scores.",
    )
    decode_threads: int = Field(
        0, ge=0, le=256, description="Threads that read and decode. 0: one per core, 16 for a bucket or a table."
    )
    thumbnail_px: int = Field(96, ge=16, le=512, description="Longest side of the stored thumbnails, in pixels.")
    max_pixels: int = Field(
        PILLOW_PIXEL_LIMIT // 2,
        ge=1,
        le=PILLOW_PIXEL_LIMIT,
        description="Images with more pixels are rejected: bounds the memory of decoding.",
    )

    def shard_fingerprint(self) -> str:
        """Return 8 hex digits over the settings that change what a finished shard holds."""
        return fingerprint({"thumbnail_px": self.thumbnail_px, "max_pixels": self.max_pixels}, length=8)


class RejectLimits(Config):
    """How many unreadable images are too many."""

    max_reject_rate: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Training stops and scoring warns if more than this share of images is unreadable ...",
    )
    max_rejects: int = Field(20, ge=0, description="... and more than this many of them.")


class CleanConfig(RejectLimits):
    """Which training images are dropped because they do not look like the others."""

    rule: Literal["none", "paper", "auto"] = Field(
        "none",
        description="paper: the half with the largest distances to their 2 nearest others (DN2); auto: those that are "
        "among the neighbours of few others, as many as the contamination asks for.",
    )
    contamination: float | None = Field(
        None,
        ge=0,
        le=0.5,
        description="Assumed share of anomalies among the training images. By default it is estimated.",
    )
    drop_fraction: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of the training images that is dropped: more than the contamination, for safety. By default "
        "0.5 for paper, and 0.25 to 0.6 for auto.",
    )
    report_images: int = Field(24, ge=0, le=500, description="Images shown in each part of the page.")
    bank_memory_gb: float = Field(8.0, gt=0, description="More vectors than this are refused by the rule paper.")
    search_memory_mb: int = Field(512, ge=16, description="Working memory of the neighbour search of the rule paper.")

    @model_validator(mode="after")
    def _drops_enough(self) -> CleanConfig:
        if self.rule == "none" and not (self.contamination is None and self.drop_fraction is None):
            raise ConfigError("got a contamination or drop_fraction with rule none, expected rule paper or auto")
        if self.contamination and self.drop_fraction is not None and self.drop_fraction < self.contamination:
            raise ConfigError(
                f"got drop_fraction {self.drop_fraction:g} below contamination {self.contamination:g}, expected at "
                f"least that: what is taken for anomalies must go"
            )
        return self

    def fingerprint(self) -> str:
        """Return hex digits over the settings that change what a finished cleaning holds."""
        kept = {"rule", "contamination", "drop_fraction", "report_images"}
        return fingerprint([_CLEANING_FORMAT, self.model_dump(mode="json", include=kept)])


class FitConfig(RejectLimits):
    """How normal embeddings become a bank with a threshold."""

    k: int = Field(2, ge=1, le=1000, description="Neighbours whose squared distances are averaged.")
    metric: Literal["l2", "cosine"] = Field(
        "l2",
        description="l2: squared Euclidean distance; cosine: the same after scaling every embedding to length 1.",
    )
    false_alarm_rate: float = Field(
        0.01, gt=0, lt=1, description="Share of normal images that may be flagged: sets the threshold."
    )
    calibration: Literal["auto", "leave-one-out", "held-out"] = Field(
        "auto",
        description="Where calibration scores come from. auto: leave-one-out up to 10,000 images, "
        "a held-out split above.",
    )
    index: Literal["auto", "exact", "ivf", "centroids"] = Field(
        "auto",
        description="How neighbours are searched. exact: among all images; ivf: among those of the nearest k-means "
        "cells; centroids: among k-means centres instead of images, as in the paper; auto: exact or ivf, whichever "
        "takes less time for the expected images.",
    )
    expected_queries: int = Field(
        100_000, ge=1, description="Images that the bank will score, roughly: what auto weighs the making of cells by."
    )
    nlist: int | None = Field(
        None, ge=1, description="Cells of index ivf. By default four times the root of the number of images."
    )
    nprobe: int | None = Field(
        None, ge=1, description="Cells visited by index ivf. By default as many as the recall asks for."
    )
    recall: float = Field(
        0.99, gt=0, le=1, description="Share of the true nearest neighbours that index ivf has to find."
    )
    centroids: int = Field(100, ge=1, description="K-means centres of index centroids, at most.")
    segment_rows: int | None = Field(
        None,
        ge=1,
        description="Images of one segment of the bank. Segments that do not fit the memory together are searched one "
        "after the other. By default one holds all.",
    )
    bank_memory_gb: float = Field(
        8.0, gt=0, description="A bank whose segments would need more memory than this is refused."
    )
    search_memory_mb: int = Field(512, ge=16, description="Working memory of the neighbour search.")


class AddConfig(RejectLimits):
    """How confirmed normal images are added to a bank."""

    bank_memory_gb: float = Field(8.0, gt=0, description="A bank whose segments would need more memory is refused.")
    search_memory_mb: int = Field(512, ge=16, description="Working memory of the neighbour search.")


class ThresholdConfig(Config):
    """Above which score an image is anomalous: by one rule at most; without any, the bank's own threshold."""

    false_alarm_rate: float | None = Field(None, gt=0, lt=1, description="Share of normal images that may be flagged.")
    quantile: float | None = Field(
        None, gt=0, le=1, description="Share of the bank's calibration scores that are not above the threshold."
    )
    value: float | None = Field(None, ge=0, le=1e38, description="The threshold itself, a squared distance.")
    budget: int | None = Field(
        None, ge=1, description="At most so many images of the batch are flagged: those with the largest scores."
    )

    @model_validator(mode="after")
    def _one_rule(self) -> ThresholdConfig:
        given = [f"{name} {value}" for name, value in self if value is not None]
        if len(given) > 1:
            names = ", ".join(type(self).model_fields)
            raise ConfigError(f"got {' and '.join(given)}, expected at most one of {names}")
        return self


class ScoreConfig(RejectLimits):
    """How a batch is scored and reported."""

    threshold: ThresholdConfig = Field(
        ThresholdConfig(), description="Above which score an image is anomalous. By default the bank's own threshold."
    )
    false_discovery_rate: float = Field(
        0.1, gt=0, lt=1, description="Share of normal images among the selected ones that may be expected."
    )
    report_images: int = Field(24, ge=0, le=500, description="Worst images shown with pictures in report.html.")
    bank_memory_gb: float = Field(8.0, gt=0, description="A bank larger than this is refused.")
    search_memory_mb: int = Field(512, ge=16, description="Working memory of the neighbour search.")

    def report_fingerprint(self) -> str:
        """Return hex digits over the settings that change what a finished report holds."""
        kept = {"threshold", "false_discovery_rate", "report_images", "max_reject_rate", "max_rejects"}
        return fingerprint([_REPORT_FORMAT, self.model_dump(mode="json", include=kept)])


class GroupFitConfig(RejectLimits):
    """How groups of normal images become a bank with thresholds for every group size."""

    pooling: Literal["mean", "histogram", "concat"] = Field(
        "mean",
        description="How the embeddings of a group become one vector. mean: their mean, as in the paper; histogram: "
        "how they spread over kinds of images (k-means cells); concat: one after the other, for groups of one size.",
    )
    cells: int = Field(16, ge=2, le=4096, description="Kinds of images that a histogram tells apart, at most.")
    k: int = Field(2, ge=1, le=1000, description="Neighbours whose squared distances are averaged.")
    metric: Literal["l2", "cosine"] = Field(
        "l2", description="l2: embeddings as they are; cosine: every embedding is scaled to length 1 before pooling."
    )
    min_size: int = Field(2, ge=1, description="Groups with fewer readable images are neither learnt nor scored.")
    false_alarm_rate: float = Field(
        0.01, gt=0, lt=1, description="Share of normal groups that may be flagged: sets the thresholds."
    )
    group_memory_gb: float = Field(
        8.0, gt=0, description="Groups whose vectors need more memory than this are refused."
    )
    search_memory_mb: int = Field(512, ge=16, description="Working memory of the neighbour search.")


class GroupScoreConfig(RejectLimits):
    """How groups are scored and reported."""

    false_alarm_rate: float | None = Field(
        None, gt=0, lt=1, description="Share of normal groups that may be flagged. By default the bank's own rate."
    )
    false_discovery_rate: float = Field(
        0.1, gt=0, lt=1, description="Share of normal groups among the selected ones that may be expected."
    )
    report_groups: int = Field(24, ge=0, le=500, description="Worst groups shown with pictures in report.html.")
    report_members: int = Field(12, ge=1, le=100, description="Images shown of each of them.")
    group_memory_gb: float = Field(
        8.0, gt=0, description="Groups whose vectors need more memory than this are refused."
    )
    search_memory_mb: int = Field(512, ge=16, description="Working memory of the neighbour search.")

    def report_fingerprint(self) -> str:
        """Return hex digits over the settings that change what a finished report holds."""
        memory = {"group_memory_gb", "search_memory_mb"}
        return fingerprint([_GROUP_REPORT_FORMAT, self.model_dump(mode="json", exclude=memory)])


def short(value: Any) -> str:
    """Return a value as Python writes it, cut where it is long or nested."""
    return _SHORT.repr(value)


def explain(error: ValidationError) -> ConfigError:
    """Turn a pydantic error into one line that names each bad field, what was given and what is expected."""
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"]) or "parameters"
        own = item["type"] == "value_error"  # raised by us: the message names what was given
        lines.append(f"{place}: {item['ctx']['error']}" if own else f"{place} = {short(item['input'])}: {item['msg']}")
    return ConfigError("; ".join(lines))
