"""Which images of a batch to believe: q-values after Benjamini and Hochberg (1995), and what they need.

A conformal p-value depends on how many of n calibration scores reach the image's. So a batch of any size is known to
this procedure by n + 1 counts, and nothing else of it has to be in memory.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dn2.scoring.calibration import Calibration


def q_values_by_rank(counts: npt.NDArray[np.int64], calibration: Calibration) -> npt.NDArray[np.float64]:
    """Return (n + 1,) float64: the q-value of an image of each rank, whose score r calibration scores reach.

    An image's q-value is the smallest false-discovery rate at which Benjamini-Hochberg selects it: with m images, C of
    them with at most its p-value, the smallest m * p / C over its own and all larger p-values. Where each image is a
    unit, numerator and denominator are whole numbers: a q-value that equals a rate such as 0.1 is that float exactly.

    Args:
        counts: (n + 1,) int64, how many images of the batch are of each rank.
        calibration: of n scores.
    """
    within = np.cumsum(counts)
    raw = np.full(len(counts), np.inf)
    scaled = within[-1] * (1 + calibration.above)
    np.divide(scaled, (calibration.units + 1) * within, out=raw, where=within > 0)
    ascending: npt.NDArray[np.float64] = np.minimum.accumulate(raw[::-1])[::-1]
    return ascending


def images_needed(images: int, units: int, rate: float) -> int:
    """Return how many images of a batch must score above all calibration scores before one of them is selected.

    That is the smallest r with units + 1 >= m / (q r); it may be more than m.
    """
    return math.ceil(images / (_exact(rate) * (units + 1)))


def calibration_needed(images: int, highest: int, rate: float) -> int:
    """Return how many calibration units select `highest` images that score above all of them.

    That is the smallest n with n + 1 >= m / (q r).
    """
    return math.ceil(images / (_exact(rate) * highest)) - 1


def shortage(counts: npt.NDArray[np.int64], units: int, selected: int, rate: float) -> str | None:
    """Return why nothing is selected, if the calibration units are too few, and how many would do.

    Args:
        counts: (n + 1,) int64, as in `q_values_by_rank`.
        units: of the calibration.
        selected: images that are selected.
        rate: the false-discovery rate.
    """
    images, highest = int(counts.sum()), int(counts[0])
    what = "scores" if units == len(counts) - 1 else "units"
    if not images or selected:
        return None
    needed = images_needed(images, units, rate)
    if needed > images:
        return (
            f"{units} calibration {what} are too few to select any image at a false-discovery rate of "
            f"{100 * rate:.4g}%: {calibration_needed(images, images, rate)} would do if all {images} images scored "
            f"above them, {calibration_needed(images, 1, rate)} if one did"
        )
    if highest:
        return (
            f"no image is selected at a false-discovery rate of {100 * rate:.4g}%: {highest} of {images} images score "
            f"above all {units} calibration {what}, {needed} would have to; or calibrate with "
            f"{calibration_needed(images, highest, rate)} {what}"
        )
    return None


def _exact(rate: float) -> Fraction:
    """Return the number that was written: 0.1 is a tenth."""
    return Fraction(repr(rate))
