"""Normal groups, cut into parts of many sizes: what is normal for a group of any size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dn2.config import GroupFitConfig
from dn2.groups.distinct import Distinct, each_image, near_distance
from dn2.groups.grouping import Grouping
from dn2.groups.pooling import Pooling, Totals, check_group_memory
from dn2.progress import advance
from dn2.records import Embedded
from dn2.scoring.rows import image_vectors
from dn2.store.storage import Store

_MOST = 2_000  # parts of one size
_FEWEST = 5  # groups: fewer say nothing about a size
_STEP = np.sqrt(2)


def ladder(counts: npt.NDArray[np.int64], smallest: int) -> tuple[int, ...]:
    """Return the sizes that groups are cut into: from the smallest one up, each about 1.4 times the one before.

    The largest one that five groups have is one of them, and so is the size that most groups have, if it is not larger:
    parts of fewer groups than five would say more about these groups than about their size.

    Args:
        counts: (G,) int64, units of each group; at least `smallest`.
        smallest: the smallest size.
    """
    most = int(np.sort(counts)[-min(_FEWEST, len(counts))])
    steps = smallest * _STEP ** np.arange(64)
    sizes = {int(size) for size in np.rint(steps) if size < most} | {most}
    commonest = int(np.bincount(counts).argmax())
    return tuple(sorted(size for size in sizes | {commonest} if size <= most))


def parts_of(
    group_of: npt.NDArray[np.int64], unit_of: npt.NDArray[np.int64], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut groups into parts of one size, 2,000 at most, as many from each group as can be.

    Args:
        group_of: (N,) int64, number of each image's group; -1 where it has none.
        unit_of: (N,) int64, number of its unit in the group: in an order that is random to the units.
        size: units in a part.

    Returns:
        (N,) int64 number of each image's part, -1 where it is in none; and (P,) int64 the group of each part.
    """
    part_of = np.full(len(group_of), -1, np.int64)
    rows = np.flatnonzero(group_of >= 0)
    names, inverse = np.unique(group_of[rows], return_inverse=True)
    units = np.zeros(len(names), np.int64)
    np.maximum.at(units, inverse, unit_of[rows] + 1)
    nth = unit_of[rows] // size  # of the group's parts
    whole = nth < units[inverse] // size
    rows, nth, inverse = rows[whole], nth[whole], inverse[whole]
    if not len(rows):
        return part_of, np.zeros(0, np.int64)
    shuffled = np.random.default_rng(0).permutation(len(names))
    order = nth * len(names) + shuffled[inverse]  # every group's first part, then every group's second one
    _, first, part = np.unique(order, return_index=True, return_inverse=True)
    part_of[rows] = np.where(part < _MOST, part, -1)
    return part_of, names[inverse[first[:_MOST]]]


class Parts:
    """What is added up over the images: the groups, and their parts of each size.

    Attributes:
        groups: (N,) int64, number among the kept groups of each readable image; -1 if its group is not kept.
        count: kept groups.
        units: in all of them.
        near: squared distance below which two images of a group are near copies; None if every image counts.
        sizes: of the parts, in units.
        part_of: for each size (N,) int64, the image's part; -1 where it is in none.
        part_groups: for each size (P,) int64, the group of each part.
        effective: for each size (P,) float64, how many independent images each part counts as.
    """

    def __init__(
        self,
        embedded: Embedded,
        store: Store,
        grouping: Grouping,
        large: npt.NDArray[np.bool_],
        config: GroupFitConfig,
    ) -> None:
        number = np.where(large, np.cumsum(large) - 1, -1)
        self.groups = _of_readable(grouping.group_of, grouping)
        self.groups = np.where(self.groups >= 0, number[self.groups], -1)
        self.count = int(large.sum())
        self.near, unit_of = None, each_image(self.groups, _of_readable(grouping.image_keys, grouping))
        if config.units == "auto" and config.pooling != "concat":
            self.near = near_distance(embedded, store, grouping, large)
            found = Distinct(embedded, store, grouping, large, self.near, memory_gb=config.group_memory_gb)
            unit_of = found.unit_of
        mine = self.groups >= 0
        counts = np.zeros(self.count, np.int64)
        np.maximum.at(counts, self.groups[mine], unit_of[mine] + 1)
        self.units = int(counts.sum())
        self.sizes: tuple[int, ...] = (int(counts[0]),)
        if config.pooling != "concat":
            self.sizes = ladder(counts, config.min_size if self.near is None else 1)
        cut = [parts_of(self.groups, unit_of, size) for size in self.sizes]
        self.part_of, self.part_groups = [one for one, _ in cut], [groups for _, groups in cut]
        self.effective = [_effective(part, unit_of, len(groups)) for part, groups in cut]

    def pooled(
        self, embedded: Embedded, store: Store, pooling: Pooling, config: GroupFitConfig
    ) -> tuple[npt.NDArray[np.float16], list[npt.NDArray[np.float16]]]:
        """Return the vectors of the groups, (G, P) float16, and those of the parts of each size.

        Raises:
            BankError: they need more memory than allowed.
        """
        counts = [self.count, *(len(groups) for groups in self.part_groups)]
        places = self.sizes[0] if config.pooling == "concat" else 1
        dim = pooling.dim_of(embedded, store)
        check_group_memory(sum(counts), places * dim, config.group_memory_gb)
        totals = [Totals(count, dim, places=places) for count in counts]
        read = 0
        for vectors in image_vectors(embedded, store):
            features = pooling.features(vectors)
            mine = slice(read, read + len(vectors))
            for total, part_of in zip(totals, [self.groups, *self.part_of], strict=True):
                total.add(part_of[mine], features)
            read += len(vectors)
            advance("pool", len(vectors), total=embedded.embedded)
        groups, *parts = [total.vectors() for total in totals]
        return groups, parts


def _effective(part_of: npt.NDArray[np.int64], unit_of: npt.NDArray[np.int64], parts: int) -> npt.NDArray[np.float64]:
    """Return (P,) float64: how many independent images each part counts as."""
    mine, most = part_of >= 0, int(unit_of.max(initial=0)) + 1
    units, counts = np.unique(part_of[mine] * most + unit_of[mine], return_counts=True)
    part = units // most
    found: npt.NDArray[np.float64] = np.bincount(part, counts, parts) ** 2 / np.bincount(part, counts**2, parts)
    return found


def _of_readable(of: list[npt.NDArray[np.int64]], grouping: Grouping) -> npt.NDArray[np.int64]:
    """Return (N,) int64: what is known of each row, of those that can be read."""
    return np.concatenate([values[readable] for values, readable in zip(of, grouping.readable, strict=True)])
