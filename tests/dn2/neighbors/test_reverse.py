from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dn2.neighbors.reverse import covered, distances_to, radii


def unit_vectors(count: int, *, seed: int, dim: int = 16) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def naive(queries: np.ndarray, query_keys: np.ndarray, centers: np.ndarray, center_keys: np.ndarray) -> np.ndarray:
    """Return (Q, S) float64 squared distances, infinite where a key is shared."""
    found = np.empty((len(queries), len(centers)))
    for row, query in enumerate(queries.astype(np.float64)):
        for column, center in enumerate(centers.astype(np.float64)):
            pairs = zip(query_keys[:, row], center_keys[:, column], strict=True)
            same = any(mine != -1 and mine == theirs for mine, theirs in pairs)
            found[row, column] = np.inf if same else ((query - center) ** 2).sum()
    return found


def random_keys(count: int, *, seed: int) -> np.ndarray:
    """Return (2, count): ids that all differ, contents of which some are equal or unknown."""
    return np.stack([np.arange(count), np.random.default_rng(seed).integers(-1, 15, count)])


def test_distances_are_those_of_the_naive_loop_but_infinite_to_oneself_and_to_copies():
    queries, centers = unit_vectors(60, seed=0), unit_vectors(40, seed=1)
    query_keys, center_keys = random_keys(60, seed=2), random_keys(40, seed=3)
    expected = naive(queries, query_keys, centers, center_keys)

    (found,) = distances_to(queries, query_keys, centers, center_keys)

    assert (found.dtype, found.shape) == (np.dtype(np.float32), (60, 40))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.isinf(found).sum() == np.isinf(expected).sum() > 40


def test_queries_come_in_blocks_and_in_order():
    queries, centers = unit_vectors(2500, seed=0), unit_vectors(5, seed=1)
    query_keys, center_keys = np.arange(2500)[None], np.array([[0, 1100, 2499, -1, 7000]])

    blocks = list(distances_to(queries, query_keys, centers, center_keys))

    assert [len(block) for block in blocks] == [1024, 1024, 452]
    found = np.concatenate(blocks)
    assert np.argwhere(np.isinf(found)).tolist() == [[0, 0], [1100, 1], [2499, 2]]
    expected = ((queries[:, None].astype(np.float64) - centers.astype(np.float64)) ** 2).sum(2)
    np.testing.assert_allclose(found[:, 3], expected[:, 3], atol=1e-5)


def test_equal_vectors_of_different_images_are_at_no_distance_and_never_below():
    vectors = np.repeat(unit_vectors(20, seed=0, dim=512), 3, axis=0)
    keys = np.arange(60)[None]

    (found,) = distances_to(vectors, keys, vectors, keys)

    assert found.min() >= 0
    np.testing.assert_allclose(found[0, 1:3], 0, atol=1e-5)
    assert np.isinf(np.diagonal(found)).all()


def test_no_queries_have_no_distances():
    none = np.empty((0, 16), np.float16)
    assert list(distances_to(none, np.empty((1, 0), np.int64), unit_vectors(3, seed=0), np.arange(3)[None])) == []


@pytest.mark.parametrize("count", [12, 1500])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_radius_is_midway_between_the_kth_nearest_other_and_the_next(count: int, k: int):
    distances = np.random.default_rng(0).random((count, count)).astype(np.float32)
    np.fill_diagonal(distances, np.inf)

    nearest = np.sort(distances, axis=1)
    np.testing.assert_array_equal(radii(distances, k), (nearest[:, k - 1] + nearest[:, k]) / 2)


def test_ball_of_a_row_with_fewer_others_than_k_holds_them_all():
    """Row 1 has a single other row, row 2 none: nothing lies in the ball of the latter."""
    inf = np.inf
    distances = np.array([[inf, 1, 2, 3], [inf, inf, 4, inf], [inf] * 4, [3, 0, 1, inf]], np.float32)

    assert radii(distances, 3).tolist() == [3.5, 4.5, -0.5, 3.5]
    found = covered(distances, radii(distances, 3), np.array([1, 10, 100, 1000], np.float32))
    assert found.tolist() == [1010, 0, 0, 11]


@settings(deadline=None)
@given(
    arrays.arrays(np.float32, (7, 5), elements=st.one_of(st.just(np.inf), st.integers(0, 9).map(float))),
    arrays.arrays(np.float32, 5, elements=st.integers(-1, 9).map(float)),
    arrays.arrays(np.float32, 5, elements=st.integers(0, 100).map(float)),
)
def test_row_has_the_weights_of_the_balls_it_lies_in(distances: np.ndarray, limits: np.ndarray, weights: np.ndarray):
    """Its edge belongs to a ball; an image that is infinitely far away, being the same, never lies in it."""
    expected = [sum(weights[ball] for ball in range(5) if row[ball] <= limits[ball]) for row in distances]

    assert covered(distances, limits, weights).tolist() == expected


def test_rows_beyond_one_block_are_counted_too():
    distances = np.arange(3000, dtype=np.float32)[:, None]
    found = covered(distances, np.array([2500], np.float32), np.array([3], np.float32))
    assert (found.tolist(), len(found)) == ([3.0] * 2501 + [0.0] * 499, 3000)
