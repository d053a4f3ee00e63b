"""How many cells are visited for the recall that was asked for."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from dn2.neighbors import exact, ivf
from dn2.neighbors.build import divide, nprobe_for
from dn2.neighbors.ivf import Cells
from dn2.neighbors.products import Rows
from tests.dn2.neighbors.spread import HALF, clustered


@cache
def divided(count: int, nlist: int) -> tuple[Rows, Cells, np.ndarray, np.ndarray]:
    """A bank in cells with two kinds of keys, and 150 queries with theirs."""
    random = np.random.default_rng(5)
    vectors = clustered(count, seed=0)
    cells, order = divide(vectors, nlist)
    keys = np.stack([np.arange(count) % 7, random.integers(-1, 40, count)])
    query_keys = np.stack([np.arange(150) % 9 - 1, random.integers(-1, 40, 150)])
    return Rows(vectors[order], keys), cells, clustered(150, seed=1), query_keys


def share_found(
    queries: np.ndarray, rows: Rows, cells: Cells, nprobe: int, columns: slice, query_keys: np.ndarray | None = None
) -> float:
    """Of the true neighbours in some columns, the share that is found."""
    true = exact.at_most(queries, rows, columns.stop, query_keys=query_keys).rows
    found = ivf.search(queries, rows, cells, columns.stop, nprobe=nprobe, query_keys=query_keys).rows
    there = [(wanted[wanted >= 0, None] == mine).any(1) for wanted, mine in zip(true[:, columns], found, strict=True)]
    return float(np.concatenate(there).mean())


@pytest.mark.parametrize("recall", [0.1, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("k", [1, 2, 5, 30])
def test_recall_asked_for_is_reached(k: int, recall: float):
    rows, cells, queries, _ = divided(3000, 40)

    nprobe = nprobe_for(queries, rows, cells, k, recall)

    assert share_found(queries, rows, cells, nprobe, slice(0, k)) >= recall
    assert share_found(queries, rows, cells, nprobe, slice(16, 24)) >= recall


@pytest.mark.parametrize("recall", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_recall_asked_for_is_reached_with_rows_that_are_gone_or_passed_over(k: int, recall: float):
    rows, cells, queries, query_keys = divided(3000, 40)
    rows = Rows(rows.vectors, rows.keys, np.random.default_rng(6).random(3000) < 0.3)

    nprobe = nprobe_for(queries, rows, cells, k, recall, query_keys=query_keys)

    assert share_found(queries, rows, cells, nprobe, slice(0, k), query_keys) >= recall
    assert share_found(queries, rows, cells, nprobe, slice(16, 24), query_keys) >= recall


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("recall", [0.8, 0.9, 1.0])
def test_no_more_cells_than_the_recall_needs(k: int, recall: float):
    rows, cells, queries, _ = divided(3000, 40)

    nprobe = nprobe_for(queries, rows, cells, k, recall)

    fewer = [share_found(queries, rows, cells, nprobe - 1, part) for part in (slice(0, k), slice(16, 24))]
    assert 1 < nprobe < 40
    assert min(fewer) < recall


def test_complete_recall_finds_what_exact_search_finds():
    rows, cells, queries, query_keys = divided(3000, 40)
    nprobe = nprobe_for(queries, rows, cells, 5, 1.0, query_keys=query_keys)

    found = ivf.search(queries, rows, cells, 5, nprobe=nprobe, query_keys=query_keys)

    true = exact.at_most(queries, rows, 5, query_keys=query_keys)
    np.testing.assert_array_equal(found.rows, true.rows)
    np.testing.assert_array_equal(found.distances, true.distances)


@pytest.mark.parametrize("k", [1, 5])
def test_more_recall_never_takes_fewer_cells(k: int):
    rows, cells, queries, _ = divided(3000, 40)

    needed = [nprobe_for(queries, rows, cells, k, recall) for recall in (0.01, 0.3, 0.6, 0.9, 0.95, 0.99, 0.999, 1)]

    assert needed == sorted(needed)
    assert needed[0] < needed[-1]


def line(cells: int) -> tuple[Rows, Cells]:
    """Cells at 1, 2, 4, 8 ..., each with 30 equal rows and one key; the nearest other cell is the one before."""
    places = 2.0 ** np.arange(cells)
    centroids = places.astype(np.float32)[:, None]
    bank = Rows(places.repeat(30)[:, None].astype(HALF), np.arange(cells).repeat(30)[None])
    return bank, Cells(centroids, 30 * np.arange(cells + 1))


def test_cell_of_rows_that_are_passed_over_is_not_where_neighbours_are():
    rows, cells = line(6)
    queries, query_keys = rows.vectors[60::30], np.arange(2, 6)[None]

    assert nprobe_for(queries, rows, cells, 5, 1.0) == 1
    assert nprobe_for(queries, rows, cells, 5, 1.0, query_keys=query_keys) == 2


@pytest.mark.parametrize(("own", "nprobe"), [(30, 1), (24, 1), (23, 2), (16, 2), (10, 3)])
def test_what_is_alike_beyond_the_own_thing_is_found_as_surely(own: int, nprobe: int):
    """Each cell has `own` rows: more than k, but the 24th neighbour may lie further out."""
    rows, cells = line(6)
    queries = rows.vectors[[90, 120, 150]]
    rows = Rows(rows.vectors, gone=np.arange(180) % 30 >= own)

    assert nprobe_for(queries, rows, cells, 5, 1.0) == nprobe


def test_recall_is_a_share_of_all_neighbours_of_all_queries():
    """Two of four queries have their neighbours in the nearest cell, the others in the second."""
    rows, cells = line(8)
    queries, query_keys = rows.vectors[[120, 150, 180, 210]], np.array([[-1, -1, 6, 7]])

    needed = [nprobe_for(queries, rows, cells, 3, recall, query_keys=query_keys) for recall in (0.1, 0.45, 0.51, 1)]

    assert needed == [1, 1, 2, 2]


@pytest.mark.parametrize("count", [1, 3, 10, 16, 17, 23, 24])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_bank_with_few_rows(k: int, count: int):
    rows, cells, queries, query_keys = divided(count, min(count, 5))

    nprobe = nprobe_for(queries, rows, cells, k, 1.0, query_keys=query_keys)

    assert 1 <= nprobe <= min(count, 5)
    assert share_found(queries, rows, cells, nprobe, slice(0, k), query_keys) == 1.0


def test_bank_in_which_nothing_is_left_for_a_query():
    rows, cells, queries, _ = divided(50, 5)
    rows = Rows(rows.vectors, gone=np.ones(50, bool))

    assert nprobe_for(queries, rows, cells, 3, 1.0) == 1


def test_memory_does_not_change_the_number_of_cells():
    rows, cells, queries, query_keys = divided(3000, 40)

    needed = {
        nprobe_for(queries, rows, cells, 5, 0.9, query_keys=query_keys, memory_mb=memory) for memory in (1, 64, 4096)
    }

    assert len(needed) == 1
