from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dn2.groups.distinct import each_image
from dn2.groups.parts import ladder, parts_of

counts_of_groups = st.lists(st.integers(2, 400), min_size=5, max_size=60).map(np.array)


@given(counts_of_groups, st.integers(1, 2))
def test_ladder_goes_from_the_smallest_size_to_the_largest_that_five_groups_have(counts: np.ndarray, smallest: int):
    sizes = ladder(counts, smallest)

    assert sizes == tuple(sorted(set(sizes)))
    assert (sizes[0], sizes[-1]) == (smallest, np.sort(counts)[-5])
    assert (np.diff(sizes) <= np.maximum(1, 0.5 * np.array(sizes[:-1]))).all()


@given(counts_of_groups)
def test_commonest_size_is_measured_if_five_groups_have_as_many(counts: np.ndarray):
    commonest = int(np.bincount(counts).argmax())

    assert (commonest in ladder(counts, 2)) == ((counts >= commonest).sum() >= 5 or commonest in ladder(counts, 2)[:-1])


@pytest.mark.parametrize(
    ("counts", "smallest", "expected"),
    [
        ([10] * 5, 2, (2, 3, 4, 6, 8, 10)),
        ([7] * 40, 7, (7,)),
        ([3], 3, (3,)),
        ([10] * 3, 2, (2, 3, 4, 6, 8, 10)),  # fewer than five groups: up to the smallest one
        ([4, 10, 20], 2, (2, 3, 4)),
        ([100, *[4] * 6], 4, (4,)),  # parts of one large group would say more about it than about their size
        ([3, 3, 3, 3, 3, 50], 2, (2, 3)),
        ([300] * 5 + [5] * 20, 5, (5, 7, 10, 14, 20, 28, 40, 57, 80, 113, 160, 226, 300)),
    ],
)
def test_ladder_of_known_groups(counts: list[int], smallest: int, expected: tuple[int, ...]):
    assert ladder(np.array(counts), smallest) == expected


@pytest.mark.parametrize("counts", [[10**6], [10**6] * 50, [2] * 1000 + [10**6] * 5])
def test_giant_group_makes_a_short_ladder(counts: list[int]):
    sizes = ladder(np.array(counts), 2)

    assert (sizes[0], sizes[-1]) == (2, 10**6)
    assert len(sizes) < 45


def cut(counts: list[int], size: int, *, loose: int = 5, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return groups, keys and parts of images in random order, some of which have no group."""
    random = np.random.default_rng(seed)
    groups = random.permutation(np.append(np.repeat(np.arange(len(counts)), counts), np.full(loose, -1)))
    image_keys = random.integers(-(2**63), 2**63 - 1, len(groups))
    return groups, image_keys, *parts_of(groups, each_image(groups, image_keys), size)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(1, 70))
def test_parts_are_whole_do_not_overlap_and_never_mix_groups(counts: list[int], size: int):
    groups, _, part_of, part_groups = cut(counts, size)

    assert len(part_groups) == sum(count // size for count in counts)
    assert (part_of[groups == -1] == -1).all()
    inside = part_of >= 0
    assert (np.bincount(part_of[inside], minlength=len(part_groups)) == size).all()
    assert (groups[inside] == part_groups[part_of[inside]]).all()
    assert np.bincount(part_groups, minlength=len(counts)).tolist() == [count // size for count in counts]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(1, 8), st.integers(0, 9))
def test_order_of_the_rows_changes_no_part(counts: list[int], size: int, seed: int):
    groups, image_keys, part_of, part_groups = cut(counts, size)
    order = np.random.default_rng(seed).permutation(len(groups))

    again, groups_again = parts_of(groups[order], each_image(groups[order], image_keys[order]), size)

    np.testing.assert_array_equal(again, part_of[order])
    np.testing.assert_array_equal(groups_again, part_groups)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 400), min_size=20, max_size=60), st.integers(2, 5))
def test_at_most_2000_parts_are_taken_as_evenly_as_can_be(counts: list[int], size: int):
    """What one group has more than another it has because the other has no more."""
    *_, part_groups = cut(counts, size)

    possible = np.array(counts) // size
    taken = np.bincount(part_groups, minlength=len(counts))
    assert len(part_groups) == min(2000, possible.sum())
    assert (taken <= possible).all()
    assert taken[taken < possible].min(initial=2000) >= taken.max() - 1


def test_thousands_of_groups_give_one_part_each_at_most():
    _, _, part_of, part_groups = cut([3] * 2500, 3)

    assert len(part_groups) == len(set(part_groups)) == 2000
    assert (part_of >= 0).sum() == 6000


def test_which_groups_are_left_out_does_not_follow_their_order():
    """Otherwise the first folders of a listing would stand for all."""
    *_, part_groups = cut([3] * 4000, 3)

    assert 0.4 < (part_groups < 2000).mean() < 0.6


def test_parts_do_not_follow_the_order_in_a_group():
    """Neighbouring frames are alike: a part of them would scatter more than a group."""
    count = 1000
    image_keys = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, count)
    groups = np.zeros(count, np.int64)
    part_of, _ = parts_of(groups, each_image(groups, image_keys), 10)

    centres = np.array([np.flatnonzero(part_of == part).mean() for part in range(100)])
    assert centres.std() < 0.2 * count
    assert abs(centres.mean() - count / 2) < 0.02 * count


@pytest.mark.parametrize("counts", [[], [4, 2]])
def test_no_part_is_made_where_no_group_is_large_enough(counts: list[int]):
    _, _, part_of, part_groups = cut(counts, 5)

    assert (part_of == -1).all()
    assert len(part_groups) == 0
