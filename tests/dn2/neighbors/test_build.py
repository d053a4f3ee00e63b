from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dn2.neighbors import build, ivf
from dn2.neighbors.build import centres_of, divide, sampled, usual_nlist
from dn2.neighbors.ivf import Cells
from dn2.neighbors.products import Rows
from tests.dn2.neighbors.spread import HALF, clustered, noise, squared


def test_tiny_bank_is_one_cell():
    assert [usual_nlist(rows) for rows in (0, 1, 2, 199, 200, 399)] == [1] * 6
    assert usual_nlist(400) == 2


def test_million_rows_have_about_four_thousand_cells():
    assert 3900 <= usual_nlist(1_000_000) <= 4100


def test_more_rows_never_have_fewer_cells():
    counts = [usual_nlist(rows) for rows in [*range(50_000), *range(50_000, 5_000_000, 997)]]

    assert counts == sorted(counts)


def test_cells_have_at_least_two_hundred_rows_on_average():
    several = [(rows, usual_nlist(rows)) for rows in range(1, 200_000, 7) if usual_nlist(rows) > 1]

    assert min(rows / cells for rows, cells in several) >= 200


def numbered(count: int) -> np.ndarray:
    """(count, 2) rows, each different: thousands and ones."""
    return np.stack(np.divmod(np.arange(count), 1000), 1).astype(HALF)


def numbers(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.int64) @ [1000, 1]


@pytest.mark.parametrize(("rows", "count"), [(10, 1), (100, 99), (30_000, 21_500)])
def test_sample_is_of_different_rows(rows: int, count: int):
    found = sampled(numbered(rows), count)

    assert (found.shape, found.dtype) == ((count, 2), np.float32)
    drawn = numbers(found)
    assert len(set(drawn.tolist())) == count
    assert (drawn.min() >= 0, drawn.max() < rows) == (True, True)


def test_sample_is_drawn_from_everywhere():
    drawn = numbers(sampled(numbered(20_000), 2000))

    assert np.histogram(drawn, 4, (0, 20_000))[0].min() > 400
    assert len(set(np.diff(drawn))) > 5


def test_sample_is_the_same_in_every_run():
    np.testing.assert_array_equal(sampled(numbered(5000), 300), sampled(numbered(5000), 300))


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (7, 7), (7, 8), (12_000, 50_000)])
def test_few_rows_are_all_taken(rows: int, count: int):
    found = sampled(numbered(rows), count)

    np.testing.assert_array_equal(found, numbered(rows).astype(np.float32))
    assert found.dtype == np.float32


@pytest.mark.parametrize("mode", ["c", "r"])
def test_memory_mapped_rows_are_sampled(mode: str, tmp_path: Path):
    np.save(tmp_path / "rows.npy", numbered(500))

    found = sampled(np.load(tmp_path / "rows.npy", mmap_mode=mode), 60)

    np.testing.assert_array_equal(found, sampled(numbered(500), 60))


def assert_divides(vectors: np.ndarray, cells: Cells, order: np.ndarray, nlist: int) -> None:
    """Every row lies in one cell, that of its nearest centroid."""
    assert (cells.centroids.shape, cells.centroids.dtype) == ((nlist, vectors.shape[1]), np.float32)
    assert (cells.starts.shape, cells.starts.dtype) == ((nlist + 1,), np.int64)
    assert (cells.starts[0], cells.starts[-1]) == (0, len(vectors))
    assert (np.diff(cells.starts) >= 0).all()
    assert (sorted(order.tolist()), order.dtype) == (list(range(len(vectors))), np.int64)
    distances = squared(vectors[order], cells.centroids)
    owner = np.repeat(np.arange(nlist), np.diff(cells.starts))
    own = distances[np.arange(len(vectors)), owner]
    assert (own <= distances.min(1) + 1e-4).all()


@pytest.mark.parametrize("nlist", [1, 2, 15, 199, 200])
def test_rows_lie_in_the_cell_of_the_nearest_centroid(nlist: int):
    vectors = clustered(200, seed=0)

    cells, order = divide(vectors, nlist)

    assert_divides(vectors, cells, order, nlist)


def test_larger_bank_is_divided_into_cells_that_are_used():
    vectors = clustered(6000, seed=0)

    cells, order = divide(vectors, 30)

    assert_divides(vectors, cells, order, 30)
    assert np.diff(cells.starts).min() > 0
    assert squared(vectors, cells.centroids).min(1).mean() < 0.7 * vectors.astype(float).var(0).sum()


def test_rows_of_a_cell_keep_their_order():
    cells, order = divide(clustered(1000, seed=0), 7)

    for low, high in zip(cells.starts[:-1], cells.starts[1:], strict=True):
        assert (np.diff(order[low:high]) > 0).all()


def test_as_many_cells_as_rows_hold_one_row_each():
    cells, _ = divide(noise(40), 40)

    assert np.diff(cells.starts).tolist() == [1] * 40


def test_one_row_is_one_cell():
    cells, order = divide(noise(1), 1)

    np.testing.assert_array_equal(cells.centroids, noise(1).astype(np.float32))
    assert (cells.starts.tolist(), order.tolist()) == ([0, 1], [0])


@pytest.mark.parametrize("nlist", [1, 4, 60])
def test_equal_rows_are_divided_too(nlist: int):
    vectors = np.full((60, 5), 2, HALF)

    cells, order = divide(vectors, nlist)

    assert_divides(vectors, cells, order, nlist)
    found = ivf.search(vectors[:2], Rows(vectors[order]), cells, 60, nprobe=1)
    assert found.rows.tolist() == [list(range(60))] * 2


def test_division_is_the_same_in_every_run():
    (one, first), (two, second) = (divide(clustered(3000, seed=0), 25) for _ in range(2))

    np.testing.assert_array_equal(one.centroids, two.centroids)
    np.testing.assert_array_equal(one.starts, two.starts)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("mode", ["c", "r"])
def test_memory_mapped_rows_are_divided(mode: str, tmp_path: Path):
    vectors = clustered(2000, seed=0)
    np.save(tmp_path / "rows.npy", vectors)
    wanted, wanted_order = divide(vectors, 12)

    cells, order = divide(np.load(tmp_path / "rows.npy", mmap_mode=mode), 12)

    np.testing.assert_array_equal(cells.centroids, wanted.centroids)
    np.testing.assert_array_equal(cells.starts, wanted.starts)
    np.testing.assert_array_equal(order, wanted_order)


def test_k_means_sees_no_more_rows_than_it_may_unless_there_are_more_cells(monkeypatch: pytest.MonkeyPatch):
    seen, whole = [], build.centroids
    monkeypatch.setattr(build, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(
        build, "centroids", lambda sample, *a, **b: (seen.append(len(sample)), whole(sample, *a, **b))[1]
    )
    vectors = noise(1000)

    cells, order = divide(vectors, 150)
    divide(vectors, 1)
    divide(vectors, 20)

    assert seen == [150, 50, 100]
    assert_divides(vectors, cells, order, 150)


def assert_represents(vectors: np.ndarray, centres: np.ndarray, rows: np.ndarray) -> None:
    """Centres are different, some row is nearest to each, and the row given is the nearest of them."""
    assert (centres.shape, centres.dtype) == ((len(rows), vectors.shape[1]), np.float32)
    assert rows.dtype == np.int64
    distances = squared(vectors, centres)
    own = distances.argmin(1)
    assert sorted(set(own.tolist())) == list(range(len(rows)))
    for centre, row in enumerate(rows):
        mine = np.flatnonzero(own == centre)
        assert row in mine
        assert distances[row, centre] <= distances[mine, centre].min() + 1e-5


def test_one_centre_is_the_mean_and_its_row_the_nearest_to_it():
    vectors = noise(700)
    mean = vectors.astype(np.float64).mean(0)

    centres, rows = centres_of(vectors, 1)

    np.testing.assert_allclose(centres, mean[None], atol=1e-5)
    assert rows.tolist() == [((vectors - mean) ** 2).sum(1).argmin()]


@pytest.mark.parametrize("count", [2, 9, 100])
def test_rows_lie_nearest_to_their_centre(count: int):
    vectors = clustered(1500, seed=0)

    centres, rows = centres_of(vectors, count)

    assert len(centres) == count
    assert_represents(vectors, centres, rows)


@pytest.mark.parametrize("count", [30, 31, 500])
def test_as_many_centres_as_rows_are_the_rows(count: int):
    vectors = noise(30)

    centres, rows = centres_of(vectors, count)

    assert sorted(rows.tolist()) == list(range(30))
    np.testing.assert_array_equal(centres, vectors[rows].astype(np.float32))


def test_one_row_has_one_centre():
    centres, rows = centres_of(noise(1), 5)

    assert (centres.tolist(), rows.tolist()) == (noise(1).tolist(), [0])


@pytest.mark.parametrize("count", [3, 8, 40, 60, 100])
def test_duplicates_leave_no_centre_without_rows(count: int):
    vectors = np.repeat(noise(4), [30, 1, 9, 20], axis=0)[np.random.default_rng(0).permutation(60)]

    centres, rows = centres_of(vectors, count)

    assert len(centres) <= min(count, 4)
    assert_represents(vectors, centres, rows)


def test_equal_rows_have_one_centre():
    centres, rows = centres_of(np.full((50, 6), 2, HALF), 10)

    np.testing.assert_allclose(centres, np.full((1, 6), 2), rtol=0.01)
    assert rows.tolist() == [0]


@pytest.mark.parametrize("count", [10, 150])
def test_centres_of_a_sample_are_given_rows_of_the_whole(count: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "SAMPLE_ROWS", 100)
    vectors = clustered(1500, seed=0)

    centres, rows = centres_of(vectors, count)

    assert len(centres) == count
    assert_represents(vectors, centres, rows)


def test_centres_are_the_same_in_every_run():
    first, second = (centres_of(clustered(1500, seed=0), 12) for _ in range(2))

    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("mode", ["c", "r"])
def test_memory_mapped_rows_have_the_same_centres(mode: str, tmp_path: Path):
    np.save(tmp_path / "rows.npy", noise(400))
    centres, rows = centres_of(noise(400), 6)

    found = centres_of(np.load(tmp_path / "rows.npy", mmap_mode=mode), 6)

    np.testing.assert_array_equal(found[0], centres)
    np.testing.assert_array_equal(found[1], rows)
