"""A feature bank: normal embeddings in immutable segments, listed by an immutable version file, named by a pointer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import cast

import numpy as np
import numpy.typing as npt

from dn2.errors import BankError, SchemaError
from dn2.neighbors.exact import Neighbors, search
from dn2.neighbors.vectors import load_vectors
from dn2.neighbors.versions import read_version
from dn2.records import BankVersion
from dn2.store import layout
from dn2.store.schemas import BANK_ROWS, CALIBRATION, Schema
from dn2.store.storage import Store
from dn2.store.tables import concat, iter_rows, read_config, read_table

_BYTES_PER_ROW = 300  # ids, URI and keys of one row in memory, rounded up


def keys(values: Iterable[str | None]) -> npt.NDArray[np.int64]:
    """Return (N,) int64 that are equal where the texts are, and -1 where there is none."""
    numbers = (
        -1 if value is None else int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), signed=True)
        for value in values
    )
    return np.fromiter(numbers, np.int64)


def prepared(vectors: npt.NDArray[np.float16], metric: str) -> npt.NDArray[np.float16]:
    """Return (N, D) float16 embeddings as a bank of this metric holds them: as they are, or of length 1."""
    if metric == "l2":
        return vectors
    wide = vectors.astype(np.float32)
    return cast(
        "npt.NDArray[np.float16]",
        (wide / np.linalg.norm(wide, axis=1, keepdims=True).clip(1e-12)).astype(np.float16),
    )


def check_memory(rows: int, dim: int, budget_gb: float) -> None:
    """Refuse a bank that would not fit.

    Raises:
        BankError: its vectors and ids need more than `budget_gb`.
    """
    needed = rows * (2 * dim + _BYTES_PER_ROW) / 2**30
    if needed > budget_gb:
        raise BankError(
            f"bank of {rows} rows of length {dim}: needs {needed:.2f} GiB, expected at most bank_memory_gb = "
            f"{budget_gb:g}; raise the setting or train with fewer images"
        )


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
    for segment in read_version(store, record.name, record.version)["segments"]:
        path = f"{layout.bank_segment(record.name, segment)}.parquet"
        for rows in iter_rows(store, path, BANK_ROWS, ["image_id", "shard"]):
            found |= {name: rows["shard"][row] for row, name in enumerate(rows["image_id"]) if name in image_ids}
    return found


class Bank:
    """An opened bank version, ready to be searched.

    Attributes:
        record: its version.
        vectors: (N, D) float16, memory-mapped.
        rows: Arrow table with one row for each vector, in the same order of the same segment.
        calibration: (n,) float32 scores of normal images that did not help to make them, ascending.
    """

    def __init__(self, record: BankVersion, store: Store) -> None:
        self.record = record
        segments = read_version(store, record.name, record.version)["segments"]
        paths = [layout.bank_segment(record.name, segment) for segment in segments]
        arrays = [segment_vectors(store, path) for path in paths]
        self.vectors: npt.NDArray[np.float16] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        self.rows = concat([read_table(store, f"{path}.parquet", BANK_ROWS) for path in paths])
        if self.vectors.shape != (record.rows, record.dim) or self.rows.num_rows != record.rows:
            raise SchemaError(
                f"bank {record.name!r} version {record.version}: got {self.vectors.shape} vectors and "
                f"{self.rows.num_rows} ids, expected {(record.rows, record.dim)}"
            )
        self.calibration = calibration_scores(store, record)
        self._keys = np.stack([keys(self.rows[name].to_pylist()) for name in ("image_id", "content_sha256")])

    @classmethod
    def open(cls, store: Store, record: BankVersion, *, memory_gb: float) -> Bank:
        """Return the opened bank; the last one is kept for the next caller in this process.

        Raises:
            BankError: it does not fit `memory_gb`.
            NotFoundError: one of its files is missing.
        """
        check_memory(record.rows, record.dim, memory_gb)
        return _opened(store.uri, record)

    def search(
        self,
        vectors: npt.NDArray[np.float16],
        image_ids: list[str],
        contents: list[str],
        *,
        memory_mb: int,
    ) -> Neighbors:
        """Return the k nearest bank rows of each image, never a row that is the image itself, by id or content.

        Args:
            vectors: (Q, D) float16 embeddings as stored.
            image_ids: of the Q images.
            contents: sha256 of the Q images' bytes.
            memory_mb: working memory, in MiB.
        """
        query_keys = np.stack([keys(image_ids), keys(contents)])
        return search(
            prepared(vectors, self.record.metric),
            self.vectors,
            self.record.k,
            query_keys=query_keys,
            bank_keys=self._keys,
            memory_mb=memory_mb,
        )


@lru_cache(maxsize=1)
def _opened(store_uri: str, record: BankVersion) -> Bank:
    return Bank(record, Store.open(store_uri))
