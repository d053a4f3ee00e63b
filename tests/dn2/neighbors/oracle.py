"""Nearest neighbours as a textbook has them: every distance, in float64, sorted."""

from __future__ import annotations

from typing import Any

import numpy as np

from dn2.neighbors.bank import Bank, prepared
from dn2.neighbors.products import Neighbors
from dn2.neighbors.segments import keys
from dn2.store.tables import concat


def brute_force(
    queries: np.ndarray,
    bank: np.ndarray,
    k: int,
    query_keys: np.ndarray | None = None,
    bank_keys: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (Q, k) rows and (Q, k) float32 squared distances, nearest first, equal ones in row order."""
    rows, distances = [], []
    for number, query in enumerate(queries.astype(np.float64)):
        exact = ((query - bank.astype(np.float64)) ** 2).sum(1).astype(np.float32)
        left = [row for row in range(len(bank)) if not _same(number, row, query_keys, bank_keys)]
        nearest = sorted(left, key=lambda row: (exact[row], row))[:k]
        rows.append(nearest)
        distances.append(exact[nearest])
    return np.array(rows).reshape(len(queries), k), np.array(distances).reshape(len(queries), k)


def _same(query: int, row: int, query_keys: np.ndarray | None, bank_keys: np.ndarray | None) -> bool:
    if query_keys is None or bank_keys is None:
        return False
    pairs = zip(query_keys[:, query], bank_keys[:, row], strict=True)
    return any(mine != -1 and mine == theirs for mine, theirs in pairs)


def nearest_of(bank: Bank, vectors: np.ndarray, image_ids: list[str], contents: list[str] | None = None) -> Neighbors:
    """Return the k nearest bank rows of images that a bank may know, by id or bytes, as scoring finds them."""
    own = np.stack([keys(image_ids), keys(contents or image_ids)])
    return bank.complete(bank.nearest(prepared(vectors, bank.search.metric), own, memory_mb=64))


def vectors_of(bank: Bank) -> np.ndarray:
    """Return (N, D) float16 of all segments."""
    return np.concatenate([segment.vectors for segment in bank.segments])


def rows_of(bank: Bank) -> Any:
    """Return the Arrow table of all segments, in the order of their vectors."""
    return concat([segment.table for segment in bank.segments])
