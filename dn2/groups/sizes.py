"""What is normal for the size of a group: the mean of 3 images scatters more than the mean of 300.

Normal groups are cut into parts of many sizes. Each part is scored against the *other* normal groups, as a new group of
that size would be. So a group of any size is compared with parts of its own size, and never flagged for being small.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dn2.scoring.calibration import Calibration

_MOST = 2_000  # parts of one size
_FEWEST = 5  # groups: fewer say nothing about a size
_ENOUGH = 99  # parts: with fewer, a false-alarm rate of 1 % cannot be promised
_STEP = np.sqrt(2)
_NEAREST = 1e-20  # squared distance: no two different float16 vectors are nearer, and nothing overflows over it


def ladder(counts: npt.NDArray[np.int64], smallest: int) -> tuple[int, ...]:
    """Return the sizes that groups are cut into: from the smallest one up, each about 1.4 times the one before.

    The largest one that five groups have is one of them, and so is the size that most groups have, if it is not larger:
    parts of fewer groups than five would say more about these groups than about their size.

    Args:
        counts: (G,) int64, members of each group; at least `smallest`.
        smallest: the smallest size.
    """
    most = int(np.sort(counts)[-min(_FEWEST, len(counts))])
    steps = smallest * _STEP ** np.arange(64)
    sizes = {int(size) for size in np.rint(steps) if size < most} | {most}
    commonest = int(np.bincount(counts).argmax())
    return tuple(sorted(size for size in sizes | {commonest} if size <= most))


def parts_of(
    group_of: npt.NDArray[np.int64], image_keys: npt.NDArray[np.int64], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut groups into parts of one size, 2,000 at most, as many from each group as can be.

    Which images come together depends on nothing but their keys, which are hashes.

    Args:
        group_of: (N,) int64, number of each image's group; -1 where it has none.
        image_keys: (N,) int64.
        size: images in a part.

    Returns:
        (N,) int64 number of each image's part, -1 where it is in none; and (P,) int64 the group of each part.
    """
    rows = np.flatnonzero(group_of >= 0)
    rows = rows[np.lexsort((image_keys[rows], group_of[rows]))]
    groups = group_of[rows]
    names, first, inverse, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    nth = (np.arange(len(rows)) - first[inverse]) // size  # of the group's parts
    whole = nth < counts[inverse] // size
    rows, nth, inverse = rows[whole], nth[whole], inverse[whole]
    shuffled = np.random.default_rng(0).permutation(len(names))
    order = np.lexsort((shuffled[inverse], nth))  # every group's first part, then every group's second one
    part_of = np.full(len(group_of), -1, np.int64)
    kept = order[: _MOST * size]
    part_of[rows[kept]] = np.arange(len(kept)) // size
    return part_of, names[inverse[kept[::size]]]


class Sizes:
    """Distances of parts of normal groups, by size.

    Attributes:
        sizes: (L,) int64, ascending.
        distances: (n,) float32 each, ascending.
    """

    def __init__(self, sizes: Sequence[int], distances: Sequence[npt.NDArray[np.float32]], *, groups: int) -> None:
        """Take the distances of each size.

        Args:
            sizes: group sizes.
            distances: of the parts of each size, in any order.
            groups: normal groups that the parts were cut from.
        """
        order = np.argsort(sizes)
        self.sizes = np.asarray(sizes, np.int64)[order]
        self.distances = [np.sort(distances[place]) for place in order]
        self._enough = min(_ENOUGH, groups)  # parts of groups that differ are no better than the groups

    @cached_property
    def _medians(self) -> npt.NDArray[np.float64]:
        return np.array([max(float(np.median(one)), _NEAREST) for one in self.distances])

    @cached_property
    def _full(self) -> npt.NDArray[np.int64]:
        """Which sizes have enough parts; if none has, the one with the most."""
        counts = np.array([len(one) for one in self.distances])
        full = np.flatnonzero(counts >= self._enough)
        return full if len(full) else np.array([counts.argmax()])

    def typical(self, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return (G,) float64: the distance of a typical normal group of each size.

        Between the sizes that were measured it is interpolated on logarithmic scales. A group larger than all of them
        is taken for one of the largest: it scatters less, so it is flagged too rarely rather than too often.
        """
        typical: npt.NDArray[np.float64] = np.exp(np.interp(np.log(sizes), np.log(self.sizes), np.log(self._medians)))
        return typical

    def _levels(self, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return (G,) int64: at which measured size groups of each size are judged."""
        gaps = np.abs(np.log(sizes)[:, None] - np.log(self.sizes[self._full])[None])
        levels: npt.NDArray[np.int64] = self._full[gaps.argmin(axis=1)]
        return levels

    def _calibration(self, level: int) -> Calibration:
        return Calibration.of(np.asarray(self.distances[level] / self._medians[level], np.float32))

    def scores(self, distances: npt.NDArray[np.float32], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return (G,) float32: each distance over that of a typical normal group of the same size."""
        scores: npt.NDArray[np.float32] = (distances / self.typical(sizes)).astype(np.float32)
        return scores

    def p_values(self, scores: npt.NDArray[np.float32], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return (G,) float64 conformal p-values: how rare such scores are among parts of about the same size."""
        found = np.empty(len(scores), np.float64)
        levels = self._levels(sizes)
        for level in np.unique(levels):
            mine = levels == level
            found[mine] = self._calibration(level).p_values(scores[mine])
        return found

    def fewest(self, sizes: npt.NDArray[np.int64]) -> int:
        """Return how many parts the p-values of groups of these sizes rest on, where they are fewest; 0 for none."""
        return min((len(self.distances[level]) for level in np.unique(self._levels(sizes))), default=0)

    def thresholds(self, sizes: npt.NDArray[np.int64], rate: float) -> tuple[npt.NDArray[np.float32], float]:
        """Return (G,) float32: the score above which a group of each size is anomalous; and the rate that is promised.

        Args:
            sizes: (G,) int64.
            rate: share of normal groups that may be flagged.
        """
        found, promised = np.empty(len(sizes), np.float32), 0.0
        levels = self._levels(sizes)
        for level in np.unique(levels):
            found[levels == level], attainable = self._calibration(level).threshold(rate)
            promised = max(promised, attainable)
        return found, promised
