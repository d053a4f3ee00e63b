"""Scores of normal images that did not help to make them: what thresholds and p-values rest on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEAVE_ONE_OUT_ROWS = 10_000  # up to here every image is scored against all others: nothing is wasted
_HELD_OUT_SHARE, _HELD_OUT_ROWS = 0.2, 5_000
_STRETCH = 1.2  # see `trusted`


def usable_groups(
    group_keys: npt.NDArray[np.int64],
    content_keys: npt.NDArray[np.int64],
    k: int,
    in_bank: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int64]:
    """Return the group keys, or none (-1) where some image would have fewer than k others outside its group.

    Args:
        group_keys: (N,) int64, -1 where an image has no group.
        content_keys: (N,) int64, equal for equal bytes: copies of an image do not count as others.
        k: neighbours of a score.
        in_bank: (N,) which of the images can be neighbours; by default all.
    """
    if in_bank is None:
        in_bank = np.ones(len(group_keys), bool)
    group, content, both = (
        _sizes(keys, in_bank) for keys in (group_keys, content_keys, np.stack([group_keys, content_keys], axis=1))
    )
    others = int(in_bank.sum()) - group - content + both
    return group_keys if (others >= k)[group_keys != -1].all() else np.full_like(group_keys, -1)


def _sizes(keys: npt.NDArray[np.int64], in_bank: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return (N,) how many rows of the bank have the same keys, (N,) or (N, M), as each row."""
    unit_of = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    return np.bincount(unit_of, weights=in_bank)[unit_of].astype(np.int64)


def held_out_rows(content_keys: npt.NDArray[np.int64], group_keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which of N images to keep out of the bank for calibration: a fifth, at most 5,000 or so.

    Images of one group stay together, and so do copies of one image unless they are in different groups. The choice
    depends on nothing but the keys, which are hashes: it is random to the pictures, and the same in every run.

    Args:
        content_keys: (N,) int64, equal for equal bytes.
        group_keys: (N,) int64, -1 where an image has no group.
    """
    units = np.where(group_keys != -1, group_keys, content_keys)
    names, unit_of, sizes = np.unique(units, return_inverse=True, return_counts=True)
    target = min(_HELD_OUT_ROWS, int(_HELD_OUT_SHARE * len(units)))
    shuffled = np.random.default_rng(0).permutation(len(names))
    taken = np.zeros(len(names), bool)
    total = 0
    for unit in shuffled:
        if total >= target:
            break
        if sizes[unit] <= max(1, target - total):  # a group that is too large stays in the bank
            taken[unit] = True
            total += sizes[unit]
    return taken[unit_of]


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
