"""What cleaning works on, and what it finds: one score for each image, and how many units are dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2.errors import BankError, ConfigError
from dn2.neighbors.bank import prepared
from dn2.neighbors.segments import keys
from dn2.progress import advance
from dn2.records import Cluster, Embedded
from dn2.scoring.rows import image_rows, image_vectors
from dn2.scoring.typicality import SAMPLE, Block, Sample
from dn2.store.schemas import CLEANING
from dn2.store.storage import Store
from dn2.store.tables import with_columns

FEWEST = 20  # different images: among fewer nothing can be called odd
_FEWEST_KEPT = 3  # different images: a bank needs k + 1, and k is 2 by default


class Images:
    """The training images that could be read, N of them.

    Attributes:
        embedded: what `embed` returned.
        store: where dn2 keeps its files.
        rows: an Arrow table of them, see `image_rows`.
        keys: (2, N) int64, image and content.
    """

    def __init__(self, embedded: Embedded, store: Store) -> None:
        self.embedded, self.store = embedded, store
        self.rows: Any = image_rows(embedded, store)
        self.keys = np.stack([keys(self.rows[column].to_pylist()) for column in ("image_id", "content_sha256")])

    def __len__(self) -> int:
        return int(self.keys.shape[1])

    def vectors(self) -> Iterator[tuple[slice, npt.NDArray[np.float16]]]:
        """Yield the row numbers of each shard's images and their vectors of length 1, (M, D) float16."""
        read = 0
        for vectors in image_vectors(self.embedded, self.store):
            yield slice(read, read + len(vectors)), prepared(vectors, "cosine")
            read += len(vectors)

    def blocks(self) -> Iterator[Block]:
        """Yield the vectors and keys of each shard's images."""
        for rows, vectors in self.vectors():
            yield vectors, self.keys[:, rows]

    def drawn(self, most: int | None = None) -> npt.NDArray[np.int64]:
        """Return (S,) int64 rows of different images, drawn at random but always the same: all, or so many.

        Args:
            most: how many; by default 10,000.

        Raises:
            BankError: fewer than 20 different images.
        """
        _, first = np.unique(self.keys[1], return_index=True)
        self.check(len(first))
        return np.sort(np.random.default_rng(0).permutation(first)[: most or SAMPLE])

    def check(self, different: int) -> None:
        """Raise a BankError if there are too few different images."""
        if different < FEWEST:
            raise BankError(
                f"cleaning {self.embedded.dataset.source}: got {different} different images, expected at least "
                f"{FEWEST}: too few to clean; train without cleaning"
            )

    def sample(self, chosen: npt.NDArray[np.int64]) -> Sample:
        """Return a sample of these rows, (S,) int64 ascending."""
        wanted = np.zeros(len(self), bool)
        wanted[chosen] = True
        return Sample(np.concatenate([found[wanted[rows]] for rows, found in self.vectors()]), self.keys[:, chosen])

    def counted(self, parts: Iterable[Any]) -> Iterator[Any]:
        """Yield the parts, and tell of the progress; each is as long as the images that it is of."""
        for part in parts:
            yield part
            advance("clean", len(part), total=len(self))


@dataclass(frozen=True, slots=True)
class Judged:
    """What a rule says of N images in U units: copies count once, and share one fate.

    Attributes:
        scores: (N,) float32, higher is odder.
        unit_of: (N,) int64, numbered from 0; all images of a unit have one score.
        impurities: units that are taken for anomalies, those with the highest scores.
        dropped: units that are dropped, those with the highest scores.
        contamination: share of the images that is taken for anomalies.
        drop: share that is to be dropped.
        cluster_of: (N,) id of the cluster that an image belongs to, or None.
        clusters: what was asked about.
        interval: within which the contamination lies, where that is known.
        units: how many there are, if near copies were looked for.
    """

    scores: npt.NDArray[np.float32]
    unit_of: npt.NDArray[np.int64]
    impurities: int
    dropped: int
    contamination: float
    drop: float
    cluster_of: npt.NDArray[np.object_]
    clusters: tuple[Cluster, ...] = ()
    interval: tuple[float, float] | None = None
    units: int | None = None

    def table(self, rows: Any) -> tuple[Any, npt.NDArray[np.int64]]:
        """Return a table with score, rank, kept, reason and cluster, and (N,) int64 its rows, the oddest first.

        Args:
            rows: an Arrow table of the images.

        Raises:
            ConfigError: fewer different images would be kept than a bank needs.
        """
        _, first = np.unique(self.unit_of, return_index=True)
        count = len(first)
        if count - self.dropped < _FEWEST_KEPT:
            raise ConfigError(
                f"drop_fraction: got {self.drop:g}, which keeps {count - self.dropped} of {count} different images, "
                f"expected at least {_FEWEST_KEPT} to be kept; lower it"
            )
        unit_rank = np.empty(count, np.int64)
        unit_rank[np.lexsort((first, -self.scores[first]))] = np.arange(1, count + 1)
        rank = unit_rank[self.unit_of]
        kept = rank > self.dropped
        reasons = np.where(rank <= self.impurities, "impurity", "margin").astype(object)
        reasons[kept] = None
        columns = {
            "score": self.scores[first][self.unit_of],
            "rank": rank,
            "kept": kept,
            "reason": reasons,
            "cluster": self.cluster_of,
        }
        return with_columns(rows, columns, CLEANING), np.argsort(rank, kind="stable")
