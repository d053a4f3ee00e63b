"""Score the images that calibrate a bank, by the very index that will score others."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dn2.neighbors.bank import Bank
from dn2.neighbors.products import Neighbors
from dn2.neighbors.segments import OWN, UNIT, Segment, keys_of
from dn2.progress import advance
from dn2.scoring.calibration import Calibration
from dn2.scoring.rows import image_vector
from dn2.scoring.scale import relative
from dn2.scoring.scores import image_scores
from dn2.scoring.units import places_of, units_of
from dn2.store.tables import concat

_AT_ONCE = 10_000  # images searched at a time


class CalibrationImages:
    """Those images of a bank, or held apart from it, whose own scores calibrate it.

    Attributes:
        table: Arrow table of BANK_ROWS, one row for each.
        unit_of: (n,) int64, the unit of each; None where each counts by itself.
    """

    def __init__(self, bank: Bank, wanted: Collection[str], *, by_unit: bool, memory_mb: int) -> None:
        """Find the images, and their units.

        Args:
            bank: opened, perhaps still being made.
            wanted: ids of the images that calibrate it.
            by_unit: whether each unit weighs the same; otherwise each image does.
            memory_mb: working memory of the search for near copies, in MiB.
        """
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
            self._sides.append((segment, tile_by_tile(segment.table, np.flatnonzero(mine), bank.search.tiles)))
        self.table = concat([segment.table.take(rows[:, 0]) for segment, rows in self._sides])
        unit_of, self._columns = self._units(in_bank, memory_mb if by_unit else None)
        self.unit_of = unit_of if by_unit else None

    def _units(self, in_bank: list[Segment], memory_mb: int | None) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
        """Tell the segments their rows' units; return those of the images, (n,) int64, and what tells them from others.

        That is the unit, too, unless one of them would have fewer than k others outside its own.

        Args:
            in_bank: the segments whose rows are images of the bank.
            memory_mb: for the search for near copies; None: none are looked for.
        """
        tiles, blocks, keys, places, names, wanted, living = self._bank.search.tiles, [], [], [], [], [], []
        for segment, mine in self._sides:
            rows = mine
            if segment in in_bank:
                rows = tile_by_tile(segment.table, np.arange(segment.count), tiles)
            segment.units = np.full(segment.count, -1, np.int64)
            if not len(rows):
                continue
            is_gone = np.zeros(segment.count, bool) if segment.gone is None else segment.gone
            blocks.append(_image_vectors(segment.vectors, rows))
            keys.append(segment.keys(("content_sha256", "group_id"))[:, rows[:, 0]])
            places.append((segment, rows))
            names += segment.table["uri"].take(rows[:, 0]).to_pylist()
            wanted.append(np.isin(rows[:, 0], mine[:, 0]))
            living.append(np.full(len(rows), segment in in_bank) & ~is_gone[rows[:, 0]])
        content, group = np.concatenate(keys, axis=1)
        asked = np.concatenate(wanted) if memory_mb is not None else np.zeros(len(content), bool)
        files = None if memory_mb is None else places_of(names)
        unit_of = units_of(blocks, content, group, asked, places=files, memory_mb=memory_mb or 0)
        bounds = np.cumsum([0, *(len(block) for block in blocks)])
        for (segment, rows), low, high in zip(places, bounds[:-1], bounds[1:], strict=True):
            cast(Any, segment.units)[rows] = unit_of[low:high, None]
        wanted_rows = np.concatenate(wanted)
        has_centres = len(in_bank) < len(self._bank.segments)
        enough = has_centres or _enough(unit_of, content, wanted_rows, np.concatenate(living), self._bank.search.k)
        return unit_of[wanted_rows], (*OWN, UNIT) if enough else OWN

    @property
    def columns(self) -> tuple[str, ...]:
        """Which columns' keys tell an image from others."""
        return self._columns

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
            parts.append(image_scores(relative(found, self._bank.scales), self._bank.search.tiles)[0])
            advance("calibrate", len(numbers), total=len(self))
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def calibration(self, scores: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_] | None = None) -> Calibration:
        """Return the calibration by (n,) scores of all of them, or of those in a mask, (n,) bool."""
        mask = np.ones(len(scores), bool) if mask is None else mask
        return Calibration.of(scores[mask], None if self.unit_of is None else self.unit_of[mask])

    def keys_of(self, table: Any) -> npt.NDArray[np.int64]:
        """Return (M, N) int64 keys of N rows of the bank that tell these images from others.

        Args:
            table: Arrow table of BANK_ROWS.
        """
        found = keys_of(table, OWN)
        if UNIT not in self._columns:
            return found
        unit = {
            name: number
            for segment, _ in self._sides
            for name, number in zip(segment.table["image_id"].to_pylist(), cast(Any, segment.units), strict=True)
        }
        return np.stack([*found, [unit.get(name, -1) for name in table["image_id"].to_pylist()]])


def tile_by_tile(table: Any, rows: npt.NDArray[np.int64], tiles: int) -> npt.NDArray[np.int64]:
    """Return (N, T) of the (N * T,) rows of N images, each with its T tiles in their order, wherever they lie.

    Args:
        table: Arrow table of BANK_ROWS.
        rows: (N * T,) int64 rows of it.
        tiles: T.
    """
    if tiles == 1:
        return rows[:, None]
    found = table.select(["image_id", "tile"]).take(rows)
    number: dict[str, int] = {}
    images = np.array([number.setdefault(name, len(number)) for name in found["image_id"].to_pylist()], np.int64)
    return rows[np.lexsort((found["tile"].to_numpy(), images))].reshape(-1, tiles)


def _image_vectors(vectors: npt.NDArray[np.float16], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
    """Return (N, D) float16: the vector of each image, or the mean of those of its tiles.

    Args:
        vectors: (M, D) float16, perhaps memory-mapped; all of them are returned as they are where images are rows.
        rows: (N, T) int64.
    """
    if rows.shape[1] == 1:
        return vectors if np.array_equal(rows[:, 0], np.arange(len(vectors))) else vectors[rows[:, 0]]
    found = np.empty((len(rows), vectors.shape[1]), np.float16)
    for low in range(0, len(rows), _AT_ONCE):
        part = slice(low, low + _AT_ONCE)
        found[part] = image_vector(vectors[rows[part]])
    return found


def _enough(
    unit_of: npt.NDArray[np.int64],
    contents: npt.NDArray[np.int64],
    wanted: npt.NDArray[np.bool_],
    living: npt.NDArray[np.bool_],
    k: int,
) -> bool:
    """Return whether each image that is wanted has k others of different bytes in other units of the bank."""
    in_bank = np.unique(np.stack([contents, unit_of], axis=1)[living], axis=0)
    own = np.bincount(in_bank[:, 1], minlength=int(unit_of.max(initial=0)) + 1)
    return bool((len(in_bank) - own[unit_of[wanted]] >= k).all())
