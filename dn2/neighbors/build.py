"""From a bank's vectors to what is searched: cells for approximate search, or centres in place of the rows."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dn2.neighbors import exact, ivf
from dn2.neighbors.ivf import Cells
from dn2.neighbors.kmeans import assign, centroids
from dn2.neighbors.products import Rows, tensor

SAMPLE_ROWS = 256_000  # rows that k-means sees at most: 1.3 GB of float32 for embeddings of length 1280
PER_CELL = 50  # rows of each cell that it sees, if there are so many
ITERATIONS = 16
_SMALLEST_CELL = 200  # rows of a cell: below, a product per cell costs more than it saves
_FAR = slice(16, 24)  # see `nprobe_for`


def usual_nlist(rows: int) -> int:
    """Return how many cells a bank gets unless told: four times the root of its rows, and none below 200 rows."""
    return max(1, min(round(4 * math.sqrt(rows)), rows // _SMALLEST_CELL))


def sampled(vectors: npt.NDArray[np.float16], count: int) -> npt.NDArray[np.float32]:
    """Return (M, D) float32: at most `count` rows, drawn without replacement, the same in every run."""
    rows = np.arange(len(vectors))
    if len(vectors) > count:
        rows = np.sort(np.random.default_rng(0).choice(len(vectors), count, replace=False))
    found = np.empty((len(rows), vectors.shape[1]), np.float32)
    for low in range(0, len(rows), 10_000):
        found[low : low + 10_000] = tensor(vectors[rows[low : low + 10_000]]).float().numpy()
    return found


def divide(vectors: npt.NDArray[np.float16], nlist: int) -> tuple[Cells, npt.NDArray[np.int64]]:
    """Divide rows into cells.

    Args:
        vectors: (N, D) float16; may be memory-mapped, they are read twice.
        nlist: how many cells, at most N.

    Returns:
        the cells, and (N,) int64: the rows in the order in which they must lie, cell by cell.
    """
    rows = min(SAMPLE_ROWS, PER_CELL * nlist)
    found = centroids(sampled(vectors, max(rows, nlist)), nlist, iterations=ITERATIONS)
    cell = assign(vectors, found)[0]
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=nlist))]).astype(np.int64)
    return Cells(found, starts), np.argsort(cell, kind="stable")


def centres_of(vectors: npt.NDArray[np.float16], count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return (C, D) float32 centres of k-means, and (C,) int64: the row that lies nearest to each.

    Args:
        vectors: (N, D) float16; may be memory-mapped.
        count: how many at most; centres that no row is nearest to are left out.
    """
    sample = sampled(vectors, max(SAMPLE_ROWS, count))
    found = centroids(sample, min(count, len(vectors)), iterations=ITERATIONS)
    centre, distances = assign(vectors, found)
    order = np.lexsort((distances, centre))
    first = order[np.flatnonzero(np.diff(centre[order], prepend=-1))]
    return found[centre[first]], first


def nprobe_for(
    queries: npt.NDArray[np.float16],
    rows: Rows,
    cells: Cells,
    k: int,
    recall: float,
    *,
    query_keys: npt.NDArray[np.int64] | None = None,
    memory_mb: int = 512,
) -> int:
    """Return how many cells to visit so that a share `recall` of the k nearest rows is found.

    It is measured on normal images that are not in the bank. If the bank has several pictures of one thing (a burst, a
    part seen twice), these have too, and find the pictures of the same thing in the very first cells; a new thing does
    not. So the neighbours from the 17th to the 24th must be found as surely as the k nearest: what else is like the
    image, once its own thing is used up.

    Args:
        queries: (Q, D) float16.
        rows: of the bank, cell by cell.
        cells: of the bank.
        k: neighbours.
        recall: share of true neighbours to be found.
        query_keys: (M, Q) int64; rows that share a key with a query are passed over.
        memory_mb: working memory, in MiB.
    """
    deep = min(max(k, _FAR.stop), len(rows.vectors))
    found = exact.at_most(queries, rows, deep, query_keys=query_keys, memory_mb=memory_mb).rows
    rank = np.where(found >= 0, ivf.ranks(queries, cells, np.maximum(found, 0)), 0)
    needed = [np.quantile(part, recall, method="higher") for part in (rank[:, :k], rank[:, _FAR]) if part.size]
    return int(max(needed)) + 1
