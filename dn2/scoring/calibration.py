"""Scores of normal images that did not help to make them: what thresholds and p-values rest on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from dn2 import layout
from dn2.store.schemas import CALIBRATION
from dn2.store.storage import Store
from dn2.store.tables import read_table

LEAVE_ONE_OUT_ROWS = 10_000  # up to here every image is scored against all others: nothing is wasted
_HELD_OUT_SHARE, _HELD_OUT_UNITS = 0.2, 5_000
_OF_UNIT = 20  # images that are enough to tell what share of a unit scores how much
_COVERED = 0.9  # by intervals
_STRETCH = 1.2  # see `trusted`


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Scores of normal images that did not help to make them, in units of which each weighs the same.

    A new image of a new unit has p = (1 + sum over units of the share of their images with such a score or a larger
    one) / (units + 1). That is valid if the units are exchangeable, however many images each has and however alike
    they are (hierarchical conformal prediction: Lee, Barber, Willett 2023, arXiv 2306.06342; Dunn, Wasserman, Ramdas
    2022). Where each image is a unit it is the usual conformal p-value.

    Attributes:
        scores: (n,) float32, ascending.
        above: (n + 1,) float64, for r from 0 on, how many units the r largest scores are: the sum of their shares.
        unit_of: (n,) int64, number of the unit of each, from 0.
        units: how many there are.
    """

    scores: npt.NDArray[np.float32]
    above: npt.NDArray[np.float64]
    unit_of: npt.NDArray[np.int64]
    units: int

    @classmethod
    def of(cls, scores: npt.NDArray[np.float32], unit_of: npt.NDArray[np.int64] | None = None) -> Calibration:
        """Return the calibration by some scores.

        Args:
            scores: (n,) float32, in any order.
            unit_of: (n,) int64, equal for images of one unit; by default each is one.
        """
        order = np.argsort(scores, kind="stable")
        if unit_of is None:
            return cls(scores[order], np.arange(len(scores) + 1.0), np.arange(len(scores)), len(scores))
        number, sizes = np.unique(unit_of[order], return_inverse=True, return_counts=True)[1:]
        above = np.cumsum(1 / sizes[number][::-1])
        return cls(scores[order], np.round(np.concatenate([[0.0], above]), 9), number, len(sizes))

    @classmethod
    def read(cls, store: Store, name: str, version: str) -> Calibration:
        """Return what calibrates a version of a bank.

        Raises:
            NotFoundError: the version's file of it is missing.
            SchemaError: it is damaged.
        """
        table = read_table(store, layout.bank_calibration(name, version), CALIBRATION, ["score", "unit"])
        units = table["unit"]
        return cls.of(table["score"].to_numpy(), None if units.null_count else units.to_numpy())

    def ranks(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return (Q,) int64: how many calibration scores are as large as each of (Q,) scores."""
        return len(self.scores) - np.searchsorted(self.scores, scores, side="left").astype(np.int64)

    @property
    def p_by_rank(self) -> npt.NDArray[np.float64]:
        """(n + 1,) float64 p-values of scores of each rank."""
        return (1 + self.above) / (self.units + 1)

    def p_values(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return (Q,) float64 p-values of (Q,) scores."""
        return self.p_by_rank[self.ranks(scores)]

    def threshold(self, false_alarm_rate: float) -> tuple[float, float]:
        """Return the threshold for a false-alarm rate, and the rate that can be promised.

        A new normal image is above it with a probability of at most that: it is the largest score whose p-value is
        larger. Where even p-values above all scores are, that is where (units + 1) * rate < 1, the threshold is the
        largest score, and what can be promised is 1 / (units + 1).

        Args:
            false_alarm_rate: between 0 and 1.
        """
        allowed = (self.units + 1) * false_alarm_rate + 1e-9  # 100 * 0.01 must be 1 in floating point too
        if allowed < 1:
            return float(self.scores[-1]), 1 / (self.units + 1)
        tied = self.ranks(self.scores)  # of equal scores all count
        above = np.flatnonzero(1 + self.above[tied] > allowed)
        return float(self.scores[above[-1] if len(above) else 0]), false_alarm_rate

    def interval(self, threshold: float) -> tuple[float, float]:
        """Return between which rates the false-alarm rate above a threshold lies, at 90 %.

        That is the Bayesian bootstrap over units (Rubin 1981) with one more unit above the threshold: a beta
        distribution, and exactly that of split conformal prediction where each unit is one image that was held out.
        Where units differ in how many of their images are above, it has the same mean and variance. If a unit may have
        some images above and others below, the one more unit is all above for the upper end, and all below for the
        lower one.

        Args:
            threshold: a score.
        """
        above, sizes = np.bincount(self.unit_of, self.scores > np.float32(threshold), self.units), self.unit_sizes
        shares, several = above / sizes, bool((sizes > 1).any())
        low, high = _quantiles(shares, 0.0 if several else 1.0)[0], _quantiles(shares, 1.0)[1]
        return low, high

    @property
    def unit_sizes(self) -> npt.NDArray[np.int64]:
        """(units,) int64, how many images of each calibrate."""
        return np.bincount(self.unit_of, minlength=self.units)


def _quantiles(shares: npt.NDArray[np.float64], another: float) -> tuple[float, float]:
    """Return between which rates the mean share of all units lies, at 90 %.

    Args:
        shares: (units,) float64, the share of each one's images above the threshold.
        another: that of the next unit.
    """
    count = len(shares) + 1
    mean = (shares.sum() + another) / count
    variance = (((shares**2).sum() + another**2) / count - mean**2) / (count + 1)
    if variance <= 0:  # all are above, or all below
        return float(mean), float(mean)
    size = mean * (1 - mean) / variance - 1
    low, high = beta.ppf([(1 - _COVERED) / 2, (1 + _COVERED) / 2], mean * size, (1 - mean) * size)
    return float(low), float(high)


def held_out_rows(
    content_keys: npt.NDArray[np.int64], group_keys: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which of N images to keep out of the bank, (N,) bool, and which of them calibrate it, (N,) bool.

    A fifth of the units, at most 5,000 or a fifth of the images: a group, or the copies of an image that has none, as a
    whole. Any unit may be taken, however large, unless it holds half of all images: what is left in the bank must say
    nothing of what is taken. Up to 20 images of each unit calibrate. The choice depends on nothing but the keys, which
    are hashes: it is random to the pictures, and the same in every run.

    Args:
        content_keys: (N,) int64, equal for equal bytes.
        group_keys: (N,) int64, -1 where an image has no group.
    """
    units, count = np.where(group_keys != -1, group_keys, content_keys), len(content_keys)
    names, unit_of, sizes = np.unique(units, return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng(0).permutation(len(names))
    shuffled = shuffled[2 * sizes[shuffled] <= count]
    shuffled = shuffled[: min(_HELD_OUT_UNITS, int(_HELD_OUT_SHARE * len(names)))]
    before = np.cumsum(sizes[shuffled]) - sizes[shuffled]
    taken = np.zeros(len(names), bool)
    taken[shuffled[before < _HELD_OUT_SHARE * count]] = True
    order = np.lexsort((content_keys, unit_of))
    nth = np.empty(count, np.int64)
    nth[order] = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return taken[unit_of], taken[unit_of] & (nth < _OF_UNIT)


def trusted(scores: npt.NDArray[np.float32], contamination: float) -> npt.NDArray[np.bool_]:
    """Return which of (N,) scores are taken for those of normal images: all but a share of them.

    What cleaning drops beyond that share are normal images: without their scores the threshold would lie far too low.
    Nor are all anomalies above all normal images: without the largest scores it would still lie too low. So the upper
    half of the normal scores is modelled on the lower one, where there are hardly any anomalies: on a logarithmic scale
    it is the mirror image, stretched by 1.2 (seen on classes 0 to 4 of Fashion-MNIST: 1.0 to 1.3, and 2.2 once), or
    what is left without the largest scores if that is more. Of the scores above the median, as many are kept as the
    model has.

    Args:
        scores: (N,) float32 of training images, kept or dropped, against the kept ones.
        contamination: assumed or estimated share of anomalies.
    """
    count = len(scores)
    normal = max(1, count - round(contamination * count))
    order = np.argsort(-scores, kind="stable")
    mask = np.ones(count, bool)
    if normal == count:
        return mask
    logs = np.log(np.maximum(scores[order[::-1]], np.finfo(np.float32).tiny).astype(np.float64))
    median, half = logs[normal // 2], normal // 2
    mirrored = median + _STRETCH * (median - logs[:half])
    model = np.sort(np.maximum(mirrored, logs[normal - half : normal][::-1]))
    allowed = half - np.searchsorted(model, logs[::-1])  # how many of the model are at least as large as each score
    taken = 0
    for place, row in enumerate(order):
        mask[row] = taken < (allowed[place] if logs[count - 1 - place] > median else normal)
        taken += mask[row]
    return mask
