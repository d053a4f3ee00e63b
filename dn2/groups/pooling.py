"""How the embeddings of a group become one vector.

`mean` is the paper's: the mean of the embeddings (Bergman, Cohen, Hoshen 2020). It cannot tell a group of two kinds
from a group of a third kind that lies between them. `histogram` can: each embedding is replaced by how much it belongs
to each of a few cells, found by k-means among the normal images, or to none of them, and these shares are averaged (a
soft codebook: van Gemert et al., "Visual Word Ambiguity", PAMI 2010). Both average something over the members, so
groups are pooled as a stream, and a group's distance is a sum over its members. `concat` puts the embeddings one after
the other, to compare with the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.special import softmax
from sklearn.cluster import KMeans

from dn2.config import GroupFitConfig
from dn2.errors import BankError
from dn2.neighbors.bank import prepared
from dn2.neighbors.reverse import distances_to
from dn2.records import Embedded
from dn2.scoring.rows import dim_of, image_vectors
from dn2.store.storage import Store

_SAMPLE = 20_000  # images that cells are made from
_SOFTNESS = 0.3  # see `Pooling.width`: share of the mean squared distance to the nearest cell
_PER_CELL = 10  # images, at least: fewer would make cells out of chance
_REACH = 0.99  # quantile of the normal images' squared distances to the nearest cell
_NARROWEST = 1e-20  # where all images are cells: no squared distance of float16 vectors overflows over it


@dataclass(frozen=True, slots=True, eq=False)
class Pooling:
    """What is taken of each image, to be averaged or put one after the other.

    Attributes:
        metric: l2, or cosine: embeddings are scaled to length 1 first.
        cells: (C, D) float16 centres of a histogram; without them it is the embedding itself.
        width: squared distance by which a cell must be farther than another to get 1/e of its share.
        reach: squared distance from a cell at which as much belongs to none of them: what no normal image is like.
    """

    metric: str
    cells: npt.NDArray[np.float16] | None = None
    width: float = 1.0
    reach: float = 1.0

    def features(self, vectors: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
        """Return (M, P) float32 for (M, D) float16 embeddings; a histogram's last column is the share in no cell."""
        vectors = prepared(vectors, self.metric)
        if self.cells is None:
            return vectors.astype(np.float32)
        found = np.full((len(vectors), len(self.cells) + 1), self.reach, np.float32)
        read = 0
        for block in _to_cells(vectors, self.cells):
            found[read : read + len(block), :-1] = block
            read += len(block)
        shares: npt.NDArray[np.float32] = softmax(-found / np.float32(self.width), axis=1)
        return shares

    def dim_of(self, embedded: Embedded, store: Store) -> int:
        """Return P."""
        return dim_of(embedded, store) if self.cells is None else len(self.cells) + 1


def _to_cells(vectors: npt.NDArray[np.float16], cells: npt.NDArray[np.float16]) -> Iterator[npt.NDArray[np.float32]]:
    none = [np.full((1, len(one)), -1, np.int64) for one in (vectors, cells)]
    return distances_to(vectors, none[0], cells, none[1])


def make_pooling(embedded: Embedded, store: Store, inside: npt.NDArray[np.bool_], config: GroupFitConfig) -> Pooling:
    """Return what turns the images of groups into vectors; the cells of a histogram come from a sample of them.

    Args:
        embedded: the training images.
        store: where their embeddings lie.
        inside: (N,) which of the readable ones are in a group that is learnt.
        config: pooling, metric, number of cells.
    """
    if config.pooling != "histogram":
        return Pooling(config.metric)
    chosen = np.zeros(len(inside), bool)
    chosen[np.random.default_rng(0).permutation(np.flatnonzero(inside))[:_SAMPLE]] = True
    read, parts = 0, []
    for vectors in image_vectors(embedded, store):
        parts.append(prepared(vectors[chosen[read : read + len(vectors)]], config.metric))
        read += len(vectors)
    sample = np.concatenate(parts)
    count = min(config.cells, max(1, len(sample) // _PER_CELL), len(np.unique(sample, axis=0)))
    means = KMeans(count, n_init=1, max_iter=50, random_state=0)
    cells = means.fit(sample.astype(np.float32)).cluster_centers_.astype(np.float16)
    nearest = np.concatenate([block.min(axis=1) for block in _to_cells(sample, cells)])
    width, reach = _SOFTNESS * float(nearest.mean()), float(np.quantile(nearest, _REACH))
    return Pooling(config.metric, cells, max(width, _NARROWEST), reach)


class Totals:
    """The vectors of many units (groups, or parts of them), added up as a stream."""

    def __init__(self, units: int, dim: int, *, places: int = 1) -> None:
        """Begin with nothing.

        Args:
            units: how many.
            dim: length of an image's features.
            places: images of a unit that are put one after the other; 1: they are averaged.
        """
        self._sums = np.zeros((units, places, dim), np.float64)
        self._counts = np.zeros(units, np.int64)

    def add(self, unit_of: npt.NDArray[np.int64], features: npt.NDArray[np.float32]) -> None:
        """Take (M, P) float32 features of images, and (M,) int64 the units they belong to; -1 is none."""
        mine = np.flatnonzero(unit_of >= 0)
        units, column, counts = np.unique(unit_of[mine], return_inverse=True, return_counts=True)
        if self._sums.shape[1] == 1:
            matrix = csr_array((np.ones(len(mine)), (column, np.arange(len(mine)))), shape=(len(units), len(mine)))
            self._sums[units, 0] += matrix @ features[mine].astype(np.float64)
        else:
            order = np.argsort(column, kind="stable")
            rows = units[column[order]]
            nth = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts, counts)
            self._sums[rows, self._counts[rows] + nth] = features[mine[order]]
        self._counts[units] += counts

    def vectors(self) -> npt.NDArray[np.float16]:
        """Return (U, P) float16, or (U, places * P)."""
        averaged = self._sums.shape[1] == 1
        divisor = self._counts.clip(min=1)[:, None, None] if averaged else 1
        units, places, dim = self._sums.shape
        found: npt.NDArray[np.float16] = (self._sums / divisor).reshape(units, places * dim).astype(np.float16)
        return found


def check_group_memory(vectors: int, dim: int, budget_gb: float) -> None:
    """Refuse groups that would not fit.

    Raises:
        BankError: their vectors, while they are added up in float64, need more than `budget_gb`.
    """
    needed = 8 * vectors * dim / 2**30
    if needed > budget_gb:
        raise BankError(
            f"{vectors} groups and parts of groups, with vectors of length {dim}: need {needed:.2f} GiB, expected at "
            f"most group_memory_gb = {budget_gb:g}; raise the setting, or use pooling histogram"
        )
