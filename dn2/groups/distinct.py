"""How many independent images a group counts as: near copies are one unit, and count once.

A group of 30 images that are 5 pictures, six times each, scatters like a group of 5. Its size is therefore what Kish
(1965) calls the effective size: 1 / sum of w^2, where w are the shares of its images that belong to one unit.
Which images of a group are copies is decided by one distance for the whole bank, in training and in scoring alike: so
normal groups are judged by the rule by which they were calibrated, whether that distance fits them well or not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dn2.groups.grouping import Grouping
from dn2.records import Embedded
from dn2.scoring.rows import dim_of, image_vectors
from dn2.scoring.units import units_of
from dn2.store.storage import Store

_SAMPLE = 5_000  # images that say how far copies are apart
_COMPARED = 200  # of a group, for that
_RARE = 0.01  # share of the pairs of different units of a group that may be taken for copies
_WIDER = 1.5  # than most copies are apart
_LEAST = 4.0  # times nearer than almost all images of different units: copies, where training shows none
_MOST, _FEWEST = 2_000, 50  # images of a group that are compared with each other, in large and in little memory
_MIXED = np.uint64(0x9E3779B97F4A7C15)  # an odd number: multiplied by it, hashes come into another order


def near_distance(embedded: Embedded, store: Store, grouping: Grouping, kept: npt.NDArray[np.bool_]) -> float:
    """Return the squared distance below which two images of a group are copies, as the training images tell.

    Bursts among them are found as those of a bank of images are (see `dn2.scoring.units`).

    Args:
        embedded: the training images.
        store: where their embeddings lie.
        grouping: their groups.
        kept: (G,) which groups are learnt.
    """
    counts = np.where(kept, grouping.members, 0)
    order = np.random.default_rng(0).permutation(np.flatnonzero(kept))
    chosen = order[: max(1, int(np.searchsorted(np.cumsum(counts[order]), _SAMPLE, side="right")))]
    mine = np.zeros(len(counts), bool)
    mine[chosen] = True
    share = min(1.0, _SAMPLE / counts[chosen].sum())
    draw = np.random.default_rng(0)
    found = []
    for vectors, groups, keys in _readable(embedded, store, grouping):
        rows = np.flatnonzero((groups >= 0) & mine[groups])
        rows = rows[draw.random(len(rows)) < share]
        found.append((vectors[rows], groups[rows], keys[rows]))
    vectors_of, group_of, keys_of = zip(*found, strict=True)
    return near_distance_of(np.concatenate(vectors_of), np.concatenate(group_of), np.concatenate(keys_of))


def near_distance_of(
    vectors: npt.NDArray[np.float16], group_of: npt.NDArray[np.int64], content_keys: npt.NDArray[np.int64]
) -> float:
    """Return the squared distance below which two images of a group are copies.

    Args:
        vectors: (N, D) float16.
        group_of: (N,) int64.
        content_keys: (N,) int64, equal for equal bytes.
    """
    units = units_of([vectors], content_keys, np.full(len(vectors), -1, np.int64))
    alike, different = [np.zeros(0)], [np.zeros(0)]
    for group in np.unique(group_of):
        rows = np.flatnonzero(group_of == group)[:_COMPARED]
        _add_pairs(vectors[rows], units[rows], content_keys[rows], alike, different)
    if not sum(map(len, different)):  # every group is one burst: those of other groups say how far units are apart
        rows = np.random.default_rng(0).permutation(len(vectors))[:_COMPARED]
        _add_pairs(vectors[rows], units[rows], content_keys[rows], [], different)
    apart = np.concatenate(different)
    if not len(apart):
        return 0.0
    most, copies = float(np.quantile(apart, _RARE)), np.concatenate(alike)
    wide = _WIDER * float(np.quantile(copies, 0.95)) if len(copies) else 0.0
    return min(max(wide, most / _LEAST), most)


def _add_pairs(
    vectors: npt.NDArray[np.float16],
    units: npt.NDArray[np.int64],
    content_keys: npt.NDArray[np.int64],
    alike: list[npt.NDArray[np.float64]],
    different: list[npt.NDArray[np.float64]],
) -> None:
    """Note the squared distances of all pairs: of one unit, though not of the same bytes, and of two."""
    one, two = np.triu_indices(len(vectors), 1)
    far = _squared(vectors, vectors)[one, two].astype(np.float64)
    together = units[one] == units[two]
    alike.append(far[together & (content_keys[one] != content_keys[two])])
    different.append(far[~together])


def _squared(queries: npt.NDArray[np.float16], others: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """Return (Q, N) float32 squared distances."""
    center = others.mean(axis=0, dtype=np.float32)  # embeddings far from the origin would be told apart badly
    left, right = queries.astype(np.float32) - center, others.astype(np.float32) - center
    norms = np.einsum("nd,nd->n", left, left)[:, None] + np.einsum("nd,nd->n", right, right)
    found: npt.NDArray[np.float32] = np.maximum(norms - 2 * left @ right.T, 0)
    return found


def units_in(
    vectors: npt.NDArray[np.float16], content_keys: npt.NDArray[np.int64], near: float
) -> npt.NDArray[np.int64]:
    """Return (M,) int64: the number of each image's unit, from 0, among the images of one group.

    In the order of their bytes' hashes, an image becomes the first one of a new unit unless the first one of another
    is near: then it joins the nearest. So no chain of images, like a video, becomes one unit.

    Args:
        vectors: (M, D) float16.
        content_keys: (M,) int64, equal for equal bytes.
        near: squared distance.
    """
    _, first, same = np.unique(content_keys, return_index=True, return_inverse=True)
    far = _squared(vectors[first], vectors[first])
    leaders: list[int] = []
    unit = np.empty(len(first), np.int64)
    for row in range(len(first)):
        nearest = int(far[row, leaders].argmin()) if leaders else -1
        if nearest < 0 or far[row, leaders[nearest]] > near:
            nearest = len(leaders)
            leaders.append(row)
        unit[row] = nearest
    heads = content_keys[first[leaders]].view(np.uint64) * _MIXED  # the least hash of many is small: mixed, it is any
    return np.argsort(np.argsort(heads))[unit][same]


def effective_size(unit_of: npt.NDArray[np.int64], members: int) -> float:
    """Return how many independent images a group counts as.

    Args:
        unit_of: (M,) int64, of all its images or a sample of them.
        members: how many images it has.
    """
    if members < 2:
        return float(members)
    sizes, seen = np.bincount(unit_of).astype(np.float64), len(unit_of)
    same = float((sizes * (sizes - 1)).sum()) / (seen * (seen - 1))  # share of its pairs of images
    return 1 / (1 / members + (1 - 1 / members) * same)


def each_image(group_of: npt.NDArray[np.int64], image_keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (N,) int64: the number of each image in its group, in the order of the hashes of their bytes.

    Args:
        group_of: (N,) int64; -1 where an image has none.
        image_keys: (N,) int64.
    """
    order = np.lexsort((image_keys, group_of))
    _, first, inverse = np.unique(group_of[order], return_index=True, return_inverse=True)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order)) - first[inverse]
    return np.where(group_of >= 0, number, -1)


class Distinct:
    """The units of groups, found as soon as the last image of a group is read.

    Of a group of more than 2,000 images, or of more than fit into memory beside those of other groups, a sample tells
    the effective size, and a unit is what has the same bytes.

    Attributes:
        sizes: (G,) float64, how many independent images each group counts as; 0 for those that are not asked for.
        unit_of: (N,) int64, the number of each readable image's unit in its group; -1 where it has none.
    """

    def __init__(
        self,
        embedded: Embedded,
        store: Store,
        grouping: Grouping,
        kept: npt.NDArray[np.bool_],
        near: float,
        *,
        memory_gb: float,
    ) -> None:
        """Compare the images of each group.

        Args:
            embedded: images.
            store: where their embeddings lie.
            grouping: their groups.
            kept: (G,) which of them are asked for.
            near: squared distance below which two images of a group are copies.
            memory_gb: for images that wait for others of their group, in GiB.
        """
        self.sizes = np.zeros(len(kept))
        self.unit_of = np.full(sum(int(readable.sum()) for readable in grouping.readable), -1, np.int64)
        most = _most(grouping, kept, int(memory_gb * 2**29 / dim_of(embedded, store)))
        waiting: dict[int, _Members] = {}
        read = 0
        for vectors, groups, keys in _readable(embedded, store, grouping):
            mine = np.flatnonzero(groups >= 0)
            mine = mine[kept[groups[mine]]]
            mine = mine[np.argsort(groups[mine], kind="stable")]
            for rows in np.split(mine, np.flatnonzero(np.diff(groups[mine])) + 1) if len(mine) else ():
                group = int(groups[rows[0]])
                if group not in waiting:
                    waiting[group] = _Members(int(grouping.members[group]), most)
                waiting[group].add(vectors[rows], keys[rows], rows + read)
                if waiting[group].complete:
                    self._note(group, waiting.pop(group), near)
            read += len(groups)

    def _note(self, group: int, members: _Members, near: float) -> None:
        units = units_in(members.vectors, members.keys[members.chosen], near)
        self.sizes[group] = effective_size(units, len(members.chosen))
        if not members.chosen.all():
            units = np.unique(members.keys, return_inverse=True)[1]
        self.unit_of[members.rows] = units


class _Members:
    """The images of one group, or a sample of them, until the last one is read.

    Attributes:
        chosen: (M,) bool, which of them are compared.
    """

    def __init__(self, count: int, most: int) -> None:
        self.chosen = np.zeros(count, bool)
        self.chosen[np.random.default_rng(0).permutation(count)[:most]] = True
        self._vectors: list[npt.NDArray[np.float16]] = []
        self._keys: list[npt.NDArray[np.int64]] = []
        self._rows: list[npt.NDArray[np.int64]] = []
        self._seen = 0

    def add(self, vectors: npt.NDArray[np.float16], keys: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> None:
        """Take the next images, the hashes of their bytes, and their places among all images."""
        self._vectors.append(vectors[self.chosen[self._seen : self._seen + len(rows)]])
        self._keys.append(keys)
        self._rows.append(rows)
        self._seen += len(rows)

    @property
    def complete(self) -> bool:
        """Whether the last one is read."""
        return self._seen == len(self.chosen)

    @property
    def vectors(self) -> npt.NDArray[np.float16]:
        """(C, D) float16 of the chosen ones."""
        return np.concatenate(self._vectors)

    @property
    def keys(self) -> npt.NDArray[np.int64]:
        """(M,) int64."""
        return np.concatenate(self._keys)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(M,) int64."""
        return np.concatenate(self._rows)


def _readable(
    embedded: Embedded, store: Store, grouping: Grouping
) -> Iterator[tuple[npt.NDArray[np.float16], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield for each shard the vectors of its readable images, their groups, and the hashes of their bytes."""
    told = zip(image_vectors(embedded, store), grouping.group_of, grouping.image_keys, grouping.readable, strict=True)
    for vectors, groups, keys, readable in told:
        yield vectors, groups[readable], keys[readable]


def _most(grouping: Grouping, kept: npt.NDArray[np.bool_], images: int) -> int:
    """Return how many images of each group can be compared, if so many images may wait for others of their group."""
    shards = len(grouping.group_of)
    first, last = np.full(len(kept), shards), np.zeros(len(kept), np.int64)
    for shard, groups in enumerate(grouping.group_of):
        mine = groups[groups >= 0]
        first[mine] = np.minimum(first[mine], shard)
        last[mine] = shard
    most = _MOST
    while most > _FEWEST:
        waiting = np.where(kept & (grouping.members > 0), np.minimum(grouping.members, most), 0)
        changes = np.bincount(np.minimum(first, last), waiting, shards + 1) - np.bincount(last + 1, waiting, shards + 1)
        if np.cumsum(changes).max(initial=0) <= images:
            break
        most //= 2
    return most
