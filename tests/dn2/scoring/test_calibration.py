from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dn2.neighbors.bank import keys
from dn2.scoring.calibration import held_out_rows, leave_one_out, usable_groups
from tests.dn2.scoring.synthetic import normal_vectors


def naive(vectors: np.ndarray, k: int, names: list[tuple[str | None, ...]]) -> list[float]:
    """Score each row against the rows that share none of its names."""
    wide = vectors.astype(np.float64)
    scores = []
    for row, mine in enumerate(names):
        others = [
            other
            for other, theirs in enumerate(names)
            if not any(a is not None and a == b for a, b in zip(mine, theirs, strict=True))
        ]
        distances = np.sort(((wide[others] - wide[row]) ** 2).sum(1))[:k]
        scores.append(float(distances.mean()))
    return scores


def score(vectors: np.ndarray, k: int, names: list[tuple[str | None, ...]]) -> list[float]:
    row_keys = np.stack([keys(column) for column in zip(*names, strict=True)])
    return leave_one_out(vectors, k, row_keys, memory_mb=16).tolist()


def test_leave_one_out_is_the_naive_loop_by_id():
    vectors = normal_vectors(200, seed=0)
    names = [(f"id{row}", f"content{row}", None) for row in range(200)]

    np.testing.assert_allclose(score(vectors, 2, names), naive(vectors, 2, names), rtol=1e-6)


def test_copies_under_two_names_are_not_each_others_neighbours():
    vectors = np.repeat(normal_vectors(20, seed=0), 3, axis=0)
    names = [(f"id{row}", f"content{row // 3}", None) for row in range(60)]

    scores = score(vectors, 2, names)

    np.testing.assert_allclose(scores, naive(vectors, 2, names), rtol=1e-6)
    assert min(scores) > 0


def test_near_duplicates_with_other_bytes_survive():
    """The same picture saved twice in other ways is a normal image that was seen before."""
    vectors = np.repeat(normal_vectors(20, seed=0), 3, axis=0)
    names = [(f"id{row}", f"content{row}", None) for row in range(60)]

    assert score(vectors, 2, names) == [0.0] * 60


def test_groups_are_left_out_as_a_whole():
    vectors = np.repeat(normal_vectors(20, seed=0), 3, axis=0)
    names = [(f"id{row}", f"content{row}", f"burst{row // 3}" if row < 30 else None) for row in range(60)]

    scores = score(vectors, 2, names)

    np.testing.assert_allclose(scores, naive(vectors, 2, names), rtol=1e-6)
    assert min(scores[:30]) > 0 == max(scores[30:])


def test_groups_are_used_where_enough_images_are_left():
    groups = np.array([7, 7, 7, 8, 8, -1])
    contents = np.arange(6)

    assert usable_groups(groups, contents, 3).tolist() == groups.tolist()
    assert usable_groups(groups, contents, 4).tolist() == [-1] * 6


def test_without_groups_nothing_is_left_out():
    assert usable_groups(np.full(4, -1), np.arange(4), 10).tolist() == [-1] * 4


def test_copies_outside_the_group_do_not_count_as_images_left():
    """Row 0's only others are rows 3 and 4, and row 3 is a copy of it."""
    groups, contents = np.array([7, 7, 7, -1, -1]), np.array([1, 2, 3, 1, 5])

    assert usable_groups(groups, contents, 2).tolist() == [-1] * 5
    assert usable_groups(groups, contents, 1).tolist() == groups.tolist()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3)), min_size=1, max_size=15), st.integers(1, 5))
def test_usable_groups_always_leave_k_others(rows: list[tuple[int, int]], k: int):
    contents, groups = np.array(rows).T
    naive_others = [
        sum(theirs[0] != mine[0] and theirs[1] != mine[1] for theirs in rows) for mine in rows if mine[1] != -1
    ]

    expected = groups if all(others >= k for others in naive_others) else np.full(len(rows), -1)
    assert usable_groups(groups, contents, k).tolist() == expected.tolist()


keyed_rows = st.lists(st.tuples(st.integers(0, 60), st.integers(-1, 12)), min_size=5, max_size=120)


@settings(deadline=None)
@given(keyed_rows)
def test_held_out_rows_keep_groups_and_copies_together(rows: list[tuple[int, int]]):
    contents, groups = np.array(rows).T
    held_out = held_out_rows(contents, groups)

    for group in set(groups) - {-1}:
        assert len(set(held_out[groups == group])) == 1
    for content in set(contents[groups == -1]):
        assert len(set(held_out[(contents == content) & (groups == -1)])) == 1
    assert held_out.sum() <= max(1, len(rows) // 5)
    assert held_out.tolist() == held_out_rows(contents, groups).tolist()


def test_held_out_rows_are_a_fifth_and_at_most_five_thousand():
    sizes = {
        count: int(held_out_rows(np.arange(count), np.full(count, -1)).sum()) for count in (10, 1000, 25_000, 60_000)
    }

    assert sizes == {10: 2, 1000: 200, 25_000: 5000, 60_000: 5000}


def test_group_too_large_to_be_set_apart_stays_in_the_bank():
    groups = np.array([1] * 90 + list(range(2, 12)))

    assert not held_out_rows(np.arange(100), groups)[:90].any()
    assert held_out_rows(np.arange(100), groups).sum() == 10
