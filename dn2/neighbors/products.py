"""Products of queries and bank rows, block by block: what exact and approximate search are made of.

The products |b|^2 - 2qb are rounded: among many rows at nearly one distance, or far from the origin, they may rank
wrong ones first. How far they can be off is known. So they only pick candidates, whose distances are then computed
directly, and whoever picks can tell whether a row that was not picked might be nearer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

SPARE = 8  # candidates beyond k: with them nearly every query is proven right at once
_PAIRS = 1024  # direct distances computed at a time
_ROUNDING = 2.0**-24  # of one float32 operation


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The k nearest bank rows of each query, nearest first; equal distances in row order.

    Attributes:
        rows: (Q, k) int64, row numbers in the bank; -1 where a query has fewer than k.
        distances: (Q, k) float32, squared L2; infinite where a query has fewer than k.
    """

    rows: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rows:
    """The side of the bank.

    Attributes:
        vectors: (N, D) float16; may be memory-mapped, they are read block by block.
        keys: (M, N) int64. A row is passed over if it shares one of M keys with the query; -1 is no key. This is how an
            image is kept from being its own neighbour.
        gone: (N,) bool, rows that are no longer in the bank.
    """

    vectors: npt.NDArray[np.float16]
    keys: npt.NDArray[np.int64] | None = None
    gone: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """Some rows, from `low` to before `high`, and which queries are compared with them: (M,) int64, or all."""

    low: int
    high: int
    queries: torch.Tensor | None = None


class Products:
    """|b|^2 - 2qb of queries and the rows that they visit; |q|^2 is the same for all rows.

    Attributes:
        queries: (Q, D) float16.
        rows: the bank.
        norms: (Q,) float64, |q|^2.
        largest: |b|^2 of the longest bank row seen so far.
    """

    def __init__(
        self,
        queries: npt.NDArray[np.float16],
        query_keys: npt.NDArray[np.int64] | None,
        rows: Rows,
        visits: Iterable[Visit],
        device: str = "cpu",
    ) -> None:
        self.queries, self.rows = queries, rows
        halves = tensor(queries)
        self._floats = halves.to(device).float()
        self.norms: npt.NDArray[np.float64] = (halves.double() ** 2).sum(1).numpy()
        self.largest = 0.0
        self._visits, self._device = visits, device
        self._keyed = _Keys(query_keys, rows.keys)

    def __iter__(self) -> Iterator[tuple[Visit, torch.Tensor]]:
        """Yield each visit, and (M, high - low) float32; infinite for rows that are gone or passed over.

        What is yielded is written over by the next one: memory from the system, block after block, would cost as much
        as a tenth of the products.
        """
        floats, products = _Buffer(self._device), _Buffer(self._device)
        for visit in self._visits:
            halves = tensor(self.rows.vectors[visit.low : visit.high])
            part = floats.of(*halves.shape).copy_(halves)
            norms = torch.linalg.vector_norm(part, dim=1).square_()
            self.largest = max(self.largest, float(norms.max()))
            if self.rows.gone is not None:
                norms[tensor(self.rows.gone[visit.low : visit.high])] = torch.inf
            queries = self._floats if visit.queries is None else self._floats[visit.queries]
            block = torch.addmm(norms, queries, part.T, alpha=-2, out=products.of(len(queries), len(part)))
            self._keyed.pass_over(block, visit)
            yield visit, block

    def slack(self) -> npt.NDArray[np.float64]:
        """Return (Q,) how far products + |q|^2 may be off: D roundings, and a few, of at most (|q| + |b|)^2."""
        reach = (np.sqrt(self.norms) + np.sqrt(self.largest)) ** 2
        return np.asarray((self.queries.shape[1] + 8) * _ROUNDING * reach)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows with small products.

    Attributes:
        rows: (Q, W) int64, smallest product first; -1 where there are not that many.
        products: (Q, W) float64, with |q|^2; infinite where there is no row.
        beyond: (Q,) float64, a squared distance below which no other visited row lies.
        slack: (Q,) float64, how far the products may be off.
    """

    rows: npt.NDArray[np.int64]
    products: npt.NDArray[np.float64]
    beyond: npt.NDArray[np.float64]
    slack: npt.NDArray[np.float64]


def nearest(products: Products, candidates: Candidates, k: int) -> tuple[Neighbors, npt.NDArray[np.int64]]:
    """Return the k nearest candidates, and the queries for which a row that is no candidate might be nearer."""
    width = min(k, candidates.rows.shape[1])
    limits = candidates.products[:, width - 1] + 2 * candidates.slack  # beyond it lies none of the k nearest
    query, column = np.nonzero((candidates.rows >= 0) & (candidates.products <= limits[:, None]))
    exact = np.full(candidates.rows.shape, np.inf, np.float32)
    exact[query, column] = distances(products, query, candidates.rows[query, column])
    order = np.lexsort((candidates.rows, exact), axis=1)[:, :width]
    rows = np.full((len(exact), k), -1, np.int64)
    found = np.full((len(exact), k), np.inf, np.float32)
    rows[:, :width], found[:, :width] = (np.take_along_axis(part, order, 1) for part in (candidates.rows, exact))
    unsure = (found[:, -1] >= candidates.beyond) & np.isfinite(candidates.beyond)
    return Neighbors(rows, found), np.flatnonzero(unsure)


def within(products: Products, limits: npt.NDArray[np.float64], k: int) -> Neighbors:
    """Return the k nearest among all visited rows whose products may lie within (Q,) limits of squared distance."""
    count = len(products.queries)
    limit = torch.from_numpy(limits - products.norms).to(torch.float32)[:, None]
    query, rows = np.empty(0, np.int64), np.empty(0, np.int64)
    exact = np.empty(0, np.float32)
    for visit, block in products:
        mine = limit if visit.queries is None else limit[visit.queries]
        near = (block.cpu() <= mine) & torch.isfinite(block.cpu())
        hits, at = (index.numpy() for index in near.nonzero(as_tuple=True))
        if visit.queries is not None:
            hits = visit.queries.numpy()[hits]
        found = distances(products, hits, at + visit.low)
        query, rows, exact = np.append(query, hits), np.append(rows, at + visit.low), np.append(exact, found)
        order = np.lexsort((rows, exact, query))
        query, rows, exact = query[order], rows[order], exact[order]
        kept = np.arange(len(query)) - np.searchsorted(query, query) < k
        query, rows, exact = query[kept], rows[kept], exact[kept]
    column = np.arange(len(query)) - np.searchsorted(query, query)
    best = Neighbors(np.full((count, k), -1, np.int64), np.full((count, k), np.inf, np.float32))
    best.rows[query, column], best.distances[query, column] = rows, exact
    return best


def distances(products: Products, query: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return (P,) squared distances of pairs of a query and a bank row, from their differences: nothing cancels."""
    exact = np.empty(len(rows), np.float32)
    for low in range(0, len(rows), _PAIRS):
        pairs = slice(low, low + _PAIRS)
        queries, bank = (
            tensor(side).double().numpy()  # many times faster than numpy's own conversion
            for side in (products.queries[query[pairs]], products.rows.vectors[rows[pairs]])
        )
        difference = queries - bank
        exact[pairs] = np.einsum("pd,pd->p", difference, difference)
    return exact


def tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    """Return an array as a tensor, without a copy unless it cannot be written to: torch has no such tensors."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def centred(centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (C, D) centroids less their mean, and the mean: far from the origin products would cancel."""
    middle = centroids.mean(0)
    return centroids - middle, middle


class _Buffer:
    """Memory for one float32 matrix after the other."""

    def __init__(self, device: str) -> None:
        self._flat = torch.empty(0, device=device)

    def of(self, rows: int, columns: int) -> torch.Tensor:
        """Return a matrix of this size; the one before is lost."""
        if self._flat.numel() < rows * columns:
            self._flat = torch.empty(rows * columns, device=self._flat.device)
        return self._flat[: rows * columns].view(rows, columns)


class _Keys:
    """Which bank rows a query must pass over, found by sorting once instead of comparing all with all."""

    def __init__(self, queries: npt.NDArray[np.int64] | None, bank: npt.NDArray[np.int64] | None) -> None:
        self._kinds: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        for query, rows in [] if queries is None or bank is None else zip(queries, bank, strict=True):
            shared = np.where(np.isin(query, rows), query, -1)
            if (shared != -1).any():
                self._kinds.append((shared, rows))

    def pass_over(self, products: torch.Tensor, visit: Visit) -> None:
        """Set to infinity the products of a visit's queries and rows that share a key."""
        for shared, rows in self._kinds:
            query = shared if visit.queries is None else shared[visit.queries.numpy()]
            at = np.flatnonzero(query != -1)
            if len(at):
                hits, columns = np.nonzero(query[at, None] == rows[None, visit.low : visit.high])
                products[torch.from_numpy(at[hits]), torch.from_numpy(columns)] = torch.inf
