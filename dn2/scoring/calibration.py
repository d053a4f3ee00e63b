"""Scores of normal images that did not help to make them: what thresholds and p-values rest on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dn2.neighbors.exact import search
from dn2.scoring.scores import mean_distance

LEAVE_ONE_OUT_ROWS = 10_000  # up to here every image is scored against all others: nothing is wasted
_HELD_OUT_SHARE, _HELD_OUT_ROWS = 0.2, 5_000


def usable_groups(
    group_keys: npt.NDArray[np.int64], content_keys: npt.NDArray[np.int64], k: int
) -> npt.NDArray[np.int64]:
    """Return the group keys, or none (-1) where some image would have fewer than k others outside its group.

    Args:
        group_keys: (N,) int64, -1 where an image has no group.
        content_keys: (N,) int64, equal for equal bytes: copies of an image do not count as others.
        k: neighbours of a score.
    """
    group, content, both = (
        _sizes(keys) for keys in (group_keys, content_keys, np.stack([group_keys, content_keys], axis=1))
    )
    others = len(group_keys) - group - content + both
    return group_keys if (others >= k)[group_keys != -1].all() else np.full_like(group_keys, -1)


def _sizes(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (N,) how many rows of keys, (N,) or (N, M), are equal to each row."""
    _, unit_of, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    return counts[unit_of.reshape(-1)]


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


def leave_one_out(
    vectors: npt.NDArray[np.float16],
    k: int,
    row_keys: npt.NDArray[np.int64],
    *,
    memory_mb: int,
) -> npt.NDArray[np.float32]:
    """Return (N,) float32: each row's score against the rows that share none of its keys.

    Args:
        vectors: (N, D) float16, as the bank holds them.
        k: neighbours of a score.
        row_keys: (M, N) int64: image, content and group; -1 is no key.
        memory_mb: working memory, in MiB.

    Raises:
        BankError: a row has fewer than k others.
    """
    found = search(vectors, vectors, k, query_keys=row_keys, bank_keys=row_keys, memory_mb=memory_mb)
    return mean_distance(found.distances)
