"""Has what is normal moved since the bank was trained? Scattered anomalies are not drift, whole kinds of images are.

A batch is compared with normal images of the bank that are drawn like it, by four tests. Three look at the images
inside, where p > 5 %, and so see no anomalies:

* scores: the distance of Kolmogorov and Smirnov to the calibration's;
* kinds: how many images lie nearest to each of a few centres, Pearson's test on both counts, and the population
  stability index;
* the mean: how far it lies along the main axes of the normal images, compared with the means of batches that are drawn
  from all images at random (a permutation test, its tail modelled by a gamma distribution).

The fourth looks at all images for a kind of which there is more than in the bank. Among batch and normal images
together, each has its nearest ones; of a dense kind these are of the batch, of all others as many as chance would have
(Schilling 1986, "Multivariate two-sample tests based on nearest neighbors", who counts them for all images together).
Anomalies that are scattered, fewer than the nearest ones counted, do not fill each other's neighbourhoods. If most
images of the kind are outside, it is new to the bank; otherwise the bank knows it, and there is more of it now.

A test counts if it is significant and the difference is large enough to matter: large batches do not alarm for trifles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, chi2_contingency, gamma, kstwobign

from dn2.neighbors.kmeans import assign
from dn2.records.drift import Drift, Verdict
from dn2.reports.history import LEVELS, levels_of
from dn2.scoring.calibration import Calibration
from dn2.scoring.drawn import Sample
from dn2.scoring.reference import Reference

FEWEST = 20  # of a batch and of a calibration: with fewer there is nothing to tell
_SIGNIFICANCE = 1e-3  # of each test: a steady batch in some hundreds is called moved, if the difference matters
_KS, _PSI, _SHIFT, _KIND = 0.1, 0.1, 0.4, 0.08  # smaller differences do not matter
_NEAREST, _FEWEST_NEAREST = 0.15, 5  # of an image: share of the batch, and at least
_RIDGE = 0.3  # of the mean variance of all axes
_DRAWS, _SIGMAS = 400, 4.0  # of labels, and by how many deviations of theirs the fourth test must stand out


def drift_of(sample: Sample, calibration: Calibration, reference: Reference) -> Drift | None:
    """Return how a batch differs from the images that calibrate its bank; None where there are too few of either.

    Args:
        sample: the batch.
        calibration: of the bank.
        reference: normal images of the bank.
    """
    count = len(sample.scores)
    if min(count, calibration.units) < FEWEST:
        return None
    inside = sample.p_values > Drift.level
    outside, (kind, among) = 1 - float(inside.mean()), among_themselves(sample.vectors, reference.images)
    ks, shift, psi, moved = 0.0, None, None, outside >= 0.5 or kind >= _KIND
    if inside.sum() >= FEWEST:
        ks, rare = scores_distance(sample.scores[inside], calibration)
        moved |= rare <= _SIGNIFICANCE and ks >= _KS
        mine, usual = sample.vectors[inside], reference.images[reference.inside]
        if len(reference.centres):
            psi, rare = kinds(mine, usual, reference.centres)
            moved |= rare <= _SIGNIFICANCE and psi >= _PSI
            shift, rare = mean_shift(mine, usual, reference.axes)
            moved |= rare <= _SIGNIFICANCE and shift >= _SHIFT
    verdict: Verdict = "steady"
    if _KIND <= kind < 0.5 and inside[among].mean() < 0.5:
        verdict = "kind"
    elif moved:
        verdict = "moved"
    elif binom.sf((~inside).sum() - 1, count, Drift.level + 2 / calibration.units) <= _SIGNIFICANCE:
        verdict = "anomalies"
    levels = np.bincount(levels_of(sample.p_values), minlength=LEVELS)
    return Drift(verdict, count, outside, kind, ks, shift, psi, tuple(levels.tolist()), sample.images)


def scores_distance(scores: npt.NDArray[np.float32], calibration: Calibration) -> tuple[float, float]:
    """Return the distance of scores inside to the calibration's, between 0 and 1, and a p-value; units count once.

    Args:
        scores: (N,) float32.
        calibration: of the bank.
    """
    inside = calibration.p_values(calibration.scores) > Drift.level
    usual = calibration.scores[inside]
    weights = 1 / np.bincount(calibration.unit_of)[calibration.unit_of][inside]
    everywhere = np.concatenate([scores, usual])
    mine = np.searchsorted(np.sort(scores), everywhere, side="right") / len(scores)
    sums = np.concatenate([[0.0], np.cumsum(weights)])
    theirs = sums[np.searchsorted(usual, everywhere, side="right")] / sums[-1]
    distance = float(abs(mine - theirs).max())
    return distance, float(kstwobign.sf(distance * np.sqrt(len(scores) * sums[-1] / (len(scores) + sums[-1]))))


def kinds(
    mine: npt.NDArray[np.float16], usual: npt.NDArray[np.float16], centres: npt.NDArray[np.float16]
) -> tuple[float, float]:
    """Return the population stability index of the nearest centres, less what chance makes of it, and a p-value.

    Args:
        mine: (N, D) float16.
        usual: (M, D) float16.
        centres: (C, D) float16.
    """
    wide = centres.astype(np.float32)
    table = np.stack([np.bincount(assign(one, wide)[0], minlength=len(wide)) for one in (mine, usual)])
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2 or not table.sum(1).all():
        return 0.0, 1.0
    shares = (table + 0.5) / (table + 0.5).sum(1, keepdims=True)
    psi = float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())
    chance = (table.shape[1] - 1) * float((1 / table.sum(1)).sum())
    return max(psi - chance, 0.0), float(chi2_contingency(table, correction=False).pvalue)


def mean_shift(
    mine: npt.NDArray[np.float16], usual: npt.NDArray[np.float16], axes: npt.NDArray[np.float16]
) -> tuple[float, float]:
    """Return how far the mean has moved, in standard deviations, less what chance makes of it, and a p-value.

    Along axes of little variance the deviation is taken larger than it is (a ridge): there noise would drown the rest.

    Args:
        mine: (N, D) float16.
        usual: (M, D) float16.
        axes: (A, D) float16.
    """
    count, total = len(mine), len(mine) + len(usual)
    together = np.concatenate([mine, usual]).astype(np.float32) @ axes.T.astype(np.float32)
    together -= together.mean(0)
    variance = together.var(0)
    if not variance.any():
        return 0.0, 1.0
    together /= np.sqrt(variance + _RIDGE * variance.mean())
    means = together.T @ _labels(count, total) / count  # the mean of all is 0: the other one's lies opposite
    squared = (means**2).sum(0) * (total / (total - count)) ** 2
    chance, spread = float(squared[1:].mean()), float(squared[1:].var())
    rare = float(gamma.sf(squared[0], chance**2 / spread, scale=spread / chance)) if spread else 1.0
    return float(np.sqrt(max(float(squared[0]) - chance, 0))), rare


def _labels(count: int, total: int) -> npt.NDArray[np.float32]:
    """Return (total, 1 + draws) float32: 1 for the images of the batch, the first ones, and for as many drawn ones."""
    random = np.random.default_rng(0)
    labels = np.zeros((total, _DRAWS + 1), np.float32)
    labels[:count, 0] = 1
    for draw in range(1, _DRAWS + 1):
        labels[random.permutation(total)[:count], draw] = 1
    return labels


def among_themselves(
    mine: npt.NDArray[np.float16], usual: npt.NDArray[np.float16]
) -> tuple[float, npt.NDArray[np.bool_]]:
    """Return the share of a batch that lies among itself, less what chance makes of it or 0 if that is all, and which.

    An image does so if of its nearest ones those of the batch are more than half of what they could be beyond the
    batch's share.

    Args:
        mine: (N, D) float16.
        usual: (M, D) float16.
    """
    count = len(mine)
    usual = usual[:: max(1, len(usual) // count)][:count]
    together = np.concatenate([mine, usual]).astype(np.float32)
    nearest = min(max(_FEWEST_NEAREST, round(_NEAREST * count)), len(usual))
    together -= together.mean(0)  # float32 cancels less
    norms = (together**2).sum(1)
    distances = norms[:, None] + norms - 2 * (together @ together.T)
    np.fill_diagonal(distances, np.inf)
    linked = np.zeros(distances.shape, np.float32)
    np.put_along_axis(linked, np.argpartition(distances, nearest - 1, axis=1)[:, :nearest], 1.0, axis=1)
    labels = _labels(count, len(together))
    found, expected = linked @ labels, nearest * count / len(together)
    strength = (labels * np.maximum(found - expected, 0) ** 2).sum(0)
    among = found >= (nearest + expected) / 2
    share = (labels * among).sum(0) / count
    chance, spread = strength[1:].mean(), strength[1:].std()
    if strength[0] < chance + _SIGMAS * spread:
        return 0.0, np.zeros(count, bool)
    return max(float(share[0] - share[1:].mean()), 0.0), among[:count, 0]
