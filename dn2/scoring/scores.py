"""From distances to scores."""

from __future__ import annotations

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
