"""Lay a bank's vectors out as segments: as they come, cell by cell, or as centres in place of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.errors import StoreError
from dn2.neighbors.choice import Choice
from dn2.neighbors.segments import write_segment
from dn2.store.cache import cache_dir
from dn2.store.storage import Store

_BLOCK = 10_000  # rows written at a time


@contextmanager
def gathered(shape: tuple[int, int], blocks: Iterable[npt.NDArray[np.float16]]) -> Iterator[npt.NDArray[np.float16]]:
    """Yield blocks of rows as one memory-mapped (N, D) float16 array, for as long as it is needed.

    It lies in a file of the cache folder that has no name: it is gone when the process ends, however that ends.

    Raises:
        StoreError: the cache folder cannot be written.
    """
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block, "<f2").data)
            file.flush()
            yield np.memmap(file, "<f2", "c", shape=shape) if shape[0] else np.empty(shape, np.float16)
    except OSError as error:
        raise StoreError(
            f"cache folder {folder}: cannot write {shape[0]} vectors of length {shape[1]} ({error}); make room, or set "
            f"DN2_CACHE_DIR to another folder"
        ) from error


def lay_out(
    store: Store,
    bank: str,
    vectors: npt.NDArray[np.float16],
    table: Any,
    choice: Choice,
    *,
    name: str,
    segment_rows: int | None,
    tiles: int,
    footer: dict[str, Any],
) -> list[str]:
    """Write the segments of a bank, and return their names.

    Args:
        store: where to.
        bank: the bank's name.
        vectors: (N, D) float16, prepared for its metric.
        table: Arrow table with the columns of BANK_ROWS, in the same order.
        choice: the index.
        name: what the segments' names begin with: a fingerprint of all that they depend on.
        segment_rows: images of a segment at most; by default there is one.
        tiles: rows that stand for an image: they come one after the other, and stay together.
        footer: provenance.

    Raises:
        StoreError: the store cannot be written.
    """
    index, images = choice.index, len(vectors) // tiles
    count = 1 if index.centres else -(-images // (segment_rows or images))
    bounds = [images * number // count * tiles for number in range(count + 1)]
    names = [name if count == 1 else f"{name}-{number:04d}" for number in range(count)]
    for one, low, high in zip(names, bounds[:-1], bounds[1:], strict=True):
        path, part = layout.bank_segment(bank, one), vectors[low:high]
        if store.exists(f"{path}.parquet"):
            continue
        laid = index.laid(part, min(choice.nlist, len(part)))
        rows, shape = table.slice(low, high - low).take(laid.rows), (len(laid.rows), vectors.shape[1])
        if laid.centres is None:
            blocks = (part[laid.rows[start : start + _BLOCK]] for start in range(0, len(laid.rows), _BLOCK))
            write_segment(store, path, rows, shape, blocks, footer, cells=laid.cells)
        else:
            halves = _of_the_metric(laid.centres, footer["metric"])
            write_segment(store, path, rows, shape, [halves], {**footer, "centres": True})
    return names


def _of_the_metric(centres: npt.NDArray[np.float32], metric: str) -> npt.NDArray[np.float16]:
    """Return centres as float16; of length 1 where all that they are compared with is."""
    if metric == "cosine":
        centres = centres / np.linalg.norm(centres, axis=1, keepdims=True).clip(1e-12)
    return centres.astype(np.float16)
