"""Scores, decisions and reports, of images and of groups."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, TypeAlias

from dn2.config import Name
from dn2.layout import ScorePart, ScoresFolder, ShardPath, Version
from dn2.records.doubts import Doubt
from dn2.records.drift import Drift


@dataclass(frozen=True, slots=True)
class ScoredShard:
    """The finished scores of one embedding shard.

    Attributes:
        path: where they lie, relative to the store.
        shard: the embedding shard they were made from, relative to the store: its thumbnails lie beside it.
        scored: images with a score.
        rejected: images that could not be read.
    """

    path: ScorePart
    shard: ShardPath
    scored: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Scored:
    """A batch with a score, or a reject reason, for every image; nothing is decided yet.

    Attributes:
        source: where the batch came from.
        bank: name of the bank it was compared with.
        version: the bank's version.
        folder: where the scores lie, relative to the store.
        parts: the finished scores, in the order of the batch's shards.
    """

    source: str
    bank: Name
    version: Version
    folder: ScoresFolder
    parts: tuple[ScoredShard, ...]

    @property
    def scored(self) -> int:
        """Images with a score."""
        return sum(part.scored for part in self.parts)

    @property
    def rejected(self) -> int:
        """Images that could not be read."""
        return sum(part.rejected for part in self.parts)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the batch and the bank's version."""
        return self.folder.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about the scores of a batch.

    Attributes:
        threshold: a higher score is called anomalous (squared distance).
        rule: how it was chosen, in words.
        above: calibration scores of the bank that lie above it.
        anomalous: images above it.
        selected: images that Benjamini-Hochberg selects at the false-discovery rate of the settings.
        doubts: what could not be decided as it was asked for, and what is odd about the batch.
        known: images of the batch that the bank holds already, by bytes or nearly.
        known_anomalous: of them, those above the threshold.
        drift: how the whole of the batch differs from what is normal; None where that cannot be told.
    """

    threshold: float
    rule: str
    above: int
    anomalous: int
    selected: int
    doubts: tuple[Doubt, ...]
    known: int = 0
    known_anomalous: int = 0
    drift: Drift | None = None


@dataclass(frozen=True, slots=True)
class WorstImage:
    """One of the images with the largest scores.

    Attributes:
        uri: where it lies.
        score: mean squared distance to the k nearest normal images.
        p_value: how rare such a score is among normal images.
        q_value: the smallest false-discovery rate at which it is selected.
        is_anomaly: whether it is above the threshold.
        selected: whether its q-value is small enough.
        nearest: URI of the normal image it is most like.
    """

    uri: str
    score: float
    p_value: float
    q_value: float
    is_anomaly: bool
    selected: bool
    nearest: str


@dataclass(frozen=True, slots=True)
class Report:
    """A finished report of one batch against one bank version.

    Attributes:
        uri: absolute URI of its folder: part-*.parquet, report.html, summary.json.
        bank: the bank's name.
        version: the bank's version.
        source: where the batch came from.
        images: images in the batch: scored + rejected.
        scored: images with a score.
        anomalous: images above the threshold.
        selected: images whose q-value is at most the false-discovery rate.
        rejected: images that could not be read.
        threshold: a higher score is called anomalous (squared distance).
        rule: how the threshold was chosen, in words.
        false_discovery_rate: share of normal images among the selected ones that may be expected.
        warnings: what a reader should know before trusting the figures: the messages of the doubts.
        worst: the images with the largest scores, worst first.
        doubts: the same with codes and numbers; a report of an older dn2 has none.
        known: images of the batch that the bank holds already, by bytes or nearly: its rates leave them out.
        known_anomalous: of them, those above the threshold.
        drift: how the whole of the batch differs from what is normal; None where that cannot be told, or an older dn2
            has not looked.
    """

    uri: str
    bank: Name
    version: Version
    source: str
    images: int
    scored: int
    anomalous: int
    selected: int
    rejected: int
    threshold: float
    rule: str
    false_discovery_rate: float
    warnings: tuple[str, ...] = ()
    worst: tuple[WorstImage, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    known: int = 0
    known_anomalous: int = 0
    drift: Drift | None = None

    of: ClassVar[str] = "images"  # what was scored

    @property
    def things(self) -> int:
        """How many of what was scored the batch has."""
        return self.images

    @property
    def details(self) -> dict[str, object]:
        """What a report of groups has not, by name."""
        drift = None if self.drift is None else {**asdict(self.drift), "words": self.drift.words}
        return {"threshold": self.threshold, "rule": self.rule, "drift": drift}

    @property
    def html(self) -> str:
        """URI of the report's page."""
        return f"{self.uri}/report.html"

    @property
    def anomalous_rate(self) -> float:
        """Share of the scored images that are anomalous, those that the bank holds left out; 0 if there is none."""
        rated = self.scored - self.known
        return (self.anomalous - self.known_anomalous) / rated if rated else 0.0


@dataclass(frozen=True, slots=True)
class WorstGroup:
    """One of the groups with the largest scores.

    Attributes:
        group_id: its name.
        members: readable images in it.
        score: distance, over that of a typical normal group of its size.
        p_value: how rare such a score is among normal groups.
        q_value: the smallest false-discovery rate at which it is selected.
        is_anomaly: whether it is above the threshold for its size.
        selected: whether its q-value is small enough.
        nearest: the normal group it is most like.
        odd: URI of the image that contributes most.
        effective: independent images that its members count as; None where every image counts.
    """

    group_id: str
    members: int
    score: float
    p_value: float
    q_value: float
    is_anomaly: bool
    selected: bool
    nearest: str
    odd: str
    effective: float | None = None


@dataclass(frozen=True, slots=True)
class GroupReport:
    """A finished report of groups against one version of a bank of groups.

    Attributes:
        uri: absolute URI of its folder: groups.parquet, part-*.parquet, report.html, summary.json.
        bank: the bank's name.
        version: the bank's version.
        source: where the images came from.
        groups: groups in the batch: scored + unscored.
        scored: groups with a score.
        anomalous: groups above the threshold for their size.
        selected: groups whose q-value is at most the false-discovery rate.
        unscored: groups that could not be scored: too few readable images, most of the time.
        images: images in the batch.
        ungrouped: of them, images that belong to no group.
        rejected: of them, images that could not be read.
        false_alarm_rate: share of normal groups that may be flagged.
        false_discovery_rate: share of normal groups among the selected ones that may be expected.
        warnings: what a reader should know before trusting the figures: the messages of the doubts.
        worst: the groups with the largest scores, worst first.
        doubts: the same with codes and numbers; a report of an older dn2 has none.
    """

    uri: str
    bank: Name
    version: Version
    source: str
    groups: int
    scored: int
    anomalous: int
    selected: int
    unscored: int
    images: int
    ungrouped: int
    rejected: int
    false_alarm_rate: float
    false_discovery_rate: float
    warnings: tuple[str, ...] = ()
    worst: tuple[WorstGroup, ...] = ()
    doubts: tuple[Doubt, ...] = ()

    of: ClassVar[str] = "groups"  # what was scored
    drift: ClassVar[Drift | None] = None  # of groups nobody looks

    @property
    def things(self) -> int:
        """How many of what was scored the batch has."""
        return self.groups

    @property
    def details(self) -> dict[str, object]:
        """What a report of images has not, by name."""
        return {"groups": self.groups, "unscored": self.unscored, "false_alarm_rate": self.false_alarm_rate}

    @property
    def html(self) -> str:
        """URI of the report's page."""
        return f"{self.uri}/report.html"

    @property
    def anomalous_rate(self) -> float:
        """Share of the scored groups that are anomalous; 0 if none was scored."""
        return self.anomalous / self.scored if self.scored else 0.0


AnyReport: TypeAlias = Report | GroupReport
