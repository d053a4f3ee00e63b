"""Between which shares the anomalies of a training set lie, as far as its images and what was said of them can tell."""

from __future__ import annotations

from scipy.special import betaincinv

MOST = 0.4  # above, anomalies cannot be told from normal images
_HALF = 0.5  # what most images are is normal
_TAIL = 0.05
_HIDDEN, _OF_FOUND = 0.025, 0.7  # see `interval`


def interval(found: int, undecided: int, total: int) -> tuple[float, float]:
    """Return the least and the largest share of anomalies, which are at most half of the images.

    Each end is widened for sampling, by Jeffreys' interval (Brown, Cai, DasGupta 2001). Some anomalies lie among the
    normal images and are never found: on classes 0 to 4 of Fashion-MNIST, mostly no more than 2.5 % of all
    images and 0.7 times as many as were found.

    Args:
        found: units that are taken for anomalies.
        undecided: units of clusters that are normal or not.
        total: units.
    """
    most = min(total, found + undecided)
    low = float(betaincinv(found + 0.5, total - found + 0.5, _TAIL)) if found else 0.0
    high = float(betaincinv(most + 0.5, total - most + 0.5, 1 - _TAIL)) if most < total else 1.0
    return min(low, _HALF), min(_HALF, high + _HIDDEN + _OF_FOUND * found / total)
