"""Which images are not independent of each other: they are one unit, and count once.

Images of one group, images with the same bytes, and near copies: bursts of one part, exposures of one scene, the same
picture stored twice. Near copies are found by a gap: the g nearest others of an image are near, the next one is far.

Among independent images the volumes of the balls that reach an image's g-th nearest other follow each other like the
arrivals of a Poisson process. So g * log(d[g+1] / d[g]), d squared distances, is exponentially distributed with one
mean for all g (Renyi 1953), and what the 30 gaps behind it come to says how large a gap may be: their ratio follows an
F distribution. For each g up to 9, gaps are called by the rule of Benjamini and Hochberg, with Storey's (2002) estimate
of how many images have none, at a false-discovery rate of a half: two independent images that are taken for one unit
cost little, a burst that is missed costs the promise. More than four images must lie twice as near (squared) as the
next one, and more than ten 30 times as near; where such sets hold a fifth of all images they are kinds of images, or
patients, unless they lie 1,000 times nearer. Where the files of up to 25 images follow each other, 1.3 times as near is
enough: where names say nothing, the nearest images of an image do not lie beside it.

Two images are linked if each is among the near others of the other one. Linked images are joined in the order of
their distances, if at least a third of all pairs of the two sides are linked: a chain, like the frames of a video, does
not become one unit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dn2.neighbors.exact import at_most
from dn2.neighbors.products import Neighbors, Rows
from dn2.neighbors.segments import merged

_SMALL, _IN_ORDER = 9, 24  # near others that a gap alone tells; that it tells where their files follow each other
_TIGHT, _SAME = 30.0, 1_000.0  # of more: how many times further the next one is; so near is the same picture only
_WINDOW = 30  # gaps that say what is usual
_FEWEST, _PARTS = 8, 4  # of them; near others are less than a quarter of all images
_LEAST = 20  # images: among fewer a gap says nothing
_FEW, _FAR = 3, 2.0  # of more near others than 3, the next one is twice as far: a few images of one kind are no burst
_FAR_IN_ORDER = 1.3  # the same where their files follow each other
_RATE = 0.5  # see above
_SURE, _ALIKE = 0.001, 100  # of several gaps the last one counts whose chance is small, or not much larger
_STRATA, _OF_STRATUM = 2, 40  # images are judged among those around which it is as dense
_FLAT = 1e-6  # of the usual distance: below, no two embeddings are told apart
_SHARE = 0.2  # of all images: larger sets, or more in such sets, are kinds of images
_FULL = 20_000  # images: among more, sets of more near others than nine are not looked for
_AT_ONCE = 256  # images compared with all others at a time


def units_of(
    pool: Sequence[npt.NDArray[np.float16]],
    content_keys: npt.NDArray[np.int64],
    group_keys: npt.NDArray[np.int64],
    wanted: npt.NDArray[np.bool_] | None = None,
    *,
    places: npt.NDArray[np.int64] | None = None,
    memory_mb: int = 512,
) -> npt.NDArray[np.int64]:
    """Return (N,) int64: the number of each image's unit, from 0 on.

    Which images are together does not depend on the order in which they are given, on shards or on threads.

    Args:
        pool: (N_i, D) float16 embeddings, one for each image, in one or several blocks of N altogether.
        content_keys: (N,) int64, equal for equal bytes.
        group_keys: (N,) int64, -1 where an image has no group.
        wanted: (N,) bool, images of which near copies are looked for; by default all.
        places: (N,) int64, the place of each image's file among all, see `places_of`; by default names say nothing.
        memory_mb: working memory of the neighbour search, in MiB.
    """
    _, first, content_of = np.unique(content_keys, return_index=True, return_inverse=True)
    asked = np.ones(len(first), bool)
    if wanted is not None:
        asked = np.bincount(content_of, weights=wanted, minlength=len(first)) > 0
    told = None if places is None else places[first]
    near = near_copies(_Pool(pool, first), np.flatnonzero(asked), told, memory_mb=memory_mb)
    grouped = np.flatnonzero(group_keys != -1)
    group_of = np.unique(group_keys[grouped], return_inverse=True)[1]
    # units are the connected parts of contents, near copies and groups
    count = len(first)
    starts = np.concatenate([np.arange(count), content_of[grouped]])
    ends = np.concatenate([count + near, 2 * count + group_of])
    size = 2 * count + int(group_of.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(starts), bool), (starts, ends)), shape=(size, size))
    part_of = connected_components(graph, directed=False)[1][:count]
    return np.unique(part_of, return_inverse=True)[1].astype(np.int64)[content_of]


def places_of(uris: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return (N,) int64: the place of each image among all by its name, in which 10 comes after 9.

    Args:
        uris: N.
    """
    names = [re.sub(r"\d+", lambda digits: digits.group().zfill(12), uri) for uri in uris]
    places = np.empty(len(names), np.int64)
    places[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return places


def one_of_each(units: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the number of the first image of each unit, in order; of (N,) units of N images."""
    return np.sort(np.unique(units, return_index=True)[1])


class _Pool:
    """Embeddings of images with different bytes, in blocks that may be memory-mapped.

    Attributes:
        rows: (C,) int64, where each of them lies.
    """

    def __init__(self, blocks: Sequence[npt.NDArray[np.float16]], rows: npt.NDArray[np.int64]) -> None:
        self._blocks, self.rows = blocks, rows
        self._bounds = np.concatenate([[0], np.cumsum([len(block) for block in blocks])])
        self._number = np.full(self._bounds[-1], -1, np.int64)  # which of them a row is
        self._number[rows] = np.arange(len(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def vectors(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """Return (M, D) float16 of some of them."""
        rows, found = self.rows[numbers], np.empty((len(numbers), self._blocks[0].shape[1]), np.float16)
        owner = np.searchsorted(self._bounds, rows, side="right") - 1
        for place in np.unique(owner):
            mine = owner == place
            found[mine] = self._blocks[place][rows[mine] - self._bounds[place]]
        return found

    def nearest(self, numbers: npt.NDArray[np.int64], count: int, memory_mb: int) -> Neighbors:
        """Return the nearest others of some of them, as their numbers."""
        queries, found = self.vectors(numbers), []
        for low, block in zip(self._bounds, self._blocks, strict=False):
            mine = self._number[low : low + len(block)]
            rows = Rows(block, mine[None], mine < 0)
            part = at_most(queries, rows, count, query_keys=numbers[None], memory_mb=memory_mb)
            found.append((int(low), part))
        best = merged(found, count)
        return Neighbors(np.where(best.rows < 0, -1, self._number[best.rows]), best.distances)


def near_copies(
    pool: _Pool, asked: npt.NDArray[np.int64], places: npt.NDArray[np.int64] | None, *, memory_mb: int
) -> npt.NDArray[np.int64]:
    """Return (C,) int64: the number of the set of near copies in which each image lies, alone or with others.

    Args:
        pool: C images.
        asked: (A,) int64 ascending, of which near copies are looked for.
        places: (C,) int64, of their files; None where names say nothing.
        memory_mb: working memory of the neighbour search, in MiB.
    """
    near, sets = min(len(pool) - 1, _SMALL + _WINDOW + 1), np.arange(len(pool))
    if len(pool) < _LEAST or not len(asked):
        return sets
    found = pool.nearest(asked, near, memory_mb)
    flat = _FLAT * float(np.median(found.distances)) + 1e-30
    rows, distances = found.rows, np.maximum(found.distances.astype(np.float64), flat)
    near_to = np.arange(near)[None] < _sizes(distances, _follow(asked, rows, places))[:, None]
    others = np.setdiff1d(rows[near_to], asked)  # whether they are near from their side, too
    if len(others):
        found = pool.nearest(others, near, memory_mb)
        rows = np.concatenate([rows, found.rows])
        distances = np.concatenate([distances, np.maximum(found.distances.astype(np.float64), flat)])
        asked = np.concatenate([asked, others])
    sets = _joined(asked, rows, distances, sets, places)
    if len(pool) > _FULL:
        return sets
    everything, reach = pool.vectors(np.arange(len(pool))), distances[:, min(_SMALL, near - 1)]
    sets = _clumps(everything, sets, asked, reach, _SAME, 0.5)
    large = _clumps(everything, sets, asked, reach, _TIGHT, _SHARE)
    return sets if (large != sets).mean() > _SHARE else large


def _follow(
    images: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], places: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.bool_]:
    """Return (A, M) bool: whether the files of an image's 1, 2, ... M nearest others lie beside its own.

    Args:
        images: (A,) int64, of C.
        rows: (A, M) int64 nearest others of each.
        places: (C,) int64, or None.
    """
    if places is None:
        return np.zeros(rows.shape, bool)
    aside = np.maximum.accumulate(np.abs(places[rows] - places[images][:, None]), axis=1)
    follow: npt.NDArray[np.bool_] = aside <= np.arange(1, rows.shape[1] + 1)
    return follow


def _sizes(distances: npt.NDArray[np.float64], follow: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return (N,) int64: how many of its nearest others are near copies of each image.

    Args:
        distances: (N, M) float64, ascending, above 0.
        follow: (N, M) bool, whether the files of so many nearest others lie beside the image's.
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
    chance[:, (width < _FEWEST) | (steps >= (count + 1) // _PARTS)] = 1
    further = distances[:, 1:] / distances[:, :-1]
    in_order = follow[:, :-1]
    chance[(steps > _SMALL) & ~in_order] = 1
    chance[(steps > _FEW) & (further < np.where(in_order, _FAR_IN_ORDER, _FAR))] = 1
    called = np.zeros_like(chance, bool)
    strata = np.array_split(np.argsort(distances[:, -1], kind="stable"), max(1, min(_STRATA, count // _OF_STRATUM)))
    for stratum in strata:
        for gap in range(min(_IN_ORDER, near - 1)):
            called[stratum, gap] = chance[stratum, gap] <= _largest_called(chance[stratum, gap])
    smallest = np.where(called, chance, 2).min(axis=1, keepdims=True)
    called &= chance <= np.maximum(_SURE, _ALIKE * smallest)
    best = called.shape[1] - 1 - called[:, ::-1].argmax(axis=1)
    return np.where(called.any(axis=1), best + 1, 0)


def _largest_called(chances: npt.NDArray[np.float64]) -> float:
    """Return the largest p-value that is called at the rate, after Benjamini and Hochberg; -1 where none is."""
    count = len(chances)
    none = np.clip(2 * (chances > 0.5).sum() / count, 0.05, 1)  # Storey's estimate of the share without a gap
    ascending = np.sort(chances)
    called = ascending <= _RATE / none * np.arange(1, count + 1) / count
    return float(ascending[called.nonzero()[0][-1]]) if called.any() else -1.0


def _joined(
    images: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    distances: npt.NDArray[np.float64],
    sets: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64] | None,
) -> npt.NDArray[np.int64]:
    """Return the sets with those joined that are linked.

    Args:
        images: (A,) int64, of C.
        rows: (A, M) int64 nearest others of each.
        distances: (A, M) float64, squared.
        sets: (C,) int64 number of the set of each image.
        places: (C,) int64, of their files, or None.
    """
    count = len(sets)
    near = _sizes(distances, _follow(images, rows, places))
    row, place = np.nonzero(np.arange(rows.shape[1])[None] < near[:, None])
    image, other, far = images[row], rows[row, place], distances[row, place]
    mutual = np.isin(image * count + other, other * count + image) & (image < other)
    image, other, far = image[mutual], other[mutual], far[mutual]
    order = np.lexsort((other, image, far))
    linked = set(zip(image.tolist(), other.tolist(), strict=True))
    found, members = sets.copy(), dict[int, list[int]]()
    for one, two in zip(image[order].tolist(), other[order].tolist(), strict=True):
        low, high = sorted((int(found[one]), int(found[two])))
        if low == high:
            continue
        left, right = members.get(low, [low]), members.get(high, [high])
        links = sum((min(a, b), max(a, b)) in linked for a in left for b in right)
        both = left + right
        if 3 * links >= len(left) * len(right) and (len(both) <= _SMALL + 1 or _in_order(both, places)):
            found[right] = low
            members[low] = both
    return found


def _in_order(images: list[int], places: npt.NDArray[np.int64] | None) -> bool:
    """Return whether the files of so many images lie beside each other."""
    return places is not None and len(images) <= _IN_ORDER + 1 and bool(np.ptp(places[images]) < len(images))


def _clumps(
    vectors: npt.NDArray[np.float16],
    sets: npt.NDArray[np.int64],
    images: npt.NDArray[np.int64],
    reach: npt.NDArray[np.float64],
    tight: float,
    share: float,
) -> npt.NDArray[np.int64]:
    """Return the sets with larger ones: of more near others than nine.

    Args:
        vectors: (C, D) float16.
        sets: (C,) int64 sets that are known.
        images: (A,) int64, around which they are looked for.
        reach: (A,) float64, squared distance to the tenth nearest other.
        tight: how many times further the next image is (squared distances), at least.
        share: of all images, at most.
    """
    wide = vectors.astype(np.float32)
    usual = 2 * float(wide.var(axis=0, dtype=np.float64).sum())  # mean squared distance of two images
    dense = np.unique(images[reach * tight <= usual])
    norms = np.einsum("nd,nd->n", wide, wide)
    found, least, most = sets.copy(), _SMALL + 1, int(share * len(vectors))
    while len(dense):
        block, dense = dense[:_AT_ONCE], dense[_AT_ONCE:]
        far = np.maximum(norms[block, None] + norms - 2 * wide[block] @ wide.T, _FLAT * usual + 1e-30)
        order = np.argsort(far, axis=1, kind="stable")
        ascending = np.take_along_axis(far, order, axis=1)
        ratios = ascending[:, least + 1 : most + 1] / ascending[:, least:most]
        for row, ratio in enumerate(ratios):
            if len(ratio) and ratio.max() >= tight:
                found[order[row, : least + 1 + ratio.argmax()]] = sets[block[row]]
        dense = dense[found[dense] == sets[dense]]
    return found
