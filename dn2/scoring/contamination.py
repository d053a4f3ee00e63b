"""Between which shares the anomalies of a training set lie, as far as its images and what was said of them can tell."""

from __future__ import annotations

import math

from scipy.special import betaincinv

MOST = 0.4  # above, anomalies cannot be told from normal images
_HALF = 0.5  # what most images are is normal
_TAIL = 0.05
_WRONG, _OF_FOUND, _HIDDEN, _OF_FEW = 0.15, 0.3, 0.015, 0.7  # see `interval`


def interval(found: int, undecided: int, total: int) -> tuple[float, float]:
    """Return the least and the largest share of anomalies, which are at most half of the images.

    Each end is widened for sampling, by Jeffreys' interval (Brown, Cai, DasGupta 2001). Besides, of what is taken for
    anomalies up to 15 % is normal; and some anomalies lie among the normal images and are never found: up to 1.5 % of
    all, 0.3 times as many as were found, and 0.7 / sqrt(units), as they form no groups where there are few. These
    numbers were chosen on classes 0 to 4 of Fashion-MNIST: with them nearly nine in ten intervals hold the true share.

    Args:
        found: units that are taken for anomalies.
        undecided: units of clusters that are normal or not.
        total: units.
    """
    most = min(total, found + undecided)
    low = float(betaincinv(found + 0.5, total - found + 0.5, _TAIL)) if found else 0.0
    high = float(betaincinv(most + 0.5, total - most + 0.5, 1 - _TAIL)) if most < total else 1.0
    hidden = _HIDDEN + _OF_FOUND * found / total + _OF_FEW / math.sqrt(total)
    return min((1 - _WRONG) * low, _HALF), min(_HALF, high + hidden)
