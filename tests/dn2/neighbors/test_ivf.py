from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dn2.neighbors import ivf
from dn2.neighbors.ivf import Cells, search
from dn2.neighbors.products import Rows
from tests.dn2.neighbors.celled import (
    HALF,
    asked,
    assert_same,
    cases,
    division,
    eligible,
    expected,
    line,
    nearest_of,
    real_like,
    to_centroids,
    unambiguous,
    visited,
)


@settings(deadline=None, max_examples=150)
@given(cases(), st.sampled_from([1, 2, 7, 4096]))
def test_all_cells_give_what_brute_force_gives(case, rows_at_once: int):
    queries, rows, cells, query_keys, k = case

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ivf, "_ROWS", rows_at_once)
        found = search(queries, rows, cells, k, nprobe=len(cells.centroids), query_keys=query_keys)

    assert_same(found, nearest_of(eligible(queries, rows, query_keys), queries, rows.vectors, k))


@settings(deadline=None, max_examples=150)
@given(cases(), st.integers(1, 8), st.sampled_from([1, 2, 7, 4096]))
def test_fewer_cells_give_the_nearest_of_their_rows(case, nprobe: int, rows_at_once: int):
    queries, rows, cells, query_keys, k = case
    assume(unambiguous(queries, cells))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ivf, "_ROWS", rows_at_once)
        found = search(queries, rows, cells, k, nprobe=nprobe, query_keys=query_keys)

    assert_same(found, expected(queries, rows, cells, k, nprobe, query_keys))


@pytest.mark.parametrize("nprobe", [1, 2, 5, 20])
@pytest.mark.parametrize("k", [1, 6, 40])
def test_larger_bank_is_searched_cell_by_cell(k: int, nprobe: int):
    rows, cells = real_like()
    queries, query_keys = asked(50)
    assert unambiguous(queries, cells)

    found = search(queries, rows, cells, k, nprobe=nprobe, query_keys=query_keys)

    assert_same(found, expected(queries, rows, cells, k, nprobe, query_keys))


def test_neighbours_lie_in_the_nearest_cells_and_none_further_out():
    rows, cells = real_like()
    queries, _ = asked(50)
    near = visited(queries, cells, 3)
    assert (near & ~rows.gone).sum(1).min() >= 5

    found = search(queries, rows, cells, 5, nprobe=3)

    assert np.take_along_axis(near, found.rows, 1).all()
    assert not rows.gone[found.rows].any()


def test_more_probes_than_cells_visit_all_cells():
    rows, cells = real_like(300)
    queries, query_keys = asked(20)

    found = search(queries, rows, cells, 4, nprobe=1000, query_keys=query_keys)

    assert_same(found, nearest_of(eligible(queries, rows, query_keys), queries, rows.vectors, 4))


def test_nearer_row_of_a_cell_that_is_not_visited_is_not_found():
    bank, cells = line([2, 2])
    bank[1] = 48
    queries = np.array([[51]], HALF)

    assert search(queries, Rows(bank), cells, 1, nprobe=1).rows.tolist() == [[2]]
    assert search(queries, Rows(bank), cells, 1, nprobe=2).rows.tolist() == [[1]]


def test_query_whose_cells_hold_too_few_rows_is_completed_from_all_rows():
    bank, cells = line([5, 2, 5])

    found = search(np.array([[101], [2]], HALF), Rows(bank), cells, 3, nprobe=1)

    assert found.rows.tolist() == [[6, 5, 4], [2, 1, 3]]
    assert found.distances.tolist() == [[0.0, 1.0, 97.0**2], [0.0, 1.0, 1.0]]


def test_rows_that_are_gone_or_passed_over_do_not_count_as_found():
    bank, cells = line([4, 4])
    gone = np.array([True, True] + 6 * [False])
    keys = np.array([[-1, -1, 7, -1, -1, -1, -1, -1]])

    found = search(np.zeros((2, 1), HALF), Rows(bank, keys, gone), cells, 2, nprobe=1, query_keys=np.array([[7, -1]]))

    assert found.rows.tolist() == [[3, 4], [2, 3]]


def test_empty_cells_are_completed_from_all_rows():
    bank, cells = line([0, 3, 0])

    found = search(np.array([[0], [200]], HALF), Rows(bank), cells, 2, nprobe=1)

    assert found.rows.tolist() == [[0, 1], [2, 1]]


def test_fewer_rows_than_k_end_with_minus_one_and_infinity():
    bank, cells = line([2, 3])
    keys = np.array([[-1, 5, 5, 5, 5]])
    rows = Rows(bank, keys, np.array([False, False, True, False, False]))

    found = search(np.zeros((2, 1), HALF), rows, cells, 5, nprobe=1, query_keys=np.array([[5, 6]]))

    assert found.rows.tolist() == [[0, -1, -1, -1, -1], [0, 1, 3, 4, -1]]
    assert found.distances.tolist() == [[0.0, *4 * [np.inf]], [0.0, 1.0, 101.0**2, 102.0**2, np.inf]]


def test_k_above_the_number_of_rows_ends_with_minus_one_and_infinity():
    bank, cells = line([1, 1])

    found = search(np.zeros((1, 1), HALF), Rows(bank), cells, 4, nprobe=1)

    assert found.rows.tolist() == [[0, 1, -1, -1]]
    assert found.distances.tolist() == [[0.0, 1e4, np.inf, np.inf]]


def test_bank_of_which_all_rows_are_gone_has_no_neighbours():
    bank, cells = line([3, 3])

    found = search(np.zeros((2, 1), HALF), Rows(bank, gone=np.ones(6, bool)), cells, 2, nprobe=2)

    assert found.rows.tolist() == [[-1, -1]] * 2
    assert found.distances.tolist() == [[np.inf, np.inf]] * 2


@pytest.mark.parametrize("nprobe", [1, 3])
def test_minus_one_is_no_key(nprobe: int):
    bank, cells = line([3, 3, 3])

    found = search(bank[:1], Rows(bank, np.full((2, 9), -1)), cells, 3, nprobe=nprobe, query_keys=np.array([[-1]] * 2))

    assert found.rows.tolist() == [[0, 1, 2]]


def tight_cluster(count: int, base: float, *, seed: int) -> np.ndarray:
    """(count, 64) vectors far from the origin that differ by steps of float16: products in float32 cannot tell them."""
    steps = np.random.default_rng(seed).integers(0, 5, (count, 64)) * np.spacing(HALF(base)).astype(float)
    return (base + steps).astype(HALF)


@pytest.mark.parametrize("base", [40, 1000])
@pytest.mark.parametrize("nprobe", [1, 3, 8])
def test_far_from_the_origin_nothing_cancels(nprobe: int, base: float):
    bank, queries = tight_cluster(2400, base, seed=0), tight_cluster(12, base, seed=1)
    cells = division(np.random.default_rng(2), 2400, 64, 8)
    assert unambiguous(queries, cells)

    found = search(queries, Rows(bank), cells, 3, nprobe=nprobe)

    assert_same(found, expected(queries, Rows(bank), cells, 3, nprobe))
    assert found.distances.min() > 0


def test_largest_vectors_of_float16_neither_overflow_nor_go_negative():
    bank = np.full((40, 2048), 65504, HALF)
    bank[:20] = -65504
    bank[39, 0] = 65472
    cells = Cells(np.array([[-60000], [60000], [65000]], np.float32).repeat(2048, 1), np.array([0, 20, 30, 40]))

    found = search(bank[[39, 0]], Rows(bank), cells, 20, nprobe=2)

    assert found.rows[0].tolist() == [39, *range(20, 39)]
    assert found.distances[0, :2].tolist() == [0.0, 1024.0]
    assert found.rows[1].tolist() == list(range(20))
    assert found.distances[1].tolist() == [0.0] * 20


@pytest.mark.parametrize("rows_at_once", [17, 4096])
@pytest.mark.parametrize("bounds", [[0, 300], [0, 60, 61, 200, 300], [0, 0, 150, 150, 300]])
def test_many_duplicates_at_the_boundary_come_in_row_order(
    bounds: list[int], rows_at_once: int, monkeypatch: pytest.MonkeyPatch
):
    """More equal rows than candidates are kept, in one cell or several: the first ones are found all the same."""
    random = np.random.default_rng(0)
    bank = np.concatenate([random.normal(size=(50, 16)), np.ones((200, 16)), random.normal(size=(50, 16))]).astype(HALF)
    centroids = random.normal(size=(len(bounds) - 1, 16)).astype(np.float32)
    monkeypatch.setattr(ivf, "_ROWS", rows_at_once)

    found = search(np.ones((1, 16), HALF), Rows(bank), Cells(centroids, np.array(bounds)), 30, nprobe=len(centroids))

    assert found.rows[0].tolist() == list(range(50, 80))
    assert found.distances[0].tolist() == [0.0] * 30


def test_duplicates_in_a_cell_that_is_not_visited_are_not_found():
    bank = np.ones((200, 4), HALF)
    cells = Cells(np.array([[9.0] * 4, [1.5] * 4], np.float32), np.array([0, 100, 200]))

    found = search(np.ones((1, 4), HALF), Rows(bank), cells, 20, nprobe=1)

    assert found.rows[0].tolist() == list(range(100, 120))


@pytest.mark.parametrize("vectors", [1, 5])
def test_one_row_is_found_from_everywhere(vectors: int):
    queries = np.arange(vectors, dtype=HALF)[:, None]

    found = search(
        queries, Rows(np.ones((1, 1), HALF)), Cells(np.ones((1, 1), np.float32), np.array([0, 1])), 1, nprobe=1
    )

    assert found.rows.tolist() == [[0]] * vectors
    assert found.distances[:, 0].tolist() == [(number - 1.0) ** 2 for number in range(vectors)]


def ranks_by_definition(queries: np.ndarray, cells: Cells, rows: np.ndarray) -> list[list[int]]:
    distances = to_centroids(queries, cells).tolist()
    owner = [cell for cell, size in enumerate(np.diff(cells.starts)) for _ in range(size)]
    return [
        [sum(other < mine[owner[row]] for other in mine) for row in wanted]
        for mine, wanted in zip(distances, rows.tolist(), strict=True)
    ]


@settings(deadline=None, max_examples=60)
@given(cases(), st.integers(0, 100))
def test_rank_counts_the_cells_that_are_nearer(case, seed: int):
    queries, rows, cells, _, _ = case
    assume(unambiguous(queries, cells))
    wanted = np.random.default_rng(seed).integers(0, len(rows.vectors), (len(queries), 4))

    found = ivf.ranks(queries, cells, wanted)

    assert found.tolist() == ranks_by_definition(queries, cells, wanted)
    assert found.dtype == np.int64


def test_search_finds_a_row_once_it_visits_more_cells_than_its_rank():
    rows, cells = real_like(900)
    rows = Rows(rows.vectors)
    queries = rows.vectors[::9] + HALF(0.125)
    nearest = nearest_of(eligible(queries, rows, None), queries, rows.vectors, 1).rows
    rank = ivf.ranks(queries, cells, nearest)[:, 0]

    for nprobe in range(1, len(cells.centroids) + 1):
        found = search(queries, rows, cells, 1, nprobe=nprobe).rows
        np.testing.assert_array_equal(found[:, 0] == nearest[:, 0], rank < nprobe)


@pytest.mark.parametrize("places", [[-8, 9], [-9, 8]])
def test_search_finds_a_row_past_its_rank_also_if_cells_are_equally_near(places: list[int]):
    """The query lies in the middle of two cells, its nearest row in one of them."""
    bank, query = np.array(places, HALF)[:, None], np.zeros((1, 1), HALF)
    cells = Cells(np.array([[-10], [10]], np.float32), np.array([0, 1, 2]))
    nearest = np.abs(places).argmin()
    rank = int(ivf.ranks(query, cells, np.array([[nearest]]))[0, 0])

    found = search(query, Rows(bank), cells, 1, nprobe=rank + 1)

    assert found.rows.tolist() == [[nearest]]
