"""Exact nearest neighbours: blocked matrix products pick candidates, whose distances are computed directly.

The products |b|^2 - 2qb are rounded: among many rows at nearly one distance, or far from the origin, they may pick
wrong ones. How far they can be off is known, so a query whose candidates cannot be proven right is searched again,
among all rows that might be nearer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dn2.errors import BankError

_SPARE = 8  # candidates beyond k: with them nearly every query is proven right at once
_QUERIES = 1024  # per block
_UNSURE = 128  # of them searched again at a time
_PAIRS = 1024  # direct distances computed at a time
_ROUNDING = 2.0**-24  # of one float32 operation


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
    keyed = Keys(query_keys, bank_keys)
    rows = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.float32)
    # one bank row of a block costs: its float32 copy, its products with a block of queries, and top-k's indices
    block = max(1024, int(memory_mb * 2**20 / (4 * bank.shape[1] + 12 * min(_QUERIES, max(1, len(queries))))))
    for start in range(0, len(queries), _QUERIES):
        numbers = np.arange(start, min(start + _QUERIES, len(queries)))
        products = Products(queries[numbers], numbers, bank, keyed, block, device)
        candidates, beyond, slack = _candidates(products, k)
        best_rows, best = _nearest(queries[numbers], bank, candidates, k)
        if not np.isfinite(best).all():
            raise BankError(f"k: got {k}, but fewer bank rows are left for a query once its own are passed over")
        unsure = np.flatnonzero(best[:, -1] >= beyond)
        for at in (unsure[low : low + _UNSURE] for low in range(0, len(unsure), _UNSURE)):
            products = Products(queries[numbers[at]], numbers[at], bank, keyed, block, device)
            best_rows[at], best[at] = _within(products, best[at, -1] + slack[at], k)
        rows[numbers], distances[numbers] = best_rows, best
    return Neighbors(rows, distances)


class Products:
    """|b|^2 - 2qb of some queries and the bank, block by block; |q|^2 is the same for all rows of the bank.

    Attributes:
        queries: (Q, D) float16.
        bank: (N, D) float16.
        norms: (Q,) float64, |q|^2.
        largest: |b|^2 of the longest bank row seen so far.
    """

    def __init__(
        self,
        queries: npt.NDArray[np.float16],
        numbers: npt.NDArray[np.int64],
        bank: npt.NDArray[np.float16],
        keyed: Keys,
        block: int,
        device: str,
    ) -> None:
        self.queries, self.bank = queries, bank
        self.norms = (queries.astype(np.float64) ** 2).sum(1)
        self.largest = 0.0
        self._numbers, self._keyed, self._block, self._device = numbers, keyed, block, device

    def __iter__(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the number of a block's first row, and (Q, B) float32; infinite for rows that are passed over."""
        queries = torch.from_numpy(self.queries.astype(np.float32)).to(self._device)
        for low in range(0, len(self.bank), self._block):
            high = min(low + self._block, len(self.bank))
            part = torch.from_numpy(np.array(self.bank[low:high])).to(self._device).float()  # faster than numpy's
            norms = (part * part).sum(1)
            self.largest = max(self.largest, float(norms.max()))
            products = torch.addmm(norms, queries, part.T, alpha=-2)
            self._keyed.pass_over(products, self._numbers, low, high)
            yield low, products

    def slack(self) -> npt.NDArray[np.float64]:
        """Return (Q,) how far products + |q|^2 may be off: D roundings, and a few, of at most (|q| + |b|)^2."""
        reach = (np.sqrt(self.norms) + np.sqrt(self.largest)) ** 2
        return np.asarray((self.bank.shape[1] + 8) * _ROUNDING * reach)


def _candidates(
    products: Products, k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Pick the rows with the smallest products.

    Returns:
        (Q, W) int64 rows, -1 where there are not that many; (Q,) a squared distance below which no other row lies; and
        (Q,) the slack of the products.
    """
    count, width = len(products.queries), min(k + _SPARE, len(products.bank))
    best, rows = torch.full((count, width), torch.inf), torch.full((count, width), -1, dtype=torch.int64)
    for low, block in products:
        found, at = block.topk(min(width, block.shape[1]), dim=1, largest=False)
        best, order = torch.cat([best, found.cpu()], dim=1).topk(width, dim=1, largest=False)
        rows = torch.cat([rows, at.cpu() + low], dim=1).gather(1, order)
    rows[torch.isinf(best)] = -1
    slack = products.slack()
    if width == len(products.bank):
        return rows.numpy(), np.full(count, np.inf), slack
    return rows.numpy(), best.max(dim=1).values.numpy().astype(np.float64) + products.norms - slack, slack


def _nearest(
    queries: npt.NDArray[np.float16], bank: npt.NDArray[np.float16], candidates: npt.NDArray[np.int64], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the k nearest of (Q, W) candidate rows and their squared distances."""
    exact = np.full(candidates.shape, np.inf, np.float32)
    for column in range(candidates.shape[1]):  # one column at a time bounds memory to one more block of queries
        there = np.flatnonzero(candidates[:, column] >= 0)
        exact[there, column] = _distances(queries, bank, there, candidates[there, column])
    order = np.lexsort((candidates, exact), axis=1)[:, :k]
    return np.take_along_axis(candidates, order, 1), np.take_along_axis(exact, order, 1)


def _within(
    products: Products, limits: npt.NDArray[np.float64], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the k nearest rows, and their squared distances, among all rows whose products lie within (Q,) limits."""
    limit = torch.from_numpy((limits - products.norms).astype(np.float32))[:, None]
    query, rows = np.empty(0, np.int64), np.empty(0, np.int64)
    exact = np.empty(0, np.float32)
    for low, block in products:
        hits, at = (index.numpy() for index in (block.cpu() <= limit).nonzero(as_tuple=True))
        found = _distances(products.queries, products.bank, hits, at + low)
        query, rows, exact = np.append(query, hits), np.append(rows, at + low), np.append(exact, found)
        order = np.lexsort((rows, exact, query))
        query, rows, exact = query[order], rows[order], exact[order]
        nearest = np.arange(len(query)) - np.searchsorted(query, query) < k
        query, rows, exact = query[nearest], rows[nearest], exact[nearest]
    return rows.reshape(-1, k), exact.reshape(-1, k)


def _distances(
    queries: npt.NDArray[np.float16],
    bank: npt.NDArray[np.float16],
    query: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Return (P,) squared distances of pairs of a query and a bank row, from their differences: nothing cancels."""
    exact = np.empty(len(rows), np.float32)
    for low in range(0, len(rows), _PAIRS):
        pairs = slice(low, low + _PAIRS)
        difference = queries[query[pairs]].astype(np.float64) - bank[rows[pairs]].astype(np.float64)
        exact[pairs] = np.einsum("pd,pd->p", difference, difference)
    return exact


class Keys:
    """Which bank rows a query must pass over, found by sorting once instead of comparing all with all."""

    def __init__(self, queries: npt.NDArray[np.int64] | None, bank: npt.NDArray[np.int64] | None) -> None:
        self._kinds = [] if queries is None or bank is None else list(zip(queries, bank, strict=True))
        self._shared = [(query != -1) & np.isin(query, bank_keys) for query, bank_keys in self._kinds]

    def pass_over(self, products: torch.Tensor, numbers: npt.NDArray[np.int64], low: int, high: int) -> None:
        """Set to infinity what products[i, b - low] has for query numbers[i] and a bank row b that share a key."""
        for (query, bank), shared in zip(self._kinds, self._shared, strict=True):
            at = np.flatnonzero(shared[numbers])
            if len(at):
                same = query[numbers[at], None] == bank[None, low:high]
                hits, columns = np.nonzero(same)
                products[torch.from_numpy(at[hits]), torch.from_numpy(columns)] = torch.inf
