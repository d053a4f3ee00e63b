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
    """

    name: str
    source: str
    parts: tuple[str, ...]
    images: int
    added: int = 0
    changed: int = 0
    vanished: int = 0
    ignored: int = 0

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
    """

    dataset: str
    source: str
    part: str
    start: int
    stop: int
    superseded: tuple[int, ...] = ()

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


@dataclass(frozen=True, slots=True)
class ScoredShard:
    """One finished part of a report.

    Attributes:
        path: where it lies, relative to the store.
        scored: images with a score.
        anomalous: images above the threshold.
        rejected: images that could not be read.
    """

    path: str
    scored: int
    anomalous: int
    rejected: int


@dataclass(frozen=True, slots=True)
class WorstImage:
    """One of the images with the largest scores.

    Attributes:
        uri: where it lies.
        score: mean squared distance to the k nearest normal images.
        p_value: how rare such a score is among normal images.
        is_anomaly: whether it is above the threshold.
        nearest: URI of the normal image it is most like.
    """

    uri: str
    score: float
    p_value: float
    is_anomaly: bool
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
        rejected: images that could not be read.
        threshold: the bank's threshold (squared distance).
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
    rejected: int
    threshold: float
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
