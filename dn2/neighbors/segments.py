"""A bank's segments: immutable vectors, their rows, and the cells they lie in, each written once and opened lazily."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.errors import SchemaError
from dn2.neighbors import exact, ivf
from dn2.neighbors.ivf import Cells
from dn2.neighbors.products import Neighbors, Rows
from dn2.neighbors.vectors import load_vectors, write_vectors
from dn2.store.schema import Schema
from dn2.store.schemas import BANK_ROWS, CELLS
from dn2.store.storage import Store
from dn2.store.tables import read_config, read_footer, read_table, writing

UNIT = "unit"  # see `dn2.scoring.units`
OWN = ("image_id", "content_sha256")  # what tells an image from others: a row that shares one is the image itself


def keys(values: Iterable[str | None]) -> npt.NDArray[np.int64]:
    """Return (N,) int64 that are equal where the texts are, and -1 where there is none."""
    numbers = (
        -1 if value is None else int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), signed=True)
        for value in values
    )
    return np.fromiter(numbers, np.int64)


def keys_of(table: Any, columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return (M, N) int64 keys of M columns of an Arrow table."""
    return np.stack([keys(table[column].to_pylist()) for column in columns])


def segment_vectors(store: Store, path: str, rows: Schema = BANK_ROWS) -> npt.NDArray[np.float16]:
    """Return the vectors of a segment, (N, D) float16, memory-mapped.

    Args:
        store: where it lies.
        path: of the segment.
        rows: what its rows are.

    Raises:
        NotFoundError: one of its files is missing.
        SchemaError: one of them is damaged.
    """
    return load_vectors(store, f"{path}.npy", read_config(store, f"{path}.parquet", rows)["vectors_crc32"])


def write_segment(
    store: Store,
    path: str,
    table: Any,
    shape: tuple[int, int],
    blocks: Iterable[npt.NDArray[np.float16]],
    footer: dict[str, Any],
    *,
    cells: Cells | None = None,
) -> None:
    """Write a segment, its rows last: they make it whole. One that is there already is kept.

    Args:
        store: where to.
        path: of the segment.
        table: Arrow table with the columns of BANK_ROWS, in the order of the vectors.
        shape: (N, D) of all vectors.
        blocks: (M, D) float16 vectors one after the other.
        footer: provenance.
        cells: where the rows lie.

    Raises:
        StoreError: the store cannot be written.
    """
    if store.exists(f"{path}.parquet"):
        return
    checksum = write_vectors(store, f"{path}.npy", shape, blocks)
    if cells is not None:
        with writing(store, layout.segment_cells(path), CELLS, {}) as file:
            file.write({"centroid": list(cells.centroids), "rows": np.diff(cells.starts)})
    footer = {**footer, "vectors_crc32": checksum, "cells": cells is not None}
    with writing(store, f"{path}.parquet", BANK_ROWS, footer) as file:
        file.write({column: table[column].combine_chunks() for column in BANK_ROWS.columns.names})


class Segment:
    """A segment that is read when it is needed, and can be let go again.

    Attributes:
        path: in the store.
        count: number of rows, with those that are gone.
        vectors: (N, D) float16, memory-mapped.
        table: Arrow table of BANK_ROWS, in the same order.
        gone: (N,) bool, rows that were taken out of the bank; None if none was.
        units: (N,) int64, what the key `unit` of each row is; None where units are not known.
        centres: whether its rows are centres of many images: they are never the image that is looked for.
        divided: whether its rows lie in cells.
    """

    def __init__(self, store: Store, path: str, removed: Collection[str] = ()) -> None:
        self._store, self.path, self._removed = store, path, removed
        self._footer, self.count = read_footer(store, f"{path}.parquet", BANK_ROWS)
        self.centres, self.divided = (bool(self._footer.get(name, False)) for name in ("centres", "cells"))
        self.units: npt.NDArray[np.int64] | None = None
        self._keys: dict[tuple[str, ...], npt.NDArray[np.int64]] = {}

    @cached_property
    def vectors(self) -> npt.NDArray[np.float16]:
        """The vectors."""
        found = load_vectors(self._store, f"{self.path}.npy", self._footer["vectors_crc32"])
        if len(found) != self.count:
            raise SchemaError(
                f"{self._store.uri_of(self.path)}: got {len(found)} vectors and {self.count} ids, expected as many"
            )
        return found

    @cached_property
    def table(self) -> Any:
        """The rows."""
        return read_table(self._store, f"{self.path}.parquet", BANK_ROWS)

    @cached_property
    def gone(self) -> npt.NDArray[np.bool_] | None:
        """What was taken out."""
        if not self._removed:
            return None
        found = np.array([one in self._removed for one in self.table["image_id"].to_pylist()], bool)
        return found if found.any() else None

    @cached_property
    def cells(self) -> Cells | None:
        """Where the rows lie, if they lie in cells."""
        if not self.divided:
            return None
        found = read_table(self._store, layout.segment_cells(self.path), CELLS)
        counts = found["rows"].to_numpy()
        if counts.sum() != self.count:
            raise SchemaError(
                f"{self._store.uri_of(layout.segment_cells(self.path))}: got cells of {counts.sum()} rows, "
                f"expected {self.count}"
            )
        centroids = np.stack(found["centroid"].to_numpy()).astype(np.float32)
        return Cells(centroids, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    def check(self) -> None:
        """Read the files, and refuse damaged ones, before anything is searched.

        Raises:
            NotFoundError: one is missing.
            SchemaError: one is damaged.
        """
        _ = self.vectors, self.table, self.cells

    def let_go(self) -> None:
        """Forget what was read; it is read again when it is needed."""
        for name in ("vectors", "table", "gone", "cells"):
            self.__dict__.pop(name, None)
        self._keys.clear()

    def search(
        self,
        queries: npt.NDArray[np.float16],
        k: int,
        *,
        nprobe: int,
        query_keys: npt.NDArray[np.int64],
        columns: tuple[str, ...],
        memory_mb: int,
    ) -> Neighbors:
        """Return the k nearest rows of the segment, or fewer if it has not so many for a query.

        Args:
            queries: (Q, D) float16.
            k: neighbours.
            nprobe: cells visited; 0 searches all rows.
            query_keys: (M, Q) int64 keys of M columns.
            columns: which; rows with the same key in one of them are passed over.
            memory_mb: working memory, in MiB.
        """
        mine = None if self.centres else self.keys(columns)
        rows, wanted = Rows(self.vectors, mine, self.gone), None if self.centres else query_keys
        if self.cells is None or nprobe == 0:
            return exact.at_most(queries, rows, k, query_keys=wanted, memory_mb=memory_mb)
        return ivf.search(queries, rows, self.cells, k, nprobe=nprobe, query_keys=wanted, memory_mb=memory_mb)

    def keys(self, columns: tuple[str, ...]) -> npt.NDArray[np.int64]:
        """Return (M, N) int64 keys of M columns, of which the last may be `unit`."""
        found = self._keys.get(columns)
        if found is None:
            known = [] if self.units is None or UNIT not in columns else [self.units]
            written = keys_of(self.table, [one for one in columns if one != UNIT])
            found = self._keys[columns] = np.stack([*written, *known])
        return found


def merged(found: Sequence[tuple[int, Neighbors]], k: int) -> Neighbors:
    """Return the k nearest of what was found in several segments, each given with the number of its first row."""
    rows = np.concatenate([np.where(one.rows >= 0, one.rows + first, -1) for first, one in found], axis=1)
    distances = np.concatenate([one.distances for _, one in found], axis=1)
    order = np.lexsort((rows, distances), axis=1)[:, :k]
    return Neighbors(
        cast("npt.NDArray[np.int64]", np.take_along_axis(rows, order, 1)),
        cast("npt.NDArray[np.float32]", np.take_along_axis(distances, order, 1)),
    )
