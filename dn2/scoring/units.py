"""Which images are not independent of each other: they are one unit, and count once.

Images of one group, images with the same bytes, and near copies: bursts of one part, exposures of one scene, the same
picture stored twice. Near copies are found by a gap: the g nearest others of an image are near, the next one is far.

Among independent images the volumes of the balls that reach an image's g-th nearest other follow each other like the
arrivals of a Poisson process. So g * log(d[g+1] / d[g]), d squared distances, is exponentially distributed with the same
mean for all g (Renyi 1953), and what the 30 gaps behind it come to says how large a gap may be: their ratio follows an
F distribution. For each g up to 9, gaps are called by the rule of Benjamini and Hochberg with Storey's (2002) estimate
of how many images have none, at a false-discovery rate of a half: two independent images that are taken for one unit
cost little, a burst that is missed costs the promise. A larger set must lie 30 times nearer together than to the next,
and where such sets hold most of the images they are kinds of images, or patients: nobody can tell from pictures alone.

Two images are linked if each is among the near others of the other one. Linked images are joined in the order of
their distances, if at least half of all pairs of the two sides are linked: a chain, like the frames of a video, does
not become one unit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dn2.neighbors.exact import at_most
from dn2.neighbors.products import Rows

_SMALL = 9  # near others that a gap alone tells
_TIGHT = 30.0  # of more, how many times further the next one is (squared distances)
_WINDOW = 30  # gaps that say what is usual
_FEWEST = 5  # of them
_RATE = 0.5  # see above
_STRATA, _OF_STRATUM = 2, 40  # images are judged among those around which it is as dense
_FLAT = 1e-6  # of the usual distance: below, no two embeddings are told apart
_AT_ONCE = 256  # images compared with all others at a time


def units_of(
    vectors: npt.NDArray[np.float16],
    content_keys: npt.NDArray[np.int64],
    group_keys: npt.NDArray[np.int64],
    *,
    memory_mb: int = 512,
) -> npt.NDArray[np.int64]:
    """Return (N,) int64: the number of each image's unit, from 0 on.

    Which images are together does not depend on the order of the images, on shards or on threads.

    Args:
        vectors: (N, D) float16 embeddings, one for each image.
        content_keys: (N,) int64, equal for equal bytes.
        group_keys: (N,) int64, -1 where an image has no group.
        memory_mb: working memory of the neighbour search, in MiB.
    """
    _, first, content_of = np.unique(content_keys, return_index=True, return_inverse=True)
    near = near_copies(vectors[first], memory_mb=memory_mb)
    grouped = np.flatnonzero(group_keys != -1)
    group_of = np.unique(group_keys[grouped], return_inverse=True)[1]
    # units are the connected parts of images, near copies and groups
    count, groups = len(first), int(group_of.max(initial=-1)) + 1
    ends = np.concatenate([count + near, 2 * count + group_of])
    starts = np.concatenate([np.arange(count), content_of[grouped]])
    size = 2 * count + groups
    graph = coo_array((np.ones(len(starts), bool), (starts, ends)), shape=(size, size))
    part_of = connected_components(graph, directed=False)[1][:count]
    return np.unique(part_of, return_inverse=True)[1].astype(np.int64)[content_of]


def near_copies(vectors: npt.NDArray[np.float16], *, memory_mb: int = 512) -> npt.NDArray[np.int64]:
    """Return (N,) int64: the number of the set of near copies in which each image lies, alone or with others.

    Args:
        vectors: (N, D) float16 embeddings of images with different bytes.
        memory_mb: working memory of the neighbour search, in MiB.
    """
    count, near = len(vectors), min(len(vectors) - 1, _SMALL + _WINDOW + 1)
    set_of = np.arange(count)
    if near < 1 + _FEWEST:
        return set_of
    own = np.arange(count, dtype=np.int64)[None]
    found = at_most(vectors, Rows(vectors, own), near, query_keys=own, memory_mb=memory_mb)
    distances = np.maximum(found.distances.astype(np.float64), _FLAT * float(np.median(found.distances)) + 1e-30)
    small = _joined(found.rows, distances, _sizes(distances))
    large = _clumps(vectors, small, distances[:, min(_SMALL, near - 1)])
    in_large = np.bincount(large, minlength=count)[large] > _SMALL + 1
    return small if in_large.mean() > 0.5 else large


def _sizes(distances: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return (N,) int64: how many of its nearest others are near copies of each image.

    Args:
        distances: (N, M) float64, ascending, above 0.
    """
    count, near = distances.shape
    steps = np.arange(1, near)
    spacings = steps * np.diff(np.log(distances), axis=1)
    before = np.concatenate([np.zeros((count, 1)), np.cumsum(spacings, axis=1)], axis=1)
    stop = np.minimum(steps + _WINDOW, near - 1)
    width = stop - steps
    usual = (before[:, stop] - before[:, steps]) / np.maximum(width, 1)
    # P(F > x) of an exponential over the mean of `width` others
    chance = np.exp(-width * np.log1p(spacings / np.maximum(usual * width, 1e-12)))
    chance[:, width < _FEWEST] = 1
    called = np.zeros_like(chance, bool)
    strata = np.array_split(np.argsort(distances[:, -1], kind="stable"), max(1, min(_STRATA, count // _OF_STRATUM)))
    for stratum in strata:
        for gap in range(min(_SMALL, near - 1)):
            called[stratum, gap] = chance[stratum, gap] <= _largest_called(chance[stratum, gap])
    best = np.where(called, chance, 2).argmin(axis=1)
    return np.where(called.any(axis=1), best + 1, 0)


def _largest_called(chances: npt.NDArray[np.float64]) -> float:
    """Return the largest p-value that is called at the rate, after Benjamini and Hochberg; -1 where none is."""
    count = len(chances)
    none = np.clip(2 * (chances > 0.5).sum() / count, 0.05, 1)  # Storey's estimate of the share without a gap
    ascending = np.sort(chances)
    called = ascending <= _RATE / none * np.arange(1, count + 1) / count
    return float(ascending[called.nonzero()[0][-1]]) if called.any() else -1.0


def _joined(
    rows: npt.NDArray[np.int64], distances: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return (N,) int64 sets of images that are linked.

    Args:
        rows: (N, M) int64 nearest others of each image.
        distances: (N, M) float64, squared.
        sizes: (N,) int64, how many of them are near.
    """
    count = len(rows)
    image, place = np.nonzero(np.arange(rows.shape[1])[None] < sizes[:, None])
    other = rows[image, place]
    both = np.intersect1d(image * count + other, other * count + image)
    mutual = np.isin(image * count + other, both) & (image < other)
    image, other, far = image[mutual], other[mutual], distances[image, place][mutual]
    order = np.lexsort((other, image, far))
    linked = set(zip(image.tolist(), other.tolist(), strict=True))
    set_of = np.arange(count)
    members = {}
    for one, two in zip(image[order].tolist(), other[order].tolist(), strict=True):
        low, high = sorted((int(set_of[one]), int(set_of[two])))
        if low == high:
            continue
        left, right = members.get(low, [low]), members.get(high, [high])
        links = sum((min(a, b), max(a, b)) in linked for a in left for b in right)
        if 2 * links >= len(left) * len(right):
            set_of[right] = low
            members[low] = left + right
    return set_of


def _clumps(
    vectors: npt.NDArray[np.float16], set_of: npt.NDArray[np.int64], reach: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return the sets with larger ones: of more near others than nine, and at most half of all images.

    Args:
        vectors: (N, D) float16.
        set_of: (N,) int64 sets that are known.
        reach: (N,) float64, squared distance to the tenth nearest other.
    """
    wide = vectors.astype(np.float32)
    usual = 2 * float(wide.var(axis=0, dtype=np.float64).sum())  # mean squared distance of two images
    dense = np.flatnonzero(reach * _TIGHT <= usual)
    norms = np.einsum("nd,nd->n", wide, wide)
    found, least, most = set_of.copy(), _SMALL + 1, len(vectors) // 2
    while len(dense):
        block, dense = dense[:_AT_ONCE], dense[_AT_ONCE:]
        far = np.maximum(norms[block, None] + norms - 2 * wide[block] @ wide.T, _FLAT * usual + 1e-30)
        order = np.argsort(far, axis=1, kind="stable")
        ascending = np.take_along_axis(far, order, axis=1)
        ratios = ascending[:, least + 1 : most + 1] / ascending[:, least:most]
        for row, ratio in enumerate(ratios):
            if len(ratio) and ratio.max() >= _TIGHT:
                found[order[row, : least + 1 + ratio.argmax()]] = set_of[block[row]]
        dense = dense[found[dense] == set_of[dense]]
    return found
