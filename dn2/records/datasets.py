"""A dataset, its shards, their embeddings, and which images cleaning keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dn2.checks import fingerprint
from dn2.records.embedders import EmbedderName


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
        embedder: id of the embedder: backbone, crop, and a fingerprint of weights and preprocessing.
        shards: the finished shards in manifest order.
        weights: URI of the backbone's weights, where they are not the usual ones.
    """

    dataset: Dataset
    embedder: str
    shards: tuple[EmbeddedShard, ...]
    weights: str | None = None

    @property
    def tiles(self) -> int:
        """How many vectors stand for an image."""
        return EmbedderName.parse(self.embedder).tiles

    @property
    def embedded(self) -> int:
        """Images with an embedding."""
        return sum(shard.embedded for shard in self.shards)

    @property
    def rejected(self) -> int:
        """Images that could not be read."""
        return sum(shard.rejected for shard in self.shards)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A dense group of training images that lies apart from the main body: rare and normal, or foreign.

    Attributes:
        id: hex digits over the ids of its images.
        images: how many they are.
        units: how many without near copies, of those that were looked at.
        answer: keep or drop, as was said of it; undecided where nobody has said anything: it is kept.
    """

    id: str
    images: int
    units: int
    answer: Literal["keep", "drop", "undecided"] = "undecided"


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
        low: the contamination is at least that, but for one case in twenty; None where no interval was made.
        high: it is at most that, undecided clusters included, but for one case in twenty.
        units: images without copies and near copies; None where they were not counted.
        clusters: what was asked about, the largest first.
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
    low: float | None = None
    high: float | None = None
    units: int | None = None
    clusters: tuple[Cluster, ...] = ()

    @property
    def undecided(self) -> tuple[Cluster, ...]:
        """The clusters of which nobody has said what they are."""
        return tuple(cluster for cluster in self.clusters if cluster.answer == "undecided")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a bank of the kept images cannot promise."""
        if not self.undecided:
            return ()
        images = sum(cluster.images for cluster in self.undecided)
        one = len(self.undecided) == 1
        kinds = (
            "a second kind of image is undecided and stays"
            if one
            else f"{len(self.undecided)} kinds are undecided and stay"
        )
        return (
            f"{kinds} in, {images:,} images: normal or not? Until that is said, {self.low or 0:.1%} to "
            f"{self.high or 1:.1%} of all may be anomalies, and no false-alarm rate is promised",
        )

    @property
    def html(self) -> str:
        """URI of the page that shows it."""
        return f"{self.uri}/report.html"

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the images and the settings."""
        return self.uri.rpartition("/")[2]
