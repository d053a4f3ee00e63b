"""Exact nearest neighbours: blocked matrix products pick candidates, whose distances are computed directly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dn2.errors import BankError

_SPARE = 8  # candidates beyond k: rounding in |q|^2 + |b|^2 - 2qb may swap close ones, direct distances decide
_QUERIES = 1024  # per block


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The k nearest bank rows of each query, nearest first; equal distances in row order.

    Attributes:
        rows: (Q, k) int64, row numbers in the bank.
        distances: (Q, k) float32, squared L2.
    """

    rows: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]


def search(
    queries: npt.NDArray[np.float16],
    bank: npt.NDArray[np.float16],
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
        bank: (N, D) float16; may be memory-mapped, it is read block by block.
        k: how many neighbours.
        query_keys: (M, Q) int64. A bank row is passed over if it shares one of the M keys with the query; -1 is no
            key. This is how an image is kept from being its own neighbour.
        bank_keys: (M, N) int64.
        memory_mb: bound of the working memory, in MiB. Does not change the result.
        device: where the products are computed.

    Raises:
        BankError: k is larger than the number of rows left for a query.
    """
    if k > len(bank):
        raise BankError(f"k: got {k}, expected at most {len(bank)}, the number of rows in the bank")
    keyed = _Keys(query_keys, bank_keys)
    rows = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.float32)
    width = min(k + _SPARE, len(bank))
    # one bank row of a block costs: its float32 copy, its products with a block of queries, and top-k's indices
    block = max(1024, int(memory_mb * 2**20 / (4 * bank.shape[1] + 12 * min(_QUERIES, max(1, len(queries))))))
    for start in range(0, len(queries), _QUERIES):
        stop = min(start + _QUERIES, len(queries))
        part = torch.from_numpy(np.asarray(queries[start:stop], np.float32)).to(device)
        candidates = _candidates(part, bank, width, block, keyed, start, stop)
        best_rows, best = _nearest(part, bank, candidates, k)
        if not np.isfinite(best).all():
            raise BankError(f"k: got {k}, but fewer bank rows are left for a query once its own are passed over")
        rows[start:stop], distances[start:stop] = best_rows, best
    return Neighbors(rows, distances)


def _candidates(
    queries: torch.Tensor,
    bank: npt.NDArray[np.float16],
    width: int,
    block: int,
    keyed: _Keys,
    start: int,
    stop: int,
) -> npt.NDArray[np.int64]:
    """Return (Q, width) int64 rows that hold the nearest ones; -1 where there are not that many."""
    best = torch.full((len(queries), width), torch.inf, device=queries.device)
    rows = torch.full((len(queries), width), -1, dtype=torch.int64, device=queries.device)
    for low in range(0, len(bank), block):
        high = min(low + block, len(bank))
        part = torch.from_numpy(np.asarray(bank[low:high], np.float32)).to(queries.device)
        # |q|^2 is the same for all rows of the bank and does not change their order
        products = torch.addmm((part * part).sum(1), queries, part.T, alpha=-2)
        keyed.pass_over(products, start, stop, low, high)
        found, at = products.topk(min(width, high - low), dim=1, largest=False)
        best, order = torch.cat([best, found], dim=1).topk(width, dim=1, largest=False)
        rows = torch.cat([rows, at + low], dim=1).gather(1, order)
    rows[torch.isinf(best)] = -1
    return rows.cpu().numpy()


def _nearest(
    queries: torch.Tensor, bank: npt.NDArray[np.float16], candidates: npt.NDArray[np.int64], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the k nearest of (Q, W) candidate rows and their squared distances, computed without cancellation."""
    exact = np.full(candidates.shape, np.inf, np.float32)
    vectors = queries.cpu().numpy()
    for column in range(candidates.shape[1]):  # one column at a time bounds memory to one more block of queries
        there = candidates[:, column] >= 0
        difference = vectors[there] - np.asarray(bank[candidates[there, column]], np.float32)
        exact[there, column] = np.einsum("qd,qd->q", difference, difference)
    order = np.lexsort((candidates, exact), axis=1)[:, :k]
    return np.take_along_axis(candidates, order, 1), np.take_along_axis(exact, order, 1)


class _Keys:
    """Which bank rows a query must pass over, found by sorting once instead of comparing all with all."""

    def __init__(self, queries: npt.NDArray[np.int64] | None, bank: npt.NDArray[np.int64] | None) -> None:
        self._kinds = [] if queries is None or bank is None else list(zip(queries, bank, strict=True))
        self._shared = [(query != -1) & np.isin(query, bank_keys) for query, bank_keys in self._kinds]

    def pass_over(self, products: torch.Tensor, start: int, stop: int, low: int, high: int) -> None:
        """Set to infinity what products[q - start, b - low] has for a query and a bank row that share a key."""
        for (query, bank), shared in zip(self._kinds, self._shared, strict=True):
            at = np.flatnonzero(shared[start:stop])
            if len(at):
                same = query[start:stop][at, None] == bank[None, low:high]
                hits, columns = np.nonzero(same)
                products[torch.from_numpy(at[hits]), torch.from_numpy(columns)] = torch.inf
