"""Between which shares the anomalies of a training set lie, as far as its images and what was said of them can tell."""

from __future__ import annotations

from scipy.special import betaincinv

MOST = 0.4  # above, anomalies cannot be told from normal images
_HALF = 0.5  # what most images are is normal
_TAIL = 0.05
_ODD, _PER_FOUND, _MOST_HIDDEN = 0.02, 1.5, 0.07  # see `interval`


def interval(found: int, undecided: int, total: int) -> tuple[float, float]:
    """Return the least and the largest share of anomalies, which are at most half of the images.

    Each end is widened for sampling, by Jeffreys' interval (Brown, Cai, DasGupta 2001). Besides, up to 2 % of all
    images may be odd and normal; and some anomalies lie among the normal images and are never found: up to 1.5 times as
    many as were found, but 7 % of all at most. These numbers were chosen on classes 0 to 4 of Fashion-MNIST: with them
    nearly nine in ten intervals hold the true share.

    Args:
        found: units that are taken for anomalies.
        undecided: units of clusters that are normal or not.
        total: units.
    """
    most = min(total, found + undecided)
    low = float(betaincinv(found + 0.5, total - found + 0.5, _TAIL)) if found else 0.0
    high = float(betaincinv(most + 0.5, total - most + 0.5, 1 - _TAIL)) if most < total else 1.0
    hidden = min(_PER_FOUND * found / total, _MOST_HIDDEN)
    return min(max(0.0, low - _ODD), _HALF), min(_HALF, high + hidden)
