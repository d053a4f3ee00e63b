"""The rows that `benchmarks.neighbors` searches, and the index of cells over them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fashion import FOLDER
from dn2.neighbors.build import divide, nprobe_for, usual_nlist
from dn2.neighbors.ivf import Cells
from dn2.neighbors.products import Rows, tensor

ROWS = int(os.environ.get("DN2_BENCH_ROWS", 1_000_000))  # fewer of them, to try the benchmark itself
QUERIES = int(os.environ.get("DN2_BENCH_QUERIES", 10_000))  # and of these
K, RECALL = 2, 0.99
CHUNK = 10_000  # rows made or moved at a time
HELD_OUT = 1_000  # rows made like the others and not searched: they choose nprobe
MIXED, NOISE = 0.3, 0.15  # see `_made`
NAME = "neighbors-1m" if ROWS == 1_000_000 else f"neighbors-{ROWS}"
ROWS_FILE, CELLS_FILE = FOLDER / f"{NAME}.npy", FOLDER / f"{NAME}-cells.npy"  # 2.6 GB each
QUERIES_FILE, BUILD_FILE = FOLDER / f"{NAME}-queries.npy", FOLDER / f"{NAME}-build.npz"
_STARTED = time.perf_counter()


@dataclass(frozen=True, slots=True)
class Built:
    """An index of cells.

    Attributes:
        cells: of the rows.
        order: (N,) int64, the row that lies at each place.
        nprobe: cells to visit.
        seconds: that it took to make.
    """

    cells: Cells
    order: np.ndarray
    nprobe: int
    seconds: float

    def save(self, path: Path) -> None:
        """Write it to an .npz file."""
        cells = {"centroids": self.cells.centroids, "starts": self.cells.starts}
        np.savez(path, order=self.order, nprobe=self.nprobe, seconds=self.seconds, **cells)

    @classmethod
    def load(cls, path: Path) -> Built:
        """Return what was written to an .npz file."""
        with np.load(path) as file:
            cells = Cells(file["centroids"], file["starts"])
            return cls(cells, file["order"], int(file["nprobe"]), float(file["seconds"]))


def say(text: str) -> None:
    """Print progress."""
    print(f"{time.perf_counter() - _STARTED:6.0f} s  {text}", file=sys.stderr, flush=True)


def mapped(path: Path) -> np.ndarray:
    """Return the memory-mapped array of a file, all of which has been read once."""
    vectors = np.load(path, mmap_mode="c")
    vectors[:, 0].max()  # a row is shorter than a page
    return vectors


def made_rows(train: np.ndarray) -> np.ndarray:
    """Return the (ROWS + HELD_OUT, D) float16 rows, memory-mapped; made the first time, read afterwards."""
    shape = (ROWS + HELD_OUT, train.shape[1])
    if ROWS_FILE.exists() and np.load(ROWS_FILE, mmap_mode="r").shape != shape:
        ROWS_FILE.unlink()
    if not ROWS_FILE.exists():
        say(f"making {shape[0]:,} rows")
        write_array(ROWS_FILE, shape, _made(train, shape[0]))
    return mapped(ROWS_FILE)


def _made(train: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """Yield rows (1 - w) a + w b + 0.15 s e: between two training images, mostly the first, with some noise.

    a and b are random training images, w is uniform below 0.3, s the standard deviation of each dimension, e normal.
    """
    random = np.random.default_rng(0)
    spread = NOISE * train.std(axis=0, dtype=np.float32)
    for low in range(0, count, CHUNK):
        size = min(CHUNK, count - low)
        first, second = (tensor(train[random.integers(0, len(train), size)]).float().numpy() for _ in range(2))
        weight = random.uniform(0, MIXED, (size, 1)).astype(np.float32)
        noise = random.standard_normal((size, train.shape[1]), np.float32)
        yield tensor((1 - weight) * first + weight * second + spread * noise).half().numpy()


def write_array(path: Path, shape: tuple[int, int], blocks: Iterator[np.ndarray]) -> None:
    """Write blocks of rows as one float16 array; the file is there when it is whole."""
    temporary = path.with_suffix(".part")
    array = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
    low = 0
    for block in blocks:
        array[low : low + len(block)] = block
        low += len(block)
    array.flush()  # now, and not while something else is timed
    temporary.replace(path)


def build(vectors: np.ndarray, held_out: np.ndarray, path: Path) -> Built:
    """Make cells of rows, write the rows cell by cell to a file, choose nprobe with rows held out; all of it timed."""
    began = time.perf_counter()
    cells, order = divide(vectors, usual_nlist(len(vectors)))
    write_array(path, vectors.shape, (vectors[order[low : low + CHUNK]] for low in range(0, len(order), CHUNK)))
    nprobe = nprobe_for(held_out, Rows(np.load(path, mmap_mode="c")), cells, K, RECALL)
    return Built(cells, order, nprobe, time.perf_counter() - began)


def recall_of(truth: np.ndarray, found: np.ndarray) -> float:
    """Return the share of (Q, K) true nearest rows that are among (Q, K) found ones."""
    return float((truth[:, :, None] == found[:, None, :]).any(axis=2).mean())
