"""What is normal for a size, against the same figures computed the slow way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dn2.groups.sizes import Sizes

RATE = 0.1


def measured(counts: dict[int, int], *, seed: int = 0, groups: int = 9) -> Sizes:
    """Return what is known of sizes, each with so many parts whose distances fall as 1/size."""
    random = np.random.default_rng(seed)
    distances = [(random.gamma(4, 1 / size, count)).astype(np.float32) for size, count in counts.items()]
    return Sizes(list(counts), distances, groups=groups)


def median_of(sizes: Sizes, size: int) -> float:
    return float(np.median(sizes.distances[sizes.sizes.tolist().index(size)]))


def test_sizes_are_taken_in_any_order():
    one, other = np.array([3, 1, 2], np.float32), np.array([9, 8], np.float32)
    sizes = Sizes([20, 4], [other, one], groups=9)

    assert sizes.sizes.tolist() == [4, 20]
    assert [found.tolist() for found in sizes.distances] == [[1, 2, 3], [8, 9]]


def test_typical_distance_is_the_median_where_it_was_measured():
    sizes = measured({2: 50, 3: 40, 8: 31, 100: 20})

    expected = [median_of(sizes, size) for size in (100, 8, 2, 3)]
    np.testing.assert_allclose(sizes.typical(np.array([100, 8, 2, 3])), expected, rtol=1e-12)


@given(st.integers(8, 32))
def test_typical_distance_lies_between_on_logarithmic_scales(size: int):
    sizes = measured({8: 50, 32: 40})

    low, high = median_of(sizes, 8), median_of(sizes, 32)
    share = math.log(size / 8) / math.log(32 / 8)
    assert sizes.typical(np.array([size]))[0] == pytest.approx(low ** (1 - share) * high**share, rel=1e-9)


def test_typical_distance_is_that_of_the_nearest_end_outside():
    sizes = measured({8: 50, 32: 40})

    found = sizes.typical(np.array([1, 7, 33, 10**6]))
    np.testing.assert_allclose(found, np.repeat([median_of(sizes, 8), median_of(sizes, 32)], 2), rtol=1e-12)


def test_falling_distances_are_interpolated_without_a_bend():
    """Distances that fall as 1/size make every score between the measured sizes what it is at them."""
    sizes = Sizes([4, 64], [np.full(20, 1 / 4, np.float32), np.full(20, 1 / 64, np.float32)], groups=9)
    asked = np.arange(4, 65)

    np.testing.assert_allclose(sizes.scores((1 / asked).astype(np.float32), asked), 1, rtol=1e-6)


def test_score_is_the_distance_over_the_typical_one():
    sizes = measured({2: 50, 8: 40})
    distances, asked = np.array([0, 0.5, 3, 1e4], np.float32), np.array([2, 8, 8, 2])

    medians = np.array([median_of(sizes, size) for size in asked])
    scores = sizes.scores(distances, asked)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, distances / medians, rtol=1e-6)


@given(st.integers(0, 1000), st.integers(0, 10))
def test_p_values_at_measured_sizes_are_ranks_among_the_parts(nth: int, seed: int):
    """A score equal to that of a part is counted with it; the sizes know nothing of each other."""
    sizes = measured({2: 60, 9: 35, 40: 19}, seed=seed)
    for level, size in enumerate((2, 9, 40)):
        known = sizes.distances[level]
        asked = np.array([known[nth % len(known)], 0, 2 * known[-1], known[0] / 2], np.float32)
        expected = [(1 + int((known >= one).sum())) / (len(known) + 1) for one in asked]

        at = np.full(4, size)
        np.testing.assert_array_equal(sizes.p_values(sizes.scores(asked, at), at), expected)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.3, 0.5])
def test_thresholds_are_order_statistics_of_each_size(rate: float):
    sizes = measured({2: 300, 9: 150, 40: 120})
    asked = np.array([40, 2, 9, 2])

    thresholds, promised = sizes.thresholds(asked, rate)

    for threshold, size in zip(thresholds, asked, strict=True):
        known = sizes.distances[sizes.sizes.tolist().index(size)] / median_of(sizes, size)
        allowed = math.floor((len(known) + 1) * rate + 1e-9)
        assert threshold == np.float32(np.sort(known)[len(known) - allowed])
        assert (known.astype(np.float32) > threshold).sum() == allowed - 1
    assert promised == rate


@given(st.integers(0, 20), st.sampled_from([0.02, 0.05, 0.1, 0.25, 0.7]))
def test_group_is_above_its_threshold_where_its_p_value_is_at_most_the_rate(seed: int, rate: float):
    """Both decide alike, at sizes that were measured and at others."""
    sizes = measured({2: 120, 9: 71, 40: 53}, seed=seed)
    random = np.random.default_rng(seed)
    asked = random.integers(2, 80, 200)
    scores = sizes.scores(random.gamma(4, 2 / asked).astype(np.float32), asked)

    thresholds, promised = sizes.thresholds(asked, rate)

    assert promised == rate
    np.testing.assert_array_equal(scores > thresholds, sizes.p_values(scores, asked) <= rate + 1e-9)


def test_sizes_with_too_few_parts_are_judged_at_the_nearest_one_with_enough():
    """As many parts as there are groups, here nine, are enough: 30 has eight."""
    sizes = measured({3: 40, 10: 9, 30: 8})
    asked = np.array([3, 5, 6, 10, 30, 500])

    thresholds, promised = sizes.thresholds(asked, RATE)

    of = {size: np.sort(sizes.distances[level] / median_of(sizes, size)) for level, size in enumerate((3, 10))}
    small, large = np.float32(of[3][-4]), np.float32(of[10][-1])
    assert thresholds.tolist() == [small, small, large, large, large, large]
    assert promised == RATE
    assert (sizes.fewest(asked), sizes.fewest(asked[:2]), sizes.fewest(asked[:0])) == (9, 40, 0)
    above = np.array([1e9], np.float32)
    assert [sizes.p_values(above, np.array([size]))[0] for size in (5, 500)] == [1 / 41, 1 / 10]


def test_score_at_a_size_with_too_few_parts_still_is_over_its_own_typical_distance():
    sizes = measured({3: 40, 30: 5})
    typical = np.array([median_of(sizes, 30)], np.float32)

    assert sizes.scores(typical, np.array([30])) == pytest.approx(1)


@pytest.mark.parametrize(("counts", "most"), [({3: 8, 10: 6}, 3), ({3: 6, 10: 8}, 10)])
def test_no_size_with_enough_parts_leaves_the_one_with_most_and_says_what_it_promises(
    counts: dict[int, int], most: int
):
    sizes = measured(counts, groups=50)

    thresholds, promised = sizes.thresholds(np.array([3, 10, 99]), 0.01)

    (level,) = np.flatnonzero(sizes.sizes == most)
    assert thresholds.tolist() == [np.float32(sizes.distances[level][-1] / median_of(sizes, most))] * 3
    assert promised == pytest.approx(1 / 9)


def test_any_rate_can_be_asked_for():
    sizes = measured({3: 99})
    known = np.sort(sizes.distances[0] / median_of(sizes, 3)).astype(np.float32)

    assert sizes.thresholds(np.array([3]), 0.2) == (known[-20], 0.2)
    assert sizes.thresholds(np.array([3]), 0.001) == (known[-1], 1 / 100)
    assert sizes.thresholds(np.array([3]), 0.01) == (known[-1], 0.01)


def test_no_group_asked_for_promises_nothing():
    thresholds, promised = measured({3: 9}).thresholds(np.zeros(0, np.int64), RATE)

    assert (thresholds.tolist(), promised) == ([], 0)


def test_parts_that_are_all_equally_far_flag_only_what_is_farther():
    sizes = Sizes([4], [np.full(50, 0.3, np.float32)], groups=9)
    at = np.array([4, 4, 4])

    scores = sizes.scores(np.array([0.2, 0.3, 0.4], np.float32), at)

    thresholds, _ = sizes.thresholds(at, RATE)
    assert (scores > thresholds).tolist() == [False, False, True]
    assert sizes.p_values(scores, at).tolist() == [1, 1, 1 / 51]


@pytest.mark.parametrize("zeros", [50, 30])
def test_copies_at_no_distance_do_not_divide_by_zero(zeros: int):
    """Normal groups that are all the same: whatever differs is anomalous, and its score is a number."""
    distances = np.concatenate([np.zeros(zeros), np.full(50 - zeros, 25)]).astype(np.float32)
    sizes = Sizes([4], [distances], groups=9)
    at = np.array([4, 4, 4])

    scores = sizes.scores(np.array([0, 1e-3, 100], np.float32), at)

    thresholds, _ = sizes.thresholds(at, RATE)
    assert np.isfinite(scores).all()
    assert scores[0] == 0
    assert (scores > thresholds).tolist() == [False, zeros == 50, True]
    assert sizes.p_values(scores, at)[2] == 1 / 51


def test_never_more_than_99_parts_are_needed_however_many_groups_there_are():
    sizes = measured({3: 2000, 30: 99, 40: 98}, groups=2000)
    assert [sizes.fewest(np.array([size])) for size in (3, 30, 40)] == [2000, 99, 99]
