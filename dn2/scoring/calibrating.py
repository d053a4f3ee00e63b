"""Score the images that calibrate a bank, by the very index that will score others."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from dn2.neighbors.bank import Bank
from dn2.neighbors.products import Neighbors
from dn2.neighbors.segments import OWN, Segment
from dn2.progress import advance
from dn2.scoring.calibration import usable_groups
from dn2.scoring.scores import image_scores
from dn2.store.tables import concat

_AT_ONCE = 10_000  # images searched at a time


class CalibrationImages:
    """Those images of a bank, or held apart from it, whose own scores calibrate it.

    Attributes:
        table: Arrow table of BANK_ROWS, one row for each.
    """

    def __init__(self, bank: Bank, wanted: Collection[str]) -> None:
        self._bank = bank
        self._sides: list[tuple[Segment, npt.NDArray[np.int64]]] = []  # (N, T) rows of the T tiles of N images
        in_bank = [segment for segment in bank.segments if not segment.centres]
        left = set(wanted)
        for segment in [*in_bank, *reversed(bank.held)]:  # one that came back is in two: the newer one counts
            names = segment.table["image_id"].to_pylist()
            mine = np.array([name in left for name in names], bool)
            if segment.gone is not None:
                mine &= ~segment.gone
            left.difference_update(names[row] for row in np.flatnonzero(mine))
            self._sides.append((segment, _tile_by_tile(segment, np.flatnonzero(mine), bank.search.tiles)))
        self.table = concat([segment.table.take(rows[:, 0]) for segment, rows in self._sides])
        self._columns = self._distinguishing(in_bank)

    def _distinguishing(self, in_bank: list[Segment]) -> tuple[str, ...]:
        """Return which columns keep an image from its own kind: the group too, if enough images are in others."""
        if not in_bank:
            return OWN
        everything = ("image_id", "content_sha256", "group_id")
        content, group = np.concatenate([segment.keys(everything)[1:] for segment, _ in self._sides], axis=1)
        living = np.concatenate(
            [
                np.full(segment.count, segment in in_bank) & (True if segment.gone is None else ~segment.gone)
                for segment, _ in self._sides
            ]
        )
        usable = usable_groups(group, content, self._bank.search.k, living)
        return everything if (usable != -1).any() else OWN

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def sample(self, count: int) -> npt.NDArray[np.int64]:
        """Return the numbers of at most `count` of them, drawn at random, the same in every run."""
        return np.random.default_rng(0).permutation(len(self))[:count]

    def queries(self, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]:
        """Return (Q * T, D) float16 vectors and (M, Q * T) int64 keys of the T tiles of some, in this order."""
        bounds = np.concatenate([[0], np.cumsum([len(rows) for _, rows in self._sides])])
        search, count = self._bank.search, len(numbers)
        vectors = np.empty((count, search.tiles, search.dim), np.float16)
        keys = np.empty((len(self._columns), count, search.tiles), np.int64)
        for side, (segment, rows) in enumerate(self._sides):
            places = np.flatnonzero((numbers >= bounds[side]) & (numbers < bounds[side + 1]))
            mine = rows[numbers[places] - bounds[side]]
            vectors[places], keys[:, places] = segment.vectors[mine], segment.keys(self._columns)[:, mine]
        return vectors.reshape(-1, search.dim), keys.reshape(len(keys), -1)

    def nearest(self, numbers: npt.NDArray[np.int64], *, memory_mb: int, exact: bool = False) -> Neighbors:
        """Return the neighbours of some of them, tile by tile; none is of the image itself or of its group."""
        vectors, keys = self.queries(numbers)
        found = self._bank.nearest(vectors, keys, memory_mb=memory_mb, columns=self._columns, exact=exact)
        return self._bank.complete(found)

    def scores(self, *, memory_mb: int) -> npt.NDArray[np.float32]:
        """Return (n,) float32 scores of all of them."""
        parts = []
        for low in range(0, len(self), _AT_ONCE):
            numbers = np.arange(low, min(low + _AT_ONCE, len(self)))
            found = self.nearest(numbers, memory_mb=memory_mb)
            parts.append(image_scores(found.distances, self._bank.search.tiles)[0])
            advance("calibrate", len(numbers), total=len(self))
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    @property
    def columns(self) -> tuple[str, ...]:
        """Which columns' keys tell an image from others."""
        return self._columns


def _tile_by_tile(segment: Segment, rows: npt.NDArray[np.int64], tiles: int) -> npt.NDArray[np.int64]:
    """Return (N, T) of the (N * T,) rows of N images, each with its T tiles in their order, wherever they lie."""
    if tiles == 1:
        return rows[:, None]
    table = segment.table.select(["image_id", "tile"]).take(rows)
    number: dict[str, int] = {}
    images = np.array([number.setdefault(name, len(number)) for name in table["image_id"].to_pylist()], np.int64)
    return rows[np.lexsort((table["tile"].to_numpy(), images))].reshape(-1, tiles)
