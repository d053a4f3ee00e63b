"""Kinds of images: dense groups of a training set that lie apart from each other, found without labels.

Cells of k-means are joined until what is left lies apart. How far two kinds lie apart is asked of the images of the
smaller one: what their two nearest others of their own kind are away, relative to their two nearest of the other kind.
Near 1 they lie among each other; images of another kind are nearer to their own. The two that are least apart are
joined first, so that what is spread out or bent becomes one kind, whatever its shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dn2.neighbors.kmeans import centroids
from dn2.neighbors.reverse import to_two_nearest

MOST = 10  # kinds: nobody answers more questions
FEWEST = 4  # images of a kind: fewer are scattered
_APART = 0.8  # kinds of one class of Fashion-MNIST are joined at 0.75 to 0.9, two classes at 0.35 to 0.7
_PER_CELL, _CELLS, _ITERATIONS = 15, 60, 20


def kinds_of(
    vectors: npt.NDArray[np.float16], distances: npt.NDArray[np.float32], *, most: int = MOST
) -> npt.NDArray[np.int64]:
    """Return (S,) int64: the kind of each image, 0 that of the most images, and so on.

    Args:
        vectors: (S, D) float16, one image of each unit.
        distances: (S, S) float32, squared; infinite for an image and itself.
        most: kinds.
    """
    cells = _cells(vectors)
    joined = _Joined(distances, [np.flatnonzero(cells == cell) for cell in np.unique(cells)])
    while len(joined.members) > 1:
        one, other, closeness = joined.closest()
        if closeness < _APART and len(joined.members) <= most:
            break
        joined.join(one, other)
    found = np.empty(len(vectors), np.int64)
    for kind, members in enumerate(sorted(joined.members, key=lambda rows: (-len(rows), rows[0]))):
        found[members] = kind
    return found


def _cells(vectors: npt.NDArray[np.float16]) -> npt.NDArray[np.int64]:
    count = int(np.clip(len(vectors) // _PER_CELL, 1, _CELLS))
    wide = vectors.astype(np.float32)
    centres = centroids(wide, count, iterations=_ITERATIONS)
    nearest: npt.NDArray[np.int64] = ((centres**2).sum(axis=1) - 2 * wide @ centres.T).argmin(axis=1)
    return nearest


class _Joined:
    """Kinds that are joined two by two.

    Attributes:
        members: row numbers of each.
    """

    def __init__(self, distances: npt.NDArray[np.float32], members: Sequence[npt.NDArray[np.int64]]) -> None:
        self.members = list(members)
        self._nearest = [to_two_nearest(distances, rows) for rows in self.members]
        count = len(self.members)
        self._closeness = np.full((count, count), -np.inf)
        for one in range(count):
            for other in range(one):
                self._closeness[one, other] = self._measured(one, other)

    def closest(self) -> tuple[int, int, float]:
        """Return the two that are least apart, and how close they are: from 0 up, 1 where they lie among each other."""
        one, other = np.unravel_index(self._closeness.argmax(), self._closeness.shape)
        return int(one), int(other), float(self._closeness[one, other])

    def join(self, one: int, other: int) -> None:
        """Make one kind of two, in the place of the second one."""
        self.members[other] = np.sort(np.concatenate([self.members[other], self.members[one]]))
        both = np.concatenate([self._nearest[other], self._nearest[one]], axis=1)
        self._nearest[other] = np.sort(both, axis=1)[:, :2]
        del self.members[one], self._nearest[one]
        self._closeness = np.delete(np.delete(self._closeness, one, axis=0), one, axis=1)
        for rest in range(len(self.members)):
            if rest != other:
                high, low = max(rest, other), min(rest, other)
                self._closeness[high, low] = self._measured(high, low)

    def _measured(self, one: int, other: int) -> float:
        small, large = sorted((one, other), key=lambda kind: len(self.members[kind]))
        rows = self.members[small]
        away = np.maximum(self._nearest[large][rows].mean(axis=1), 1e-12)
        if len(rows) < FEWEST:  # joined first of all, with what is nearest
            return 2 + 1 / (1 + float(np.median(away)))
        return min(2.0, float(np.median(self._nearest[small][rows].mean(axis=1) / away)))
