from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dn2.scoring.calibration import Calibration
from dn2.scoring.scores import mean_distance


def shuffled(count: int) -> np.ndarray:
    """The scores 1 to count, so that a threshold tells its rank."""
    return np.random.default_rng(0).permutation(np.arange(1, count + 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "threshold", "attainable"),
    [
        (1, 1, 1 / 2),
        (10, 10, 1 / 11),
        (50, 50, 1 / 51),
        (98, 98, 1 / 99),
        (99, 99, 0.01),  # 1 of 100 may be above the largest
        (100, 100, 0.01),
        (199, 198, 0.01),  # 2 of 200 above the second largest
        (1000, 991, 0.01),  # 10 of 1001 above the tenth largest
        (9999, 9900, 0.01),
    ],
)
def test_threshold_at_one_percent(count: int, threshold: float, attainable: float):
    assert Calibration.of(shuffled(count)).threshold(0.01) == (threshold, pytest.approx(attainable, abs=1e-15))


@pytest.mark.parametrize(("rate", "threshold"), [(0.05, 95), (0.07, 93), (0.29, 71), (0.5, 50), (0.99, 1)])
def test_threshold_at_other_rates_with_99_scores(rate: float, threshold: float):
    """100 times 0.07 is above 7 in floating point and 100 times 0.29 below 29: neither may move the rank."""
    assert Calibration.of(shuffled(99)).threshold(rate) == (threshold, rate)


def test_rate_near_one_flags_all_but_the_smallest():
    assert Calibration.of(shuffled(5)).threshold(0.999999999999) == (1, 0.999999999999)


distinct = st.lists(st.integers(0, 10**6), min_size=1, max_size=300, unique=True)


@settings(deadline=None)
@given(distinct, st.integers(1, 999).map(lambda number: number / 1000), st.integers(0, 10**6))
def test_anomalous_means_that_the_p_value_is_at_most_the_rate(scores: list[int], rate: float, score: int):
    calibration = np.array(scores, np.float32)
    threshold, attainable = Calibration.of(calibration).threshold(rate)
    assume(attainable == rate)

    (p_value,) = Calibration.of(calibration).p_values(np.array([score], np.float32))

    assert (score > threshold) == (p_value <= rate + 1e-12)


@settings(deadline=None)
@given(distinct, st.floats(0.001, 0.999))
def test_no_more_scores_are_above_the_threshold_than_the_rate_promises(scores: list[int], rate: float):
    """Put a further image among the calibration images: the share of places where it would be flagged is the rate's."""
    count = len(scores)
    threshold, attainable = Calibration.of(np.array(scores, np.float32)).threshold(rate)
    places = 1 + int((np.array(scores) > threshold).sum())

    assert places / (count + 1) <= attainable + 1e-9
    if attainable == rate and rate < count / (count + 1):
        assert (places + 1) / (count + 1) > rate


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40), st.lists(st.integers(-1, 21), max_size=20))
def test_p_values_count_what_is_at_least_as_large(calibration: list[int], scores: list[int]):
    naive = [(1 + sum(other >= score for other in calibration)) / (len(calibration) + 1) for score in scores]

    ascending = np.sort(np.array(calibration, np.float32))
    assert Calibration.of(ascending).p_values(np.array(scores, np.float32)).tolist() == naive


def test_score_is_the_mean_of_the_squared_distances():
    scores = mean_distance(np.array([[1, 2], [0, 0], [3e38, 3e38]], np.float32))

    assert scores.dtype == np.float32
    assert scores.tolist() == [1.5, 0.0, np.float32(3e38)]
