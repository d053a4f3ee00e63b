"""Approximate nearest neighbours: rows lie cell by cell, and a query is compared with those of the nearest cells.

The cells are those of k-means (an inverted file, IVF). All queries of a batch that visit a cell are compared with its
rows in one matrix product, so each cell is read once for a batch and the arithmetic runs at the speed of large
products. Inside the visited cells nothing is approximate: the nearest of their rows are found, and their distances are
exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from dn2.neighbors import exact
from dn2.neighbors.products import (
    SPARE,
    Candidates,
    Neighbors,
    Products,
    Rows,
    Visit,
    centred,
    nearest,
    tensor,
    within,
)

_ROWS = 4096  # of a cell visited at a time
_COARSE = 1024  # queries compared with the centroids at a time
_RANKED = 100  # and ranked at a time
_SORTED = 64  # torch's top-k is several times faster where it keeps no more than one of so many


@dataclass(frozen=True, slots=True)
class Cells:
    """Where the rows of each cell lie.

    Attributes:
        centroids: (C, D) float32.
        starts: (C + 1,) int64: cell c has the rows from starts[c] to before starts[c + 1].
    """

    centroids: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]


def search(
    queries: npt.NDArray[np.float16],
    rows: Rows,
    cells: Cells,
    k: int,
    *,
    nprobe: int,
    query_keys: npt.NDArray[np.int64] | None = None,
    memory_mb: int = 512,
    device: str = "cpu",
) -> Neighbors:
    """Return the k nearest rows of the `nprobe` nearest cells of each query; all rows where those have fewer than k.

    Args:
        queries: (Q, D) float16.
        rows: the bank, cell by cell.
        cells: where they lie.
        k: how many neighbours.
        nprobe: cells visited.
        query_keys: (M, Q) int64; a row that shares one of the M keys with a query is none of its neighbours.
        memory_mb: bound of the working memory, in MiB. Does not change the result.
        device: where the products are computed.
    """
    nprobe, width = min(nprobe, len(cells.centroids)), k + SPARE
    # a query costs: itself, its products with a cell, and its candidates in each cell
    each = 4 * queries.shape[1] + 4 * _ROWS + 12 * nprobe * width
    step = max(1, int(memory_mb * 2**20 / each))
    parts = []
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        keys = None if query_keys is None else query_keys[:, block]
        parts.append(_search(queries[block], keys, rows, cells, k, nprobe, device))
    found = Neighbors(
        np.concatenate([np.empty((0, k), np.int64), *(part.rows for part in parts)]),
        np.concatenate([np.empty((0, k), np.float32), *(part.distances for part in parts)]),
    )
    short = np.flatnonzero(found.rows[:, -1] == -1)
    if len(short):
        keys = None if query_keys is None else query_keys[:, short]
        whole = exact.at_most(queries[short], rows, k, query_keys=keys, memory_mb=memory_mb, device=device)
        found.rows[short], found.distances[short] = whole.rows, whole.distances
    return found


def ranks(queries: npt.NDArray[np.float16], cells: Cells, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (Q, M) int64: how many cells lie as near to each query as that of each of (Q, M) rows, or nearer.

    A search that visits more cells than that finds the row.
    """
    cell = np.searchsorted(cells.starts, rows, side="right") - 1
    found = np.empty(rows.shape, np.int64)
    for low in range(0, len(queries), _RANKED):
        block = slice(low, low + _RANKED)
        distances = _to_centroids(tensor(queries[block]).float(), cells, "cpu").numpy()
        own = np.take_along_axis(distances, cell[block], 1)
        found[block] = (distances[:, None, :] <= own[:, :, None]).sum(2) - 1  # which of equally near ones, none knows
    return found


def _to_centroids(queries: torch.Tensor, cells: Cells, device: str) -> torch.Tensor:
    """Return (Q, C) float32 squared distances of (Q, D) queries, less one number for each query."""
    centroids, middle = centred(torch.from_numpy(cells.centroids).to(device))
    return torch.addmm((centroids * centroids).sum(1), queries.to(device) - middle, centroids.T, alpha=-2)


def _search(
    queries: npt.NDArray[np.float16],
    query_keys: npt.NDArray[np.int64] | None,
    rows: Rows,
    cells: Cells,
    k: int,
    nprobe: int,
    device: str,
) -> Neighbors:
    floats = tensor(queries).float()
    probed = torch.cat(
        [
            _to_centroids(part, cells, device).topk(nprobe, dim=1, largest=False, sorted=False).indices.cpu()
            for part in torch.split(floats, _COARSE)
        ]
    )
    every = torch.arange(probed.numel())
    visits, places = _visits(every // nprobe, probed.reshape(-1), cells)
    products = Products(queries, query_keys, rows, visits, device)
    candidates, edges = _candidates(products, places, probed.shape, k)
    found, unsure = nearest(products, candidates, k)
    if len(unsure):
        keys = None if query_keys is None else query_keys[:, unsure]
        limits = found.distances[unsure, -1] + candidates.slack[unsure]
        crowded = candidates.products[unsure, -1] <= limits  # not even all that was kept is among the candidates
        again = (edges[unsure] + products.norms[unsure, None] <= limits[:, None]) | crowded[:, None]
        owner, place = (torch.from_numpy(index) for index in np.nonzero(again))
        visits, _ = _visits(owner, probed[torch.from_numpy(unsure)[owner], place], cells)
        sure = within(Products(queries[unsure], keys, rows, visits, device), limits, k)
        best = _united(Neighbors(found.rows[unsure], found.distances[unsure]), sure, k)
        found.rows[unsure], found.distances[unsure] = best.rows, best.distances
    return found


def _united(one: Neighbors, other: Neighbors, k: int) -> Neighbors:
    """Return the k nearest of two lists that may have rows in common."""
    rows, distances = (
        np.concatenate([getattr(one, name), getattr(other, name)], axis=1) for name in ("rows", "distances")
    )
    order = np.lexsort((rows, distances), axis=1)
    rows, distances = np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1)
    distances[:, 1:][rows[:, 1:] == rows[:, :-1]] = np.inf
    order = np.lexsort((rows, distances), axis=1)[:, :k]
    return Neighbors(np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1))


def _visits(owner: torch.Tensor, cell: torch.Tensor, cells: Cells) -> tuple[list[Visit], list[torch.Tensor]]:
    """Return the visits of (P,) queries to (P,) cells, all queries of a cell together, and their places among the P.

    The visits to a large cell have the same places, and come one after the other.
    """
    visited, order = cell.sort(stable=True)
    bounds = torch.searchsorted(visited, torch.arange(len(cells.centroids) + 1)).tolist()
    owner = owner[order]
    visits, places = [], []
    for number, (first, last) in enumerate(pairwise(bounds)):
        low, high = int(cells.starts[number]), int(cells.starts[number + 1])
        if first < last:
            mine = order[first:last]
            for start in range(low, high, _ROWS):
                visits.append(Visit(start, min(start + _ROWS, high), owner[first:last]))
                places.append(mine)
    return visits, places


def _candidates(
    products: Products, places: list[torch.Tensor], probed: tuple[int, ...], k: int
) -> tuple[Candidates, npt.NDArray[np.float32]]:
    """Pick the rows with the smallest products: of each cell a few, of all cells k and some to spare.

    Returns:
        the candidates, and (Q, P) float32: the product below which no other row of a cell lies.
    """
    count, nprobe = probed
    width = k + SPARE
    best = torch.full((count * nprobe, width), torch.inf)
    rows = torch.full((count * nprobe, width), -1, dtype=torch.int64)
    edges = torch.full((count * nprobe,), torch.inf)
    before = None
    for place, (visit, block) in zip(places, products, strict=True):
        keep = min(block.shape[1], max(k + 1, min(width, block.shape[1] // _SORTED)))
        found, at = (part.cpu() for part in block.topk(keep, dim=1, largest=False))
        at += visit.low
        if keep < block.shape[1]:
            edges[place] = torch.minimum(edges[place], found[:, -1])
        if place is before:  # another part of the same cell
            found, order = torch.cat([best[place], found], 1).topk(width, dim=1, largest=False)
            at = torch.cat([rows[place], at], 1).gather(1, order)
            keep = width
        best[place, :keep], rows[place, :keep], before = found, at, place
    rows[torch.isinf(best)] = -1
    best, order = best.view(count, -1).topk(width, dim=1, largest=False)
    slack = products.slack()
    values = best.numpy().astype(np.float64) + products.norms[:, None]
    # what lies beyond: the first row that was not kept of a cell, and the last that is kept of all
    beyond = edges.view(count, nprobe)
    limit = np.minimum(beyond.amin(1).numpy().astype(np.float64) + products.norms, values[:, -1]) - slack
    return Candidates(rows.view(count, -1).gather(1, order).numpy(), values, limit, slack), beyond.numpy()
