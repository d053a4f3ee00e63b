"""Read and decode images ahead of the network: in order, by several threads, in bounded memory."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dn2.config import EmbedConfig
from dn2.images.decoding import Preprocessing, UndecodableError, decode
from dn2.sources.source import NoBytesError, Source

_LOCAL_THREADS, _REMOTE_THREADS = max(2, os.cpu_count() or 2), 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """One row of a shard, before it is read.

    Attributes:
        row: its place in the shard.
        uri: where its file lies.
        version: of its file when it was listed; some sources need it to find the bytes.
        size: bytes it had when it was listed; -1 if the source did not tell.
        present: false for a tombstone, which has no file.
        absent: true for a file that was not there when the table that lists it was read.
    """

    row: int
    uri: str
    version: str
    size: int
    present: bool
    absent: bool = False


@dataclass(slots=True)
class Item:
    """What became of one row: pixels, or a reason why there are none.

    Attributes:
        row: its place in the shard.
        pixels: (3, crop, crop) float32.
        thumbnail: JPEG bytes.
        width: of the picture as shown, in pixels.
        height: of the picture as shown, in pixels.
        sha256: of the file's bytes.
        size: of the file, in bytes.
        reason: why the image was rejected.
    """

    row: int
    pixels: npt.NDArray[np.float32] | None = None
    thumbnail: bytes | None = None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    size: int = 0
    reason: str | None = None


def read_ahead(
    shards: Iterable[tuple[int, list[Wanted]]],
    source: Source,
    preprocessing: Preprocessing,
    config: EmbedConfig,
) -> Iterator[tuple[int, list[Item], str]]:
    """Yield the items of numbered shards, batch by batch and in order, while the next ones are read.

    A batch never holds items of two shards. Two batches are read ahead of the one in the network, across the border of
    shards too: memory is bounded by `batch_size`, `decode_threads` and `max_pixels`.

    Yields:
        the shard's number, at most `batch_size` items, and what the last batch waited for: "reading" or "network".

    Raises:
        SourceError: a file could not be read for a reason that may pass.
    """
    threads = config.decode_threads or (_LOCAL_THREADS if source.is_local else _REMOTE_THREADS)
    jobs = ((number, wanted) for number, rows in shards for wanted in rows)
    window: deque[tuple[int, Future[Item]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="dn2-read")

    def fill() -> None:
        for number, wanted in itertools.islice(jobs, 2 * config.batch_size + threads - len(window)):
            window.append((number, pool.submit(_read, source, wanted, preprocessing, config)))

    try:
        fill()
        networked = 0.0
        while window:
            began = time.perf_counter()
            shard = window[0][0]
            batch: list[Item] = []
            while window and window[0][0] == shard and len(batch) < config.batch_size:
                batch.append(window.popleft()[1].result())
            fill()
            waited = time.perf_counter() - began
            yield shard, batch, "reading" if waited > networked else "network"
            networked = time.perf_counter() - began - waited
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read(source: Source, wanted: Wanted, preprocessing: Preprocessing, config: EmbedConfig) -> Item:
    if not wanted.present:
        return Item(wanted.row, reason="tombstone: the image vanished from its source")
    if wanted.absent:
        return Item(wanted.row, reason="not found when the table was listed")
    try:
        data = source.read(wanted.uri, wanted.version)
    except NoBytesError as error:
        return Item(wanted.row, reason=str(error))
    item = Item(wanted.row, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    if wanted.size not in (-1, len(data)):
        item.reason = (
            f"changed since it was listed: got {len(data)} bytes, expected {wanted.size}; run the command again"
        )
        return item
    try:
        decoded = decode(data, preprocessing, max_pixels=config.max_pixels, thumbnail_px=config.thumbnail_px)
    except UndecodableError as error:
        item.reason = str(error)
        return item
    item.pixels, item.thumbnail = decoded.pixels, decoded.thumbnail
    item.width, item.height = decoded.width, decoded.height
    return item
