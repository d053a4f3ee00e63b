"""Exact nearest neighbours: every query is compared with every row, block by block."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from dn2.errors import BankError
from dn2.neighbors.products import SPARE, Candidates, Neighbors, Products, Rows, Visit, nearest, within

_QUERIES = 2048  # per block
_ROWS = 5120  # per block at most: the products stay in the processor's cache
_LANES = 8  # of a block, see `_smallest`
_UNSURE = 128  # queries searched again at a time


def search(
    queries: npt.NDArray[np.float16],
    bank: npt.NDArray[np.float16] | Rows,
    k: int,
    *,
    query_keys: npt.NDArray[np.int64] | None = None,
    bank_keys: npt.NDArray[np.int64] | None = None,
    memory_mb: int = 512,
    device: str = "cpu",
) -> Neighbors:
    """Return the k nearest rows of the bank for each query.

    Args:
        queries: (Q, D) float16.
        bank: (N, D) float16, or its rows with their keys.
        k: how many neighbours.
        query_keys: (M, Q) int64; a bank row that shares one of the M keys with a query is none of its neighbours.
        bank_keys: (M, N) int64, unless the rows carry them.
        memory_mb: bound of the working memory, in MiB. Does not change the result.
        device: where the products are computed.

    Raises:
        BankError: k is larger than the number of rows left for a query.
    """
    rows = bank if isinstance(bank, Rows) else Rows(bank, bank_keys)
    if k > len(rows.vectors):
        raise BankError(f"k: got {k}, expected at most {len(rows.vectors)}, the number of rows in the bank")
    found = at_most(queries, rows, k, query_keys=query_keys, memory_mb=memory_mb, device=device)
    if not np.isfinite(found.distances).all():
        raise BankError(f"k: got {k}, expected at most the bank rows that are no copies of the query; lower k")
    return found


def at_most(
    queries: npt.NDArray[np.float16],
    rows: Rows,
    k: int,
    *,
    query_keys: npt.NDArray[np.int64] | None = None,
    memory_mb: int = 512,
    device: str = "cpu",
) -> Neighbors:
    """Return what `search` returns, and where fewer than k rows are left for a query, all of them."""
    parts = []
    # one bank row of a block costs: its float32 copy, its products with a block of queries, and top-k's indices
    size = int(memory_mb * 2**20 / (4 * rows.vectors.shape[1] + 12 * min(_QUERIES, max(1, len(queries)))))
    visits = blocks(len(rows.vectors), min(_ROWS, max(1024, size)))
    for start in range(0, len(queries), _QUERIES):
        block = slice(start, start + _QUERIES)
        keys = None if query_keys is None else query_keys[:, block]
        products = Products(queries[block], keys, rows, visits, device)
        candidates = _candidates(products, k)
        best, unsure = nearest(products, candidates, k)
        for at in (unsure[low : low + _UNSURE] for low in range(0, len(unsure), _UNSURE)):
            again = Products(queries[block][at], None if keys is None else keys[:, at], rows, visits, device)
            found = within(again, best.distances[at, -1] + candidates.slack[at], k)
            best.rows[at], best.distances[at] = found.rows, found.distances
        parts.append(best)
    if not parts:
        return Neighbors(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
    return Neighbors(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "distances")))


def blocks(rows: int, size: int) -> list[Visit]:
    """Return the visits of all queries to all rows, `size` at a time."""
    return [Visit(low, min(low + size, rows)) for low in range(0, rows, size)]


def _candidates(products: Products, k: int) -> Candidates:
    """Pick the rows with the smallest products."""
    count, total = len(products.queries), len(products.rows.vectors)
    width = min(k + SPARE, total)
    best, rows = torch.full((count, width), torch.inf), torch.full((count, width), -1, dtype=torch.int64)
    for visit, block in products:
        better = (block.amin(1).cpu() < best[:, -1]).nonzero().squeeze(1)  # soon there are few of them
        if len(better) == 0:
            continue
        if len(better) < count // 2:
            block = block[better.to(block.device)]
        else:  # copying most of the block would cost more than sorting all of it
            better = torch.arange(count)
        found, at = _smallest(block, width)
        merged, order = torch.cat([best[better], found.cpu()], dim=1).topk(width, dim=1, largest=False)
        rows[better] = torch.cat([rows[better], at.cpu() + visit.low], dim=1).gather(1, order)
        best[better] = merged
    rows[torch.isinf(best)] = -1
    slack = products.slack()
    values = best.numpy().astype(np.float64) + products.norms[:, None]
    beyond = np.full(count, np.inf) if width == total else values[:, -1] - slack
    return Candidates(rows.numpy(), values, beyond, slack)


def _smallest(block: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `width` smallest of each row of (Q, B) float32, or all of them, and their (Q, W) int64 columns.

    Sorting is what costs. So the columns are laid side by side in eight lanes, of which the smallest is taken without
    sorting: the smallest of all are in those places where these are smallest.
    """
    places = block.shape[1] // _LANES
    if block.shape[1] % _LANES or places < width:
        found, columns = block.topk(min(width, block.shape[1]), dim=1, largest=False)
        return found, columns
    lanes = block.view(-1, _LANES, places)
    best = lanes.amin(1).topk(width, dim=1, largest=False, sorted=False).indices
    picked = lanes.gather(2, best[:, None].expand(-1, _LANES, -1)).flatten(1)
    found, at = picked.topk(width, dim=1, largest=False)
    return found, at // width * places + best.gather(1, at % width)
