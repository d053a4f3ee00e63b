"""Small frozen records: all that passes between the steps. Never arrays, images or tables."""

from __future__ import annotations

from dataclasses import dataclass

from dn2.config import fingerprint


@dataclass(frozen=True, slots=True)
class Dataset:
    """What one ingest found: the state of a named, growing list of images.

    Attributes:
        name: the dataset's name in the store.
        source: absolute URI of the folder or prefix.
        parts: names of the manifest parts that describe it, oldest first.
        images: images now in the source.
        added: images this ingest saw for the first time.
        changed: images whose bytes changed since they were last listed.
        vanished: images that are no longer in the source.
        ignored: other files, which are not images.
        pattern: what the paths below the source say about group and label; it is applied when rows are read.
        ungrouped: images that the pattern does not fit.
    """

    name: str
    source: str
    parts: tuple[str, ...]
    images: int
    added: int = 0
    changed: int = 0
    vanished: int = 0
    ignored: int = 0
    pattern: str | None = None
    ungrouped: int = 0

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when any image of the dataset does."""
        return fingerprint([self.name, *self.parts])


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of one manifest part: the unit of work, retry and resume.

    Attributes:
        dataset: the dataset's name.
        source: absolute URI of its source.
        part: name of the manifest part.
        start: first row of the slice.
        stop: one past its last row.
        superseded: rows, counted from `start`, that are no image any more: tombstones, and images which a later
            part replaced or removed.
        pattern: the dataset's, see there.
    """

    dataset: str
    source: str
    part: str
    start: int
    stop: int
    superseded: tuple[int, ...] = ()
    pattern: str | None = None

    @property
    def images(self) -> int:
        """Rows that stand for an image of the dataset as it is now."""
        return self.stop - self.start - len(self.superseded)


@dataclass(frozen=True, slots=True)
class EmbeddedShard:
    """A finished embedding shard.

    Attributes:
        shard: the slice it was made from.
        path: where it lies, relative to the store.
        embedded: images with an embedding.
        rejected: images that could not be read.
    """

    shard: Shard
    path: str
    embedded: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """A dataset with an embedding, or a reject reason, for every image.

    Attributes:
        dataset: what was embedded.
        embedder: id of the embedder: backbone, and a fingerprint of weights and preprocessing.
        shards: the finished shards in manifest order.
    """

    dataset: Dataset
    embedder: str
    shards: tuple[EmbeddedShard, ...]

    @property
    def embedded(self) -> int:
        """Images with an embedding."""
        return sum(shard.embedded for shard in self.shards)

    @property
    def rejected(self) -> int:
        """Images that could not be read."""
        return sum(shard.rejected for shard in self.shards)


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Training images told apart into kept and dropped.

    Attributes:
        uri: absolute URI of its folder: rows.parquet, report.html, summary.json.
        source: where the images come from.
        rule: auto or paper.
        images: images with an embedding: kept + dropped.
        kept: images that go into a bank.
        dropped: images that do not.
        contamination: share of the images taken for anomalies.
        estimated: whether that share was estimated; otherwise it was given.
        drop_fraction: share that was to be dropped.
    """

    uri: str
    source: str
    rule: str
    images: int
    kept: int
    dropped: int
    contamination: float
    estimated: bool
    drop_fraction: float

    @property
    def html(self) -> str:
        """URI of the page that shows it."""
        return f"{self.uri}/report.html"

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the images and the settings."""
        return self.uri.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class BankVersion:
    """One immutable version of a feature bank.

    Attributes:
        name: the bank's name.
        version: fingerprint of everything it was made from.
        embedder: id of the embedder that made its rows.
        rows: normal embeddings in it.
        dim: length of an embedding.
        k: neighbours averaged for a score.
        metric: l2 or cosine.
        threshold: a higher score is called anomalous (squared distance).
        false_alarm_rate: share of normal images that was asked for.
        attainable_rate: what the calibration can promise: the rate asked for, or 1 / (n + 1) if that is more.
        calibration: how the calibration scores were made: leave-one-out or held-out.
        calibration_rows: how many there are.
        rejected: training images that could not be read.
        cleaning: folder of the training images' cleaning, relative to the store; None if they were not cleaned.
        dropped: training images that cleaning kept out of the bank.
        contamination: share of the training images taken for anomalies: so many scores do not calibrate.
        contamination_estimated: whether that share was estimated; otherwise it was given.
    """

    name: str
    version: str
    embedder: str
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
    cleaning: str | None = None
    dropped: int = 0
    contamination: float = 0.0
    contamination_estimated: bool = False


@dataclass(frozen=True, slots=True)
class ScoredShard:
    """The finished scores of one embedding shard.

    Attributes:
        path: where they lie, relative to the store.
        shard: the embedding shard they were made from, relative to the store: its thumbnails lie beside it.
        scored: images with a score.
        rejected: images that could not be read.
    """

    path: str
    shard: str
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
    bank: str
    version: str
    folder: str
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
        warnings: what could not be decided as it was asked for.
    """

    threshold: float
    rule: str
    above: int
    anomalous: int
    selected: int
    warnings: tuple[str, ...]


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
        warnings: what a reader should know before trusting the figures.
        worst: the images with the largest scores, worst first.
    """

    uri: str
    bank: str
    version: str
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

    @property
    def html(self) -> str:
        """URI of the report's page."""
        return f"{self.uri}/report.html"

    @property
    def anomalous_rate(self) -> float:
        """Share of the scored images that are anomalous; 0 if none was scored."""
        return self.anomalous / self.scored if self.scored else 0.0


@dataclass(frozen=True, slots=True)
class Drop:
    """A delivery of images below a watched prefix, as a listing shows it.

    Attributes:
        id: 32 hex digits over its URI, the names and versions of its images, and the bank: the same files give the
            same id, and one more file another.
        uri: absolute URI of its folder.
        bank: name of the bank it is to be compared with.
        images: how many it holds.
        marked: whether the file lies in it that says that it is complete.
    """

    id: str
    uri: str
    bank: str
    images: int
    marked: bool


@dataclass(frozen=True, slots=True)
class SeenDrop:
    """What is remembered of a drop between two looks.

    Attributes:
        id: identity of the drop as it was at the last look.
        since: when it was first seen like this (seconds since 1970).
        told: when it was last told to be complete; None if it never was.
        times: how often it was told.
        scored: its report is finished: it is never told again.
    """

    id: str
    since: float
    told: float | None = None
    times: int = 0
    scored: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a watched prefix has shown.

    Attributes:
        watch: name of what is remembered about the prefix.
        prefix: its absolute URI.
        drops: all drops there.
        due: those that are complete, not scored, and to be told now.
        remembered: what to remember of each drop, by URI.
        loose: images that lie beside the folders, in no drop.
    """

    watch: str
    prefix: str
    drops: tuple[Drop, ...]
    due: tuple[Drop, ...]
    remembered: dict[str, SeenDrop]
    loose: int


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
    """

    name: str
    version: str
    embedder: str
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
        warnings: what a reader should know before trusting the figures.
        worst: the groups with the largest scores, worst first.
    """

    uri: str
    bank: str
    version: str
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

    @property
    def html(self) -> str:
        """URI of the report's page."""
        return f"{self.uri}/report.html"

    @property
    def anomalous_rate(self) -> float:
        """Share of the scored groups that are anomalous; 0 if none was scored."""
        return self.anomalous / self.scored if self.scored else 0.0
