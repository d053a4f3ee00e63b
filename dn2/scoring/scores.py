"""From distances to scores, from scores to thresholds and p-values."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def mean_distance(distances: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (Q,) float32 anomaly scores: the mean of (Q, k) squared L2 distances (DN2, section 3)."""
    scores: npt.NDArray[np.float32] = distances.mean(axis=1, dtype=np.float64).astype(np.float32)
    return scores


def image_scores(
    distances: npt.NDArray[np.float32], tiles: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return (Q,) float32 scores of images, each the largest of its tiles, and (Q,) int64 which tile has it.

    Args:
        distances: (Q * T, k) float32 squared L2, of the T tiles of each image one after the other.
        tiles: T.
    """
    scores = mean_distance(distances).reshape(-1, tiles)
    worst: npt.NDArray[np.int64] = scores.argmax(axis=1)
    return scores[np.arange(len(scores)), worst], worst


def threshold_at(calibration: npt.NDArray[np.float32], false_alarm_rate: float) -> tuple[float, float]:
    """Return the threshold for a false-alarm rate, and the rate that the calibration can promise.

    An image is anomalous if its score is *above* the threshold. With n calibration scores of normal images, a new
    normal image is above the r-th largest with probability at most r / (n + 1) (split conformal prediction), so r is
    the largest number with r / (n + 1) <= rate. Where (n + 1) * rate < 1 there is none: the threshold is then the
    largest score, and the rate that can be promised is 1 / (n + 1).

    Args:
        calibration: (n,) float32, in any order.
        false_alarm_rate: between 0 and 1.
    """
    count = len(calibration)
    allowed = math.floor((count + 1) * false_alarm_rate + 1e-9)  # 100 * 0.01 must be 1 in floating point too
    if allowed < 1:
        return float(calibration.max()), 1 / (count + 1)
    return float(np.sort(calibration)[max(count - allowed, 0)]), false_alarm_rate


def p_values(calibration: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return (Q,) conformal p-values: (1 + number of calibration scores >= score) / (n + 1).

    Args:
        calibration: (n,) float32, ascending; of normal images that were not in the bank they were compared with.
        scores: (Q,) float32.
    """
    at_least = len(calibration) - np.searchsorted(calibration, scores, side="left")
    return (1 + at_least) / (len(calibration) + 1)
