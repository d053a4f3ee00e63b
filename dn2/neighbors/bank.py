"""A feature bank: normal embeddings in immutable segments, listed by an immutable version file, named by a pointer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dn2.errors import BankError, SchemaError
from dn2.neighbors.choice import needed_gb
from dn2.neighbors.products import Neighbors, tensor
from dn2.neighbors.segments import OWN, Segment, keys, merged
from dn2.neighbors.versions import read_version
from dn2.records import BankFiles, BankVersion
from dn2.store import layout
from dn2.store.schemas import BANK_ROWS, CALIBRATION
from dn2.store.storage import Store
from dn2.store.tables import concat, iter_rows, read_table


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


def calibration_scores(store: Store, record: BankVersion) -> npt.NDArray[np.float32]:
    """Return (n,) float32 scores of normal images that did not help to make them, ascending.

    Raises:
        NotFoundError: the version's file of them is missing.
        SchemaError: it is damaged.
    """
    scores = read_table(store, layout.bank_calibration(record.name, record.version), CALIBRATION, ["score"])["score"]
    ascending: npt.NDArray[np.float32] = np.sort(scores.to_numpy())
    return ascending


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


class Bank:
    """An opened bank version, ready to be searched.

    If its segments do not fit the memory together, only one is open at a time.

    Attributes:
        record: its version.
        segments: in the order of the version's rows.
        held: segments of images that are not among the rows, but calibrate the bank.
        calibration: (n,) float32 scores of normal images that did not help to make them, ascending.
    """

    def __init__(self, record: BankVersion, store: Store, files: BankFiles, *, memory_gb: float) -> None:
        self.record, self._store, self._memory_gb = record, store, memory_gb
        self._alone = threading.Lock()
        removed = frozenset(files.removed_ids)
        self.segments, self.held = (
            [Segment(store, layout.bank_segment(record.name, name), removed) for name in names]
            for names in (files.segments, files.held or ())
        )
        self._first = np.concatenate([[0], np.cumsum([segment.count for segment in self.segments])])
        for segment in self.segments:
            needed = self._needed(segment)
            if needed > memory_gb:
                raise BankError(
                    f"bank {record.name!r}: a segment of {segment.count} rows of length {record.dim} needs "
                    f"{needed:.2f} GiB, expected at most bank_memory_gb = {memory_gb:g}; raise the setting, or train "
                    f"the bank again with a smaller segment_rows"
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
        return needed_gb(segment.count, self.record.dim, self.record.nlist if segment.divided else 0)

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
    def vectors(self) -> npt.NDArray[np.float16]:
        """(N, D) float16, memory-mapped if there is one segment; those of removed images too."""
        arrays = [segment.vectors for segment in self.segments]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    @property
    def rows(self) -> Any:
        """Arrow table with one row for each vector, in the same order."""
        return concat([segment.table for segment in self.segments])

    def search(
        self, vectors: npt.NDArray[np.float16], image_ids: list[str], contents: list[str], *, memory_mb: int
    ) -> Neighbors:
        """Return the k nearest bank rows of each image, never a row that is the image itself, by id or content.

        Args:
            vectors: (Q, D) float16 embeddings as stored.
            image_ids: of the Q images.
            contents: sha256 of the Q images' bytes.
            memory_mb: working memory, in MiB.

        Raises:
            BankError: fewer than k rows are left for an image once its own are passed over.
        """
        own = np.stack([keys(image_ids), keys(contents)])
        return self.complete(self.nearest(prepared(vectors, self.record.metric), own, memory_mb=memory_mb))

    def nearest(
        self,
        queries: npt.NDArray[np.float16],
        query_keys: npt.NDArray[np.int64],
        *,
        memory_mb: int,
        columns: tuple[str, ...] = OWN,
        among: Sequence[int] | None = None,
        exact: bool = False,
    ) -> Neighbors:
        """Return the k nearest rows of all segments or some, -1 where there are fewer.

        Args:
            queries: (Q, D) float16, prepared for the metric.
            query_keys: (M, Q) int64 keys of M columns.
            memory_mb: working memory, in MiB.
            columns: which; rows with the same key in one of them are passed over.
            among: numbers of segments; by default all.
            exact: search all rows, whatever the index.
        """
        found = []
        for number in range(len(self.segments)) if among is None else among:
            with self._open(number) as segment:
                mine = segment.search(
                    queries,
                    self.record.k,
                    nprobe=0 if exact else self.record.nprobe,
                    query_keys=query_keys,
                    columns=columns,
                    memory_mb=memory_mb,
                )
            found.append((int(self._first[number]), mine))
        return merged(found, self.record.k)

    def complete(self, found: Neighbors) -> Neighbors:
        """Return what was found if it is k rows for every query.

        Raises:
            BankError: it is not.
        """
        if (found.rows < 0).any():
            raise BankError(
                f"k: got {self.record.k}, but fewer bank rows are left for a query once its own are passed over"
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
    def calibration(self) -> npt.NDArray[np.float32]:
        """The calibration scores."""
        return calibration_scores(self._store, self.record)


@lru_cache(maxsize=1)
def _opened(store_uri: str, record: BankVersion, memory_gb: float) -> Bank:
    store = Store.open(store_uri)
    files = read_version(store, record.name, record.version, BankVersion)[1]
    bank = Bank(record, store, files, memory_gb=memory_gb)
    rows = sum(segment.count for segment in bank.segments)
    if rows - record.tiles * record.removed != record.rows:
        raise SchemaError(
            f"bank {record.name!r} version {record.version}: got segments of {rows} rows, {record.removed} "
            f"images removed, expected {record.rows}"
        )
    if len(bank.loads()) == 1:
        for segment in bank.segments:
            segment.check()
    return bank
