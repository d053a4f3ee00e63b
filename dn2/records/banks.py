"""Versions of banks: of images, and of groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from dn2.config import Name
from dn2.layout import CleaningFolder, Embedder, SegmentName, Version
from dn2.records.doubts import Doubt
from dn2.records.embedders import EmbedderName


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How an index differs from exact search among the same images, measured on images that are not among them.

    Attributes:
        images: on how many it was measured.
        recall: share of the true k nearest neighbours that the index finds; None for centres, which are no images.
        rank_correlation: Spearman's, of the scores.
        score_error: mean of |score - exact score| / exact score.
        flipped: images of them that lie on the other side of the threshold, each index with its own for the same rate.
    """

    images: int
    recall: float | None
    rank_correlation: float
    score_error: float
    flipped: int


@dataclass(frozen=True, slots=True)
class BankVersion:
    """One immutable version of a feature bank.

    Attributes:
        name: the bank's name.
        version: fingerprint of everything it was made from.
        embedder: id of the embedder that made its rows.
        rows: normal embeddings in it: images, tiles of images, or centres.
        dim: length of an embedding.
        k: neighbours averaged for a score.
        metric: l2 or cosine.
        threshold: a higher score is called anomalous (squared distance; with scale local a ratio of two).
        false_alarm_rate: share of normal images that was asked for.
        attainable_rate: what the calibration can promise: the rate asked for, or 1 / (n + 1) if that is more.
        calibration: how the calibration scores were made: leave-one-out or held-out.
        calibration_rows: how many there are.
        rejected: training images that could not be read.
        cleaning: folder of the training images' cleaning, relative to the store; None if they were not cleaned.
        dropped: training images that cleaning kept out of the bank.
        contamination: share of the training images taken for anomalies: so many scores do not calibrate.
        contamination_estimated: whether that share was estimated; otherwise it was given.
        index: name of the index that its first segments are searched by.
        why: why that index.
        nlist: cells of a segment, or centres; 0 if the index has neither.
        nprobe: cells visited; 0 if the index has none.
        segment_count: how many segments it has.
        removed: images that were taken out after it was trained.
        copies: images of the bank with the same bytes as another one.
        fidelity: how much the index differs from exact search; None where it is exact.
        weights: URI of the backbone's weights, where they are not the usual ones.
        units: how many units the calibration images make, each of which weighs the same; None: each image does.
        clusters: into which the units fell when it was trained, where each may be a patient or a day; else None.
        rate_interval: between which the false-alarm rate at the threshold lies, at 90 %; None in one of an older dn2.
        scale: what a distance is divided by: none, nothing; local, how far the neighbours' own neighbours lie.
        doubts: what is odd about the training images, or cannot be promised.
    """

    name: Name
    version: Version
    embedder: Embedder
    rows: int
    dim: int
    k: int
    metric: str
    threshold: float
    false_alarm_rate: float
    attainable_rate: float
    calibration: str
    calibration_rows: int
    rejected: int
    cleaning: CleaningFolder | None = None
    dropped: int = 0
    contamination: float = 0.0
    contamination_estimated: bool = False
    index: str = "exact"
    why: str = ""
    nlist: int = 0
    nprobe: int = 0
    segment_count: int = 1
    removed: int = 0
    copies: int = 0
    fidelity: Fidelity | None = None
    weights: str | None = None
    units: int | None = None
    rate_interval: tuple[float, float] | None = None
    clusters: int | None = None
    scale: Literal["none", "local"] = "none"
    doubts: tuple[Doubt, ...] = ()

    of: ClassVar[str] = "images"  # what is scored with it

    @property
    def promise(self) -> str:
        """Which share of normal images is flagged, for people: about how many, and between which rates, at 90 %."""
        between = ""
        if self.rate_interval is not None:
            between = " ({:.2%} to {:.2%} at 90%)".format(*self.rate_interval)
        return f"about {self.attainable_rate:.2%}{between} of normal images"

    @property
    def if_patients(self) -> str | None:
        """What it could promise if each cluster of its images were a patient, for people; None if that is no less."""
        if self.clusters is None or 1 / (self.clusters + 1) <= self.attainable_rate:
            return None
        return (
            f"the images form {self.clusters} clusters: if these are patients or days, all images of another may be "
            f"flagged; name them with --pattern, and the rate reads at least {1 / (self.clusters + 1):.1%}"
        )

    @property
    def calibrated(self) -> str:
        """What calibrates it, for people."""
        units = "" if self.calibrated_by == self.calibration_rows else f" in {self.units:,} units"
        return f"{self.calibration}, {self.calibration_rows:,} scores{units}"

    @property
    def calibrated_by(self) -> int:
        """How many independent scores calibrate it: those of units, or of images."""
        return self.calibration_rows if self.units is None else self.units

    @property
    def measure(self) -> str:
        """What its scores are made of, for people: the metric, and what it is relative to."""
        return self.metric if self.scale == "none" else f"{self.metric} over the neighbours' own spread"

    @property
    def things(self) -> int:
        """How many normal ones of what is scored it holds."""
        return self.images

    @property
    def backbone(self) -> str:
        """What made its embeddings, for people: backbone and crop."""
        return EmbedderName.parse(self.embedder).words

    @property
    def tiles(self) -> int:
        """How many rows stand for an image."""
        return EmbedderName.parse(self.embedder).tiles

    @property
    def images(self) -> int:
        """Normal images in it; where its rows are centres, their number."""
        centres = self.nlist > 0 and self.nprobe == 0  # what is not cells
        return self.rows if centres else self.rows // self.tiles


@dataclass(frozen=True, slots=True)
class GroupCells:
    """What the cells of a bank of groups need besides their file.

    Attributes:
        crc32: checksum of that.
        width: how far a cell reaches.
        reach: beyond that an image belongs to no cell.
    """

    crc32: int = 0
    width: float = 0.0
    reach: float = 0.0


@dataclass(frozen=True, slots=True)
class BankFiles:
    """What a version of a bank is made of, beside its record.

    Attributes:
        segments: names of those that are searched.
        held: names of those of images that only calibrate the bank; None in a version of an older dn2, which kept none.
        removed_ids: image ids that were taken out.
        config: settings of the training.
        grown: whether images were added to its parent, or taken out.
        parent: the version that was the current one when it was made.
        cells: those of a bank of groups whose pooling is a histogram.
        flagged: sha256 of the bytes of images that were chosen by their scores: they are in it and never calibrate.
    """

    segments: tuple[SegmentName, ...]
    held: tuple[SegmentName, ...] | None = None
    removed_ids: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    grown: bool = False
    parent: Version | None = None
    cells: GroupCells | None = None
    flagged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of a bank to which images were added, or from which some were removed.

    Attributes:
        bank: its current version now.
        added: images that are new in it.
        held_out: further new images, which calibrate it.
        known: images that it had already.
        copies: images that were not added because it has one with the same bytes.
        copy_uris: where some of them lie.
        removed: images that are no longer in it.
        rejected: images that could not be read.
        flagged: of those added, images that had been flagged, as was told or as a report of the bank says.
        passed: of those added, images that a report of the bank had scored and not flagged.
        anomalies: images that were not added because they are kept as confirmed anomalies.
    """

    bank: BankVersion
    added: int = 0
    held_out: int = 0
    known: int = 0
    copies: int = 0
    copy_uris: tuple[str, ...] = ()
    removed: int = 0
    rejected: int = 0
    flagged: int = 0
    passed: int = 0
    anomalies: int = 0


@dataclass(frozen=True, slots=True)
class Anomalies:
    """The confirmed anomalies that are kept for a bank, and what its current version makes of them.

    Attributes:
        bank: the current version.
        uris: where they lie.
        changed: how many were added to them, or removed, just now.
        scored: how many are embedded, and could be compared with the bank.
        found: of these, how many have a score above its threshold.
        missing: how many are not embedded by the bank's embedder.
        in_bank: ids of images in the bank with the same bytes as one of them.
    """

    bank: BankVersion
    uris: tuple[str, ...]
    changed: int = 0
    scored: int = 0
    found: int = 0
    missing: int = 0
    in_bank: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupBankVersion:
    """One immutable version of a bank of normal groups.

    Attributes:
        name: the bank's name.
        version: fingerprint of everything it was made from.
        embedder: id of the embedder that made the images' embeddings.
        pooling: how a group becomes one vector: mean, histogram or concat.
        groups: normal groups in it.
        members: images in them.
        dim: length of a group's vector.
        k: neighbours averaged for a score.
        metric: l2, or cosine: images are scaled to length 1 before they are pooled.
        min_size: readable images that a group needs.
        sizes: group sizes for which it is calibrated.
        false_alarm_rate: share of normal groups that was asked for.
        attainable_rate: what its calibration can promise at the size where it promises least.
        small: training groups that were too small for it.
        ungrouped: training images that belong to no group.
        rejected: training images that could not be read.
        weights: URI of the backbone's weights, where they are not the usual ones.
        doubts: what cannot be promised.
        units: in them, where near copies are one; None where every image counts.
        near: squared distance below which two images of a group are near copies.
    """

    name: Name
    version: Version
    embedder: Embedder
    pooling: str
    groups: int
    members: int
    dim: int
    k: int
    metric: str
    min_size: int
    sizes: tuple[int, ...]
    false_alarm_rate: float
    attainable_rate: float
    small: int
    ungrouped: int
    rejected: int
    weights: str | None = None
    doubts: tuple[Doubt, ...] = ()
    units: int | None = None
    near: float | None = None

    of: ClassVar[str] = "groups"  # what is scored with it

    @property
    def things(self) -> int:
        """How many normal ones of what is scored it holds."""
        return self.groups

    @property
    def counted(self) -> str:
        """What the sizes of groups count, for people."""
        return "images" if self.units is None else "independent images"

    @property
    def content(self) -> str:
        """How many images are in its groups, in words, and units where near copies are one."""
        units = "" if self.units is None else f", {self.units:,} units"
        return f"{self.members:,} images in all{units}"

    @property
    def backbone(self) -> str:
        """What made its images' embeddings, for people: backbone and crop."""
        return EmbedderName.parse(self.embedder).words


AnyBank: TypeAlias = BankVersion | GroupBankVersion
