"""The vectors of a bank segment: one .npy file of float16, written as a stream, memory-mapped when it is read."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dn2.errors import SchemaError
from dn2.store.cache import local_copy
from dn2.store.storage import Store

_CHUNK = 16 * 2**20  # bytes read at a time for the checksum


def write_vectors(store: Store, path: str, shape: tuple[int, int], blocks: Iterable[npt.NDArray[np.float16]]) -> int:
    """Write blocks of rows, (M, D) float16, as one array of `shape` (N, D); return the file's CRC-32.

    Raises:
        StoreError: the store cannot be written.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
    checksum = zlib.crc32(header.getvalue())
    with store.create(path) as temporary, temporary.open("wb") as file:
        file.write(header.getvalue())
        for block in blocks:
            content = np.ascontiguousarray(block, "<f2").tobytes()
            checksum = zlib.crc32(content, checksum)
            file.write(content)
    return checksum


def load_vectors(store: Store, path: str, checksum: int) -> npt.NDArray[np.float16]:
    """Return the memory-mapped (N, D) float16 of a file; a remote one is copied to the cache folder once.

    Raises:
        NotFoundError: there is no such file.
        SchemaError: it is damaged.
        StoreError: it cannot be read.
    """
    file = local_copy(store, path)
    damaged = SchemaError(
        f"{store.uri_of(path)}: got a damaged or missing file, expected vectors with CRC-32 {checksum:08x}; "
        f"delete the bank's folder and train it again"
    )
    try:
        if _crc32(file) != checksum:
            raise damaged
        vectors: npt.NDArray[np.float16] = np.load(file, mmap_mode="c")  # what is written stays in memory
    except (ValueError, EOFError, OSError) as error:
        raise damaged from error
    return vectors


def _crc32(file: Path) -> int:
    checksum = 0
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
