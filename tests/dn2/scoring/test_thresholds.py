from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dn2.config import ThresholdConfig
from dn2.records import BankVersion
from dn2.scoring.calibration import Calibration
from dn2.scoring.thresholds import Largest, Threshold, choose_threshold, remembered

BANK = BankVersion(
    name="parts",
    version="0" * 16,
    embedder="e-1",
    rows=200,
    dim=4,
    k=2,
    metric="l2",
    threshold=198.0,
    false_alarm_rate=0.01,
    attainable_rate=0.01,
    calibration="leave-one-out",
    calibration_rows=199,
    rejected=0,
)
CALIBRATION = Calibration.of(np.arange(1, 200, dtype=np.float32))
NONE = np.empty(0, np.float32)
scores = arrays(np.float32, st.integers(0, 60), elements=st.integers(0, 20).map(float))


def chosen(batch: np.ndarray = NONE, **rule: float) -> Threshold:
    config = ThresholdConfig(**rule)
    largest = Largest(remembered(config))
    for part in np.array_split(batch, 3):
        largest.add(part.astype(np.float32))
    return choose_threshold(config, BANK, CALIBRATION, largest.scores)


def test_without_a_rule_it_is_the_banks_own():
    assert chosen() == Threshold(198.0, "the bank's own, for a false-alarm rate of 1%")


@pytest.mark.parametrize(("rate", "value"), [(0.01, 198), (0.005, 199), (0.1, 180), (0.999, 1)])
def test_threshold_by_rate_comes_from_the_calibration(rate: float, value: float):
    found = chosen(false_alarm_rate=rate)
    assert (found.value, found.warning) == (value, None)


def test_rate_that_cannot_be_promised_is_warned_of():
    found = chosen(false_alarm_rate=0.0049)
    assert (found.value, found.rule) == (199, "a false-alarm rate of 0.49%")
    assert found.warning == (
        "the bank has only 199 calibration images: its threshold promises a false-alarm rate of 0.50%, "
        "not the 0.49% asked for"
    )


@pytest.mark.parametrize(
    ("quantile", "value"), [(1, 199), (0.5, 100), (0.001, 1), (1e-9, 1), (0.995, 199), (0.99, 198)]
)
def test_threshold_by_quantile_is_a_calibration_score(quantile: float, value: float):
    """The smallest one that is at least as large as that share of them."""
    found = chosen(quantile=quantile)
    assert (found.value, found.rule, found.warning) == (
        value,
        f"the quantile {quantile:.6g} of the calibration scores",
        None,
    )


@pytest.mark.parametrize("share", range(1, 101))
def test_quantile_has_the_share_that_was_written_not_its_floating_point(share: int):
    """0.07 times 100 is above 7 in floating point."""
    calibration = Calibration.of(np.arange(1, 101, dtype=np.float32))
    found = choose_threshold(ThresholdConfig(quantile=share / 100), BANK, calibration, NONE)
    assert found.value == share


def test_fixed_number_is_what_scores_can_be_compared_with():
    found = chosen(value=0.1)
    assert (found.value, found.rule) == (float(np.float32(0.1)), "a fixed number, 0.1")
    assert chosen(value=0).value == 0
    assert np.isfinite(chosen(value=1e38).value)


@given(scores, st.integers(1, 70))
def test_budget_flags_the_most_that_it_may_and_never_parts_equal_scores(batch: np.ndarray, budget: int):
    found = chosen(batch, budget=budget)
    flagged = batch[batch > np.float32(found.value)]

    assert len(flagged) <= budget
    assert found.rule.startswith(f"at most {budget} images of this batch")
    passed = batch[batch <= np.float32(found.value)]
    if len(batch):
        assert len(flagged) + (passed == passed.max(initial=-1)).sum() > budget or not len(passed)


@pytest.mark.parametrize(
    ("batch", "budget", "flagged"),
    [
        ([1, 2, 3, 4], 2, 2),
        ([1, 3, 3, 4], 2, 1),  # a tie at the cut: fewer, never more
        ([3, 3, 3, 3], 2, 0),
        ([3, 3, 3, 3], 4, 4),
        ([0, 0], 2, 2),  # just below zero
        ([5], 1, 1),
        ([1e38, 2e38], 10, 2),
    ],
)
def test_budget_with_and_without_ties(batch: list[float], budget: int, flagged: int):
    values = np.array(batch, np.float32)
    assert (values > np.float32(chosen(values, budget=budget).value)).sum() == flagged


def test_budget_for_nothing_is_the_banks_own_threshold():
    assert chosen(budget=3) == Threshold(
        198.0,
        "at most 3 images of this batch; as none was scored, the bank's own, for a false-alarm rate of 1%",
    )


@given(scores, st.integers(0, 70), st.integers(1, 7))
def test_largest_of_parts_are_the_largest_of_all(batch: np.ndarray, count: int, parts: int):
    largest = Largest(count)
    for part in np.array_split(batch, parts):
        largest.add(part)
    assert largest.scores.tolist() == np.sort(batch)[::-1][:count].tolist()
