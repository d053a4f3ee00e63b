"""Which images of a batch to believe: q-values after Benjamini and Hochberg (1995), and what they need.

A conformal p-value is j / (n + 1) with n calibration scores and j from 1 to n + 1. So a batch of any size is known to
this procedure by n + 1 counts, and nothing else of it has to be in memory.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt


def levels(p_values: npt.NDArray[np.float64], calibration_rows: int) -> npt.NDArray[np.int64]:
    """Return (Q,) int64: j of each p-value j / (n + 1).

    Args:
        p_values: (Q,) float64, conformal.
        calibration_rows: n.
    """
    return np.rint(p_values * (calibration_rows + 1)).astype(np.int64)


def q_values_of_levels(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return (n + 2,) float64: the q-value of an image at each level, that is with p = level / (n + 1).

    An image's q-value is the smallest false-discovery rate at which Benjamini-Hochberg selects it: with m images, C of
    them at or below level j, the smallest m * j / ((n + 1) * C) over its own and all higher levels. Numerator and
    denominator are whole numbers, so a q-value that equals a rate such as 0.1 is that float exactly.

    Args:
        counts: (n + 2,) int64, how many images of the batch are at each level; none is at level 0.
    """
    within = np.cumsum(counts)
    scaled = within[-1] * np.arange(len(counts))
    raw = np.full(len(counts), np.inf)
    np.divide(scaled, (len(counts) - 1) * within, out=raw, where=within > 0)
    ascending: npt.NDArray[np.float64] = np.minimum.accumulate(raw[::-1])[::-1]
    return ascending


def images_needed(images: int, calibration_rows: int, rate: float) -> int:
    """Return how many images of a batch must score above all calibration scores before one of them is selected.

    That is the smallest r with n + 1 >= m / (q r); it may be more than m.
    """
    return math.ceil(images / (_exact(rate) * (calibration_rows + 1)))


def calibration_needed(images: int, highest: int, rate: float) -> int:
    """Return how many calibration scores select `highest` images that score above all of them.

    That is the smallest n with n + 1 >= m / (q r).
    """
    return math.ceil(images / (_exact(rate) * highest)) - 1


def shortage(counts: npt.NDArray[np.int64], selected: int, rate: float) -> str | None:
    """Return why nothing is selected, if the calibration scores are too few, and how many would do.

    Args:
        counts: (n + 2,) int64, as in `q_values_of_levels`.
        selected: images that are selected.
        rate: the false-discovery rate.
    """
    images, calibration_rows, highest = int(counts.sum()), len(counts) - 2, int(counts[1])
    if not images or selected:
        return None
    needed = images_needed(images, calibration_rows, rate)
    if needed > images:
        return (
            f"{calibration_rows} calibration scores are too few to select any image at a false-discovery rate of "
            f"{100 * rate:.4g}%: {calibration_needed(images, images, rate)} would do if all {images} images scored "
            f"above them, {calibration_needed(images, 1, rate)} if one did"
        )
    if highest:
        return (
            f"no image is selected at a false-discovery rate of {100 * rate:.4g}%: {highest} of {images} images score "
            f"above all {calibration_rows} calibration scores, {needed} would have to; or calibrate with "
            f"{calibration_needed(images, highest, rate)} scores"
        )
    return None


def _exact(rate: float) -> Fraction:
    """Return the number that was written: 0.1 is a tenth."""
    return Fraction(repr(rate))
