"""A feature bank: normal embeddings in immutable segments, listed by an immutable version file, named by a pointer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.errors import BankError, SchemaError
from dn2.neighbors.choice import needed_gb
from dn2.neighbors.index import index_of
from dn2.neighbors.products import Neighbors, tensor
from dn2.neighbors.segments import OWN, Segment, merged
from dn2.neighbors.versions import read_version
from dn2.records import BankFiles, BankVersion
from dn2.store.schemas import BANK_ROWS, SCALES
from dn2.store.storage import Store
from dn2.store.tables import iter_rows, read_table

_BLOCK = 10_000  # rows read at a time


def prepared(vectors: npt.NDArray[np.float16], metric: str) -> npt.NDArray[np.float16]:
    """Return (N, D) float16 embeddings as a bank of this metric holds them: as they are, or of length 1."""
    if metric == "l2":
        return vectors
    wide = tensor(vectors).float().numpy()
    return cast(
        "npt.NDArray[np.float16]",
        (wide / np.linalg.norm(wide, axis=1, keepdims=True).clip(1e-12)).astype(np.float16),
    )


def check_memory(rows: int, dim: int, budget_gb: float) -> None:
    """Refuse vectors that would not fit.

    Raises:
        BankError: with their ids they need more than `budget_gb`.
    """
    needed = needed_gb(rows, dim)
    if needed > budget_gb:
        raise BankError(
            f"bank of {rows} rows of length {dim}: needs {needed:.2f} GiB, expected at most bank_memory_gb = "
            f"{budget_gb:g}; raise the setting or train with fewer images"
        )


def shards_of(store: Store, record: BankVersion, image_ids: set[str]) -> dict[str, str]:
    """Return the embedding shard of each of the given bank images: where its thumbnail lies.

    Raises:
        NotFoundError: a file of the version is missing.
        SchemaError: one of them is damaged.
    """
    found: dict[str, str] = {}
    for segment in read_version(store, record.name, record.version, BankVersion)[1].segments:
        path = f"{layout.bank_segment(record.name, segment)}.parquet"
        for rows in iter_rows(store, path, BANK_ROWS, ["image_id", "shard"]):
            found |= {name: rows["shard"][row] for row, name in enumerate(rows["image_id"]) if name in image_ids}
    return found


@dataclass(frozen=True, slots=True)
class Search:
    """How a bank is searched.

    Attributes:
        dim: length of an embedding.
        k: neighbours.
        metric: l2 or cosine.
        tiles: rows that stand for an image.
        nlist: cells of a segment that lies in cells.
        nprobe: how many of them are visited; 0 searches all rows.
        scale: none or local: what its scores are relative to.
    """

    dim: int
    k: int
    metric: str
    tiles: int
    nlist: int
    nprobe: int
    scale: str = "none"

    @classmethod
    def of(cls, record: BankVersion) -> Search:
        """Return how a finished version is searched.

        Raises:
            SchemaError: a later dn2 made its index, which is not known here.
        """
        index_of(record.index)
        return cls(record.dim, record.k, record.metric, record.tiles, record.nlist, record.nprobe, record.scale)


class Bank:
    """The opened files of a bank version, which may be one that is still being made, ready to be searched.

    If its segments do not fit the memory together, only one is open at a time.

    Attributes:
        name: the bank's name.
        version: the version's.
        search: how it is searched.
        segments: in the order of the version's rows.
        held: segments of images that are not among the rows, but calibrate the bank.
        scales: (N,) float32, squared distances that scores are relative to; None where they are not.
    """

    def __init__(
        self, store: Store, name: str, version: str, search: Search, files: BankFiles, *, memory_gb: float
    ) -> None:
        self._store, self.name, self.version, self.search, self._memory_gb = store, name, version, search, memory_gb
        self._alone = threading.Lock()
        removed = frozenset(files.removed_ids)
        self.segments, self.held = (
            [Segment(store, layout.bank_segment(name, one), removed) for one in names]
            for names in (files.segments, files.held or ())
        )
        self._first = np.concatenate([[0], np.cumsum([segment.count for segment in self.segments])])
        for segment in self.segments:
            needed = self._needed(segment)
            if needed > memory_gb:
                raise BankError(
                    f"bank {name!r}: a segment of {segment.count} rows of length {search.dim} needs "
                    f"{needed:.2f} GiB, expected at most bank_memory_gb = {memory_gb:g}; raise it, or train again "
                    f"with a smaller segment_rows"
                )

    @classmethod
    def open(cls, store: Store, record: BankVersion, *, memory_gb: float) -> Bank:
        """Return the opened bank; the last one is kept for the next caller in this process.

        Raises:
            BankError: one of its segments does not fit `memory_gb`.
            NotFoundError: one of its files is missing.
            SchemaError: one of its files is damaged.
        """
        return _opened(store.uri, record, memory_gb)

    def loads(self) -> list[range]:
        """Return which segments fit the memory together: all of them, or several runs of neighbours."""
        runs: list[range] = []
        used = 0.0
        for number, segment in enumerate(self.segments):
            needed = self._needed(segment)
            if runs and used + needed <= self._memory_gb:
                runs[-1], used = range(runs[-1].start, number + 1), used + needed
            else:
                runs.append(range(number, number + 1))
                used = needed
        return runs

    def _needed(self, segment: Segment) -> float:
        return needed_gb(segment.count, self.search.dim, self.search.nlist if segment.divided else 0)

    @contextmanager
    def _open(self, number: int) -> Iterator[Segment]:
        """Yield a segment. If not all fit the memory, it is the only one that is open in this process."""
        segment = self.segments[number]
        if len(self.loads()) == 1:
            yield segment
            return
        with self._alone:
            yield segment
            segment.let_go()

    @property
    def count(self) -> int:
        """Number of rows of all segments, with those that are gone."""
        return int(self._first[-1])

    def parts(self) -> Iterator[tuple[int, Segment]]:
        """Yield each segment with the number of its first row, open until the next one is asked for."""
        for number in range(len(self.segments)):
            with self._open(number) as segment:
                yield int(self._first[number]), segment

    def blocks(
        self, columns: tuple[str, ...]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16], npt.NDArray[np.int64]]]:
        """Yield the numbers, (M,) int64, vectors, (M, D) float16, and keys, (C, M) int64, of all rows not gone.

        No segment is open meanwhile: each block may be searched for.

        Args:
            columns: C, whose keys are wanted.
        """
        for number, segment in enumerate(self.segments):
            for low in range(0, segment.count, _BLOCK):
                with self._open(number):
                    rows = np.arange(low, min(low + _BLOCK, segment.count))
                    rows = rows if segment.gone is None else rows[~segment.gone[rows]]
                    vectors, keys = segment.vectors[rows], segment.keys(columns)[:, rows]
                yield rows + self._first[number], vectors, keys

    def nearest(
        self,
        queries: npt.NDArray[np.float16],
        query_keys: npt.NDArray[np.int64],
        *,
        memory_mb: int,
        columns: tuple[str, ...] = OWN,
        among: Sequence[int] | None = None,
        exact: bool = False,
        k: int | None = None,
    ) -> Neighbors:
        """Return the k nearest rows of all segments or some, -1 where there are fewer.

        Args:
            queries: (Q, D) float16, prepared for the metric.
            query_keys: (M, Q) int64 keys of M columns.
            memory_mb: working memory, in MiB.
            columns: which; rows with the same key in one of them are passed over.
            among: numbers of segments; by default all.
            exact: search all rows, whatever the index.
            k: how many; by default as many as make a score.
        """
        found, k = [], k or self.search.k
        for number in range(len(self.segments)) if among is None else among:
            with self._open(number) as segment:
                mine = segment.search(
                    queries,
                    k,
                    nprobe=0 if exact else self.search.nprobe,
                    query_keys=query_keys,
                    columns=columns,
                    memory_mb=memory_mb,
                )
            found.append((int(self._first[number]), mine))
        return merged(found, k)

    def complete(self, found: Neighbors) -> Neighbors:
        """Return what was found if it is k rows for every query.

        Raises:
            BankError: it is not.
        """
        if (found.rows < 0).any():
            raise BankError(
                f"k: got {self.search.k}, expected at most the bank rows that are no copies of the query; lower k"
            )
        return found

    def described(self, rows: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
        """Return the image_id, uri and tile of (M,) rows."""
        told: dict[str, list[Any]] = {name: [None] * len(rows) for name in ("image_id", "uri", "tile")}
        owner = np.searchsorted(self._first, rows, side="right") - 1
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            with self._open(number) as segment:
                found = segment.table.select(list(told)).take(rows[places] - self._first[number])
            for name, values in told.items():
                for place, value in zip(places, found[name].to_pylist(), strict=True):
                    values[place] = value
        return told

    @cached_property
    def scales(self) -> npt.NDArray[np.float32] | None:
        """The scales."""
        if self.search.scale == "none":
            return None
        path = layout.bank_scales(self.name, self.version)
        found = read_table(self._store, path, SCALES, ["scale"])["scale"]
        if len(found) != self.count:
            raise SchemaError(
                f"{self._store.uri_of(path)}: got scales of {len(found)} rows, expected {self.count}; train the bank "
                f"again"
            )
        scales: npt.NDArray[np.float32] = found.to_numpy()
        return scales


@lru_cache(maxsize=1)
def _opened(store_uri: str, record: BankVersion, memory_gb: float) -> Bank:
    store = Store.open(store_uri)
    files = read_version(store, record.name, record.version, BankVersion)[1]
    bank = Bank(store, record.name, record.version, Search.of(record), files, memory_gb=memory_gb)
    rows = sum(segment.count for segment in bank.segments)
    if rows - record.tiles * record.removed != record.rows:
        raise SchemaError(
            f"bank {record.name!r} version {record.version}: got segments of {rows} rows, {record.removed} "
            f"images removed, expected {record.rows}"
        )
    _ = bank.scales
    if len(bank.loads()) == 1:
        for segment in bank.segments:
            segment.check()
    return bank
