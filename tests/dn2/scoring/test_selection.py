from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from dn2.scoring.calibration import Calibration
from dn2.scoring.selection import calibration_needed, images_needed, q_values_by_rank, shortage

batches = st.integers(1, 60).flatmap(
    lambda rows: st.tuples(st.just(rows), st.lists(st.integers(1, rows + 1), min_size=1, max_size=80))
)
rates = st.integers(1, 99).map(lambda number: number / 100)


def counted(batch: list[int], rows: int) -> np.ndarray:
    """How many images are of each rank: p = (1 + rank) / (n + 1)."""
    return np.bincount(np.array(batch, np.int64) - 1, minlength=rows + 1)


def calibrated(rows: int) -> Calibration:
    return Calibration.of(np.arange(rows, dtype=np.float32))


def q_values(batch: list[int], rows: int) -> np.ndarray:
    """The q-value of each image of a batch, as a report has it."""
    return q_values_by_rank(counted(batch, rows), calibrated(rows))[np.array(batch, np.int64) - 1]


def by_hand(batch: list[int], rows: int, rate: float) -> int:
    """How many images the procedure of 1995 selects: the largest i with p of rank i at most i q / m."""
    ascending = sorted(level / (rows + 1) for level in batch)
    passed = [i for i, p in enumerate(ascending, start=1) if p <= i * rate / len(batch) + 1e-12]
    return max(passed, default=0)


@settings(deadline=None)
@given(batches)
def test_q_values_are_those_of_scipy(batch: tuple[int, list[int]]):
    rows, found = batch
    p_values = np.array(found) / (rows + 1)

    np.testing.assert_allclose(q_values(found, rows), false_discovery_control(p_values), rtol=1e-12)


@settings(deadline=None)
@given(batches, rates)
def test_selected_are_those_of_the_procedure_done_by_hand(batch: tuple[int, list[int]], rate: float):
    rows, found = batch
    assert (q_values(found, rows) <= rate).sum() == by_hand(found, rows, rate)


@given(batches)
def test_q_values_never_fall_and_are_never_below_p(batch: tuple[int, list[int]]):
    rows, found = batch
    by_rank = q_values_by_rank(counted(found, rows), calibrated(rows))
    assert by_rank.shape == (rows + 1,)
    assert np.all(np.diff(by_rank) >= 0)
    assert np.all(by_rank >= np.arange(1, rows + 2) / (rows + 1) - 1e-15)
    assert by_rank[-1] == 1


def test_one_image_has_its_p_value():
    assert q_values([1], 3).tolist() == [0.25]


def test_empty_batch_has_no_q_value():
    assert q_values(np.empty(0), 9).tolist() == []


@pytest.mark.parametrize(
    ("images", "rows", "rate", "needed"),
    [
        (1000, 2000, 0.1, 5),  # 1000 / 200.1
        (1000, 1999, 0.1, 5),  # 1000 / 200
        (1000, 1998, 0.1, 6),  # just too few
        (1000, 9999, 0.1, 1),
        (1000, 9998, 0.1, 2),
        (30, 9, 0.1, 30),  # all of them
        (30, 8, 0.1, 34),  # more than there are
        (100, 99, 0.3, 4),
        (3, 9, 0.3, 1),  # 0.3 * 10 is 3, whatever floating point makes of it
    ],
)
def test_images_needed_on_both_sides_of_each_step(images: int, rows: int, rate: float, needed: int):
    assert images_needed(images, rows, rate) == needed
    for highest, chosen in ((needed, True), (needed - 1, False)):
        if 0 < highest <= images:
            batch = [1] * highest + [rows + 1] * (images - highest)
            assert (by_hand(batch, rows, rate) >= highest) == chosen


@settings(deadline=None)
@given(st.integers(1, 400), st.data(), rates)
def test_calibration_needed_selects_and_one_score_less_does_not(images: int, data: st.DataObject, rate: float):
    highest = data.draw(st.integers(1, images))
    rows = calibration_needed(images, highest, rate)

    def selected(rows: int) -> int:
        batch = [1] * highest + [rows + 1] * (images - highest)
        return int((q_values(batch, rows)[:highest] <= rate).sum())

    assert selected(rows) == highest
    if rows > 1 and highest < images:
        assert selected(rows - 1) == 0


@settings(deadline=None)
@given(batches, rates)
def test_shortage_is_told_exactly_when_too_few_scores_are_the_reason(batch: tuple[int, list[int]], rate: float):
    """That is: nothing is selected, but something scores above them all, or nothing could ever be selected."""
    rows, found = batch
    counts = counted(found, rows)
    selected = by_hand(found, rows, rate)
    hopeless = by_hand([1] * len(found), rows, rate) == 0

    told = shortage(counts, rows, selected, rate)

    assert (told is not None) == (selected == 0 and (hopeless or counts[0] > 0))


@pytest.mark.parametrize(
    ("highest", "rows", "told"),
    [
        (5, 1999, None),
        (
            4,
            1999,
            "no image is selected at a false-discovery rate of 10%: 4 of 1000 images score above all 1999 calibration "
            "scores, 5 would have to; or calibrate with 2499 scores",
        ),
        (4, 2499, None),
        (
            4,
            2498,
            "no image is selected at a false-discovery rate of 10%: 4 of 1000 images score above all 2498 calibration "
            "scores, 5 would have to; or calibrate with 2499 scores",
        ),
        (0, 1999, None),  # nothing scores high: that is no shortage
        (1000, 9, None),
        (
            0,
            8,
            "8 calibration scores are too few to select any image at a false-discovery rate of 10%: 9 would do if all "
            "1000 images scored above them, 9999 if one did",
        ),
    ],
)
def test_shortage_says_how_many_would_do(highest: int, rows: int, told: str | None):
    counts = counted([1] * highest + [rows + 1] * (1000 - highest), rows)
    selected = int(counts[q_values_by_rank(counts, calibrated(rows)) <= 0.1].sum())
    assert shortage(counts, rows, selected, 0.1) == told


def test_batch_without_a_score_is_short_of_nothing():
    assert shortage(np.zeros(5, np.int64), 4, 0, 0.1) is None
