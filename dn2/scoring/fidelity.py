"""How much an index differs from exact search, on images that calibrate the bank."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from dn2.neighbors.products import Neighbors
from dn2.records import Fidelity
from dn2.scoring.calibration import Calibration
from dn2.scoring.scale import relative
from dn2.scoring.scores import image_scores


def fidelity(
    found: Neighbors,
    true: Neighbors,
    false_alarm_rate: float,
    *,
    tiles: int = 1,
    centres: bool = False,
    scales: npt.NDArray[np.float32] | None = None,
) -> Fidelity:
    """Return how what an index found for images differs from what there is.

    Args:
        found: (Q * T, k), by the index, for the T tiles of Q images.
        true: (Q * T, K), by exact search among the same images.
        false_alarm_rate: share of the images that lies above either's threshold.
        tiles: T, of an image.
        centres: the index holds centres instead of images.
        scales: (N,) float32 of the rows that both name; None where scores are distances.
    """
    scores, exact = (image_scores(relative(side, scales), tiles)[0] for side in (found, true))
    flags = [of > np.float32(Calibration.of(of).threshold(false_alarm_rate)[0]) for of in (scores, exact)]
    # a row at the same distance as the k-th is as good as the k-th: copies must not count as misses
    hits = (found.distances <= true.distances[:, -1:]).sum(1)
    constant = np.ptp(scores) == 0 or np.ptp(exact) == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(scores == exact, 0, np.abs(scores.astype(np.float64) - exact) / exact)
    return Fidelity(
        images=len(scores),
        recall=None if centres else float(hits.mean() / found.distances.shape[1]),
        rank_correlation=float(np.array_equal(scores, exact)) if constant else float(spearmanr(scores, exact)[0]),
        score_error=float(errors[np.isfinite(errors)].mean()) if np.isfinite(errors).any() else 0.0,
        flipped=int((flags[0] != flags[1]).sum()),
    )
