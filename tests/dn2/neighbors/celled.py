"""Rows in cells, and what a search of some of them finds by its definition."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dn2.neighbors.ivf import Cells
from dn2.neighbors.products import Neighbors, Rows
from tests.dn2.neighbors.oracle import brute_force

HALF = np.float16
# few different values make many equal distances; the extremes make large norms with tiny differences
VALUES = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 65504.0, 65472.0, -65504.0, 6e-8]),
    st.floats(-65504, 65504, width=16),
)


def to_centroids(queries: np.ndarray, cells: Cells) -> np.ndarray:
    """(Q, C) squared distances."""
    return ((queries.astype(np.float64)[:, None] - cells.centroids.astype(np.float64)) ** 2).sum(2)


def visited(queries: np.ndarray, cells: Cells, nprobe: int) -> np.ndarray:
    """(Q, N) bool: rows of the nprobe nearest cells."""
    near = to_centroids(queries, cells).argsort(1).argsort(1) < nprobe
    return near[:, np.repeat(np.arange(len(cells.centroids)), np.diff(cells.starts))]


def eligible(queries: np.ndarray, rows: Rows, query_keys: np.ndarray | None) -> np.ndarray:
    """(Q, N) bool: rows that are there and share no key with the query."""
    there = np.ones((len(queries), len(rows.vectors)), bool)
    if rows.gone is not None:
        there &= ~rows.gone
    if query_keys is not None and rows.keys is not None:
        mine = query_keys[:, :, None]
        there &= ~((mine == rows.keys[:, None]) & (mine != -1)).any(0)
    return there


def nearest_of(allowed: np.ndarray, queries: np.ndarray, bank: np.ndarray, k: int) -> Neighbors:
    """What brute force finds among (Q, N) allowed rows, then -1 and infinity."""
    rows = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.inf, np.float32)
    for query, mask in enumerate(allowed):
        left = np.flatnonzero(mask)
        width = min(k, len(left))
        if width:
            at, found = brute_force(queries[[query]], bank[left], width)
            rows[query, :width], distances[query, :width] = left[at[0]], found[0]
    return Neighbors(rows, distances)


def expected(
    queries: np.ndarray, rows: Rows, cells: Cells, k: int, nprobe: int, query_keys: np.ndarray | None = None
) -> Neighbors:
    """The k nearest of the visited rows, of all rows where fewer than k are eligible among the visited."""
    everywhere = eligible(queries, rows, query_keys)
    near = everywhere & visited(queries, cells, nprobe)
    enough = near.sum(1, keepdims=True) >= k
    return nearest_of(np.where(enough, near, everywhere), queries, rows.vectors, k)


def assert_same(found: Neighbors, wanted: Neighbors) -> None:
    np.testing.assert_array_equal(found.rows, wanted.rows)
    np.testing.assert_array_equal(found.distances, wanted.distances)
    assert (found.rows.dtype, found.distances.dtype) == (np.int64, np.float32)


def unambiguous(queries: np.ndarray, cells: Cells) -> bool:
    """Whether float32 is enough to tell which cells are nearer."""
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1)[:, None]
    reach = (lengths + np.linalg.norm(cells.centroids, axis=1).max()) ** 2
    gaps = np.diff(np.sort(to_centroids(queries, cells), axis=1), axis=1)
    return bool((gaps > 1e-5 * reach).all())


def division(random: np.random.Generator, rows: int, dim: int, count: int, *, scale: float = 1.0) -> Cells:
    """Cells with random centroids, and rows that do not care about them; some may be empty."""
    starts = np.concatenate([[0], np.sort(random.integers(0, rows + 1, count - 1)), [rows]]).astype(np.int64)
    return Cells((scale * random.normal(size=(count, dim))).astype(np.float32), starts)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Rows, Cells, np.ndarray | None, int]:
    """Some queries, at most 60 rows drawn from few, some of them the queries, in cells of any size, and any k."""
    dim = draw(st.integers(1, 9))
    different = draw(arrays(HALF, (draw(st.integers(1, 12)), dim), elements=VALUES))
    numbers = draw(st.lists(st.integers(0, len(different) - 1), min_size=1, max_size=60))
    bank = different[numbers]
    queries = np.concatenate([different, draw(arrays(HALF, (draw(st.integers(0, 5)), dim), elements=VALUES))])
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    cells = division(random, len(bank), dim, draw(st.integers(1, 9)), scale=draw(st.sampled_from([1, 100, 60000])))
    keys, query_keys = None, None
    if draw(st.booleans()):
        keys = draw(arrays(np.int64, (2, len(bank)), elements=st.integers(-1, 3)))
        query_keys = draw(arrays(np.int64, (2, len(queries)), elements=st.integers(-1, 3)))
    gone = draw(st.none() | arrays(bool, len(bank)))
    k = draw(st.integers(1, len(bank)) | st.just(len(bank)))
    return queries, Rows(bank, keys, gone), cells, query_keys, k


def clustered(count: int, *, seed: int, dim: int = 24) -> np.ndarray:
    """(count, dim) vectors in clusters, every tenth a copy of the first."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(12, dim))
    rows = (centres[random.integers(0, 12, count)] + 0.2 * random.normal(size=(count, dim))).astype(HALF)
    rows[::10] = rows[0]
    return rows


def real_like(count: int = 3000, *, cells: int = 20) -> tuple[Rows, Cells]:
    """A bank whose rows lie in the cell that is nearest, with keys and some rows gone."""
    random = np.random.default_rng(3)
    bank = clustered(count, seed=0)
    centroids = bank[1 + 10 * np.arange(cells)].astype(np.float32) + 0.05 * random.normal(size=(cells, 24))
    centroids = centroids.astype(np.float32)
    cell = to_centroids(bank, Cells(centroids, np.empty(0, np.int64))).argmin(1)
    order = np.argsort(cell, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=cells))]).astype(np.int64)
    keys = np.stack([np.arange(count) % 9, np.where(random.random(count) < 0.5, -1, random.integers(0, 50, count))])
    return Rows(bank[order], keys, random.random(count) < 0.1), Cells(centroids, starts)


def asked(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries and their keys."""
    random = np.random.default_rng(4)
    return clustered(count, seed=1), np.stack([np.arange(count) % 11 - 1, random.integers(-1, 50, count)])


def line(per_cell: list[int]) -> tuple[np.ndarray, Cells]:
    """Cells at 0, 100, 200 ..., each with rows a little to the right of its centroid, 1 apart."""
    centroids = 100 * np.arange(len(per_cell), dtype=np.float32)[:, None]
    bank = np.concatenate([100 * cell + np.arange(count) for cell, count in enumerate(per_cell)])
    return bank[:, None].astype(HALF), Cells(centroids, np.concatenate([[0], np.cumsum(per_cell)]).astype(np.int64))
