"""What is normal for the size of a group: the mean of 3 images scatters more than the mean of 300.

Normal groups are cut into parts of many sizes. Each part is scored against the *other* normal groups, as a new group of
that size would be. So a group of any size is compared with parts of its own size, and never flagged for being small.
Sizes count independent images: parts hold all near copies of an image or none (see `dn2.groups.distinct`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dn2.scoring.calibration import Calibration

_ENOUGH = 99  # parts: with fewer, a false-alarm rate of 1 % cannot be promised
_NEAREST = 1e-20  # squared distance: no two different float16 vectors are nearer, and nothing overflows over it


class Sizes:
    """Distances of parts of normal groups, by size.

    Attributes:
        sizes: (L,) float64, ascending.
        distances: (n,) float32 each, ascending.
    """

    def __init__(
        self,
        sizes: Sequence[float],
        distances: Sequence[npt.NDArray[np.float32]],
        *,
        groups: int,
        group_of: Sequence[npt.NDArray[np.int64]] | None = None,
    ) -> None:
        """Take the distances of each size.

        Args:
            sizes: group sizes.
            distances: of the parts of each size, in any order.
            groups: normal groups that the parts were cut from.
            group_of: for each size the group of each part: parts of one group count as one. By default, as in older
                banks, every part counts.
        """
        order = np.argsort(sizes)
        self.sizes = np.asarray(sizes, np.float64)[order]
        ranks = [np.argsort(distances[place], kind="stable") for place in order]
        self.distances = [distances[place][rank] for place, rank in zip(order, ranks, strict=True)]
        self._group_of: list[npt.NDArray[np.int64]] | None = None
        if group_of is not None:
            self._group_of = [group_of[place][rank] for place, rank in zip(order, ranks, strict=True)]
        self._enough = min(_ENOUGH, groups)  # parts of groups that differ are no better than the groups

    @classmethod
    def measured(
        cls,
        sizes: Sequence[int],
        size_of: npt.NDArray[np.int64],
        distances: npt.NDArray[np.float32],
        *,
        groups: int,
        effective: npt.NDArray[np.float64] | None = None,
        group_of: npt.NDArray[np.int64] | None = None,
    ) -> Sizes:
        """Return what was measured of P parts.

        Args:
            sizes: units in a part, all sizes there are.
            size_of: (P,) int64 of each part.
            distances: (P,) float32.
            groups: normal groups that the parts were cut from.
            effective: (P,) float64, how many independent images each part counts as; by default its size. A size is
                taken for the geometric mean of its parts.
            group_of: (P,) int64, see above.

        Raises:
            ValueError: a size has no part.
        """
        rows = [np.flatnonzero(size_of == size) for size in sizes]
        if not all(map(len, rows)):
            raise ValueError(f"got no part of {sizes[[len(one) for one in rows].index(0)]} images")
        counts: Sequence[float] = sizes
        if effective is not None:
            counts = [float(np.exp(np.log(effective[one]).mean())) for one in rows]
        of = None if group_of is None else [group_of[one] for one in rows]
        return cls(counts, [distances[one] for one in rows], groups=groups, group_of=of)

    @cached_property
    def _medians(self) -> npt.NDArray[np.float64]:
        return np.array([max(float(np.median(one)), _NEAREST) for one in self.distances])

    @cached_property
    def _full(self) -> npt.NDArray[np.int64]:
        """Which sizes have enough parts; if none has, the one with the most. All, where every group is at each size."""
        if self._group_of is not None:
            return np.arange(len(self.sizes))
        counts = np.array([len(one) for one in self.distances])
        full = np.flatnonzero(counts >= self._enough)
        return full if len(full) else np.array([counts.argmax()])

    def typical(self, sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return (G,) float64: the distance of a typical normal group of each of (G,) sizes.

        Between the sizes that were measured it is interpolated on logarithmic scales. A group larger than all of them
        is taken for one of the largest: it scatters less, so it is flagged too rarely rather than too often.
        """
        typical: npt.NDArray[np.float64] = np.exp(np.interp(np.log(sizes), np.log(self.sizes), np.log(self._medians)))
        return typical

    def _levels(self, sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return (G,) int64: at which measured size groups of each size are judged."""
        gaps = np.abs(np.log(sizes)[:, None] - np.log(self.sizes[self._full])[None])
        levels: npt.NDArray[np.int64] = self._full[gaps.argmin(axis=1)]
        return levels

    def calibration(self, level: int) -> Calibration:
        """Return what calibrates a level: its distances over their median.

        A group that is too small to have parts of this size is there with its largest ones, over their own median.
        """
        if self._group_of is None:
            return Calibration.of(np.asarray(self.distances[level] / self._medians[level], np.float32))
        scores, units, seen = [], [], np.zeros(0, np.int64)
        for lower in range(level, -1, -1):
            new = ~np.isin(self._group_of[lower], seen)
            scores.append((self.distances[lower][new] / self._medians[lower]).astype(np.float32))
            units.append(self._group_of[lower][new])
            seen = np.union1d(seen, units[-1])
        return Calibration.of(np.concatenate(scores), np.concatenate(units))

    def scores(self, distances: npt.NDArray[np.float32], sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return (G,) float32: each distance over that of a typical normal group of the same size."""
        scores: npt.NDArray[np.float32] = (distances / self.typical(sizes)).astype(np.float32)
        return scores

    def p_values(self, scores: npt.NDArray[np.float32], sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return (G,) float64 conformal p-values: how rare such scores are among parts of about the same size."""
        found = np.empty(len(scores), np.float64)
        levels = self._levels(sizes)
        for level in np.unique(levels):
            mine = levels == level
            found[mine] = self.calibration(level).p_values(scores[mine])
        return found

    def fewest(self, sizes: npt.NDArray[np.float64]) -> int:
        """Return how many groups (in older banks: parts) p-values of these sizes rest on, where fewest; 0 for none."""
        return min((self.calibration(level).units for level in np.unique(self._levels(sizes))), default=0)

    def thresholds(self, sizes: npt.NDArray[np.float64], rate: float) -> tuple[npt.NDArray[np.float32], float]:
        """Return (G,) float32: the score above which a group of each size is anomalous; and the rate that is promised.

        Args:
            sizes: (G,) float64.
            rate: share of normal groups that may be flagged.
        """
        found, promised = np.empty(len(sizes), np.float32), 0.0
        levels = self._levels(sizes)
        for level in np.unique(levels):
            found[levels == level], attainable = self.calibration(level).threshold(rate)
            promised = max(promised, attainable)
        return found, promised
