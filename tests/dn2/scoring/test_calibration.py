from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from dn2.neighbors.exact import search
from dn2.neighbors.segments import keys
from dn2.scoring.calibration import Calibration, held_out_rows, trusted
from dn2.scoring.scores import mean_distance
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
    found = search(vectors, vectors, k, query_keys=row_keys, bank_keys=row_keys, memory_mb=16)
    return mean_distance(found.distances).tolist()


def test_rows_scored_against_all_others_are_the_naive_loop_by_id():
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


keyed_rows = st.lists(st.tuples(st.integers(0, 60), st.integers(-1, 12)), min_size=5, max_size=120)


@settings(deadline=None)
@given(keyed_rows)
def test_held_out_rows_keep_groups_and_copies_together(rows: list[tuple[int, int]]):
    contents, groups = np.array(rows).T
    contents += 1000  # keys are hashes: a group's is no content's
    held_out, calibrates = held_out_rows(contents, groups)

    for group in set(groups) - {-1}:
        assert len(set(held_out[groups == group])) == 1
    for content in set(contents[groups == -1]):
        assert len(set(held_out[(contents == content) & (groups == -1)])) == 1
    units = np.unique(np.where(groups != -1, groups, contents))
    assert len(np.unique(np.where(groups != -1, groups, contents)[held_out])) <= len(units) // 5
    assert not (calibrates & ~held_out).any()
    assert [one.tolist() for one in held_out_rows(contents, groups)] == [held_out.tolist(), calibrates.tolist()]


def test_held_out_rows_are_a_fifth_and_at_most_five_thousand():
    sizes = {
        count: int(held_out_rows(np.arange(count), np.full(count, -1))[0].sum()) for count in (10, 1000, 25_000, 60_000)
    }

    assert sizes == {10: 2, 1000: 200, 25_000: 5000, 60_000: 5000}


def test_large_groups_are_held_out_as_often_as_small_ones_and_calibrate_by_twenty_images():
    """Were they not, nothing would be known of new images of large groups."""
    groups = np.repeat(np.arange(44), [10] * 40 + [400] * 4)
    taken = np.zeros(44)
    for seed in range(200):
        names = np.random.default_rng(seed).permutation(1000)[:44]
        held, calibrates = held_out_rows(np.arange(2000), names[groups])
        mine = np.unique(groups[held])
        taken[mine] += 1
        assert all((calibrates & (groups == group)).sum() == min(20, (groups == group).sum()) for group in mine)
    assert taken[40:].mean() == pytest.approx(taken[:40].mean(), rel=0.35)


def test_unit_of_more_than_half_of_the_images_stays_in_the_bank():
    groups = np.array([1] * 90 + list(range(2, 12)))
    assert not held_out_rows(np.arange(100), groups)[0][:90].any()
    assert held_out_rows(np.arange(100), groups)[0].sum() == 2


def test_each_unit_weighs_the_same():
    """Three images in one unit, one in another: shares of a third, and one."""
    scores = np.array([3, 1, 2, 5], np.float32)
    calibration = Calibration.of(scores, np.array([7, 7, 7, 4]))

    asked = np.array([6, 5, 4, 3, 2, 1, 0], np.float32)
    expected = [1 / 3, 2 / 3, 2 / 3, (2 + 1 / 3) / 3, (2 + 2 / 3) / 3, 1, 1]
    np.testing.assert_allclose(calibration.p_values(asked), expected, atol=1e-9)
    assert calibration.threshold(0.7) == (3, 0.7)
    assert calibration.threshold(0.8) == (2, 0.8)
    assert calibration.threshold(0.3) == (5, 1 / 3)


unit_rows = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), min_size=1, max_size=40)


@settings(deadline=None)
@given(unit_rows, st.floats(0.01, 0.99))
def test_images_above_the_threshold_are_those_whose_p_value_is_at_most_the_rate(
    rows: list[tuple[int, int]], rate: float
):
    scores, units = (np.array(values) for values in zip(*rows, strict=True))
    calibration = Calibration.of(scores.astype(np.float32), units)
    asked = np.arange(-1, 11, dtype=np.float32) / 1
    share = [np.mean(scores[units == unit][None] >= asked[:, None], axis=1) for unit in np.unique(units)]
    naive = (1 + np.sum(share, axis=0)) / (len(share) + 1)
    threshold, promised = calibration.threshold(rate)

    np.testing.assert_allclose(calibration.p_values(asked), naive, atol=1e-8)
    assert promised == max(rate, 1 / (len(share) + 1))
    if promised == rate:
        assert ((asked > threshold) <= (naive <= rate + 1e-8)).all()


def log_normal(count: int, *, seed: int, median: float = 1.0, spread: float = 0.4) -> np.ndarray:
    """Return (count,) float32 scores as real ones are distributed."""
    return np.exp(np.random.default_rng(seed).normal(np.log(median), spread, count)).astype(np.float32)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=60))
def test_without_contamination_every_score_is_trusted(scores: list[float]):
    assert trusted(np.array(scores, np.float32), 0.0).all()


@settings(deadline=None)
@given(
    st.one_of(
        st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=80),
        st.lists(st.integers(0, 5).map(float), min_size=1, max_size=80),  # ties and zeros
    ),
    st.floats(0, 0.5),
)
def test_all_but_the_contamination_are_trusted(scores: list[float], contamination: float):
    values = np.array(scores, np.float32)
    kept = trusted(values, contamination)

    normal = max(1, len(values) - round(contamination * len(values)))
    assert (kept.shape, kept.dtype, int(kept.sum())) == (values.shape, np.dtype(bool), normal)


@settings(deadline=None)
@given(st.sets(st.floats(2**-10, 2**20, width=32), min_size=1, max_size=60), st.floats(0, 0.5), st.randoms())
def test_scores_below_the_median_of_the_normal_ones_are_trusted(scores: set[float], contamination: float, random: Any):
    """But for one at most; and whatever the order of the images."""
    values = np.array(sorted(scores), np.float32)
    normal = max(1, len(values) - round(contamination * len(values)))
    order = np.array(random.sample(range(len(values)), len(values)))

    kept = trusted(values, contamination)

    assert (~kept[: normal // 2]).sum() <= 1
    assert trusted(values[order], contamination).tolist() == kept[order].tolist()


@settings(deadline=None)
@given(
    st.lists(st.floats(2**-10, 2**20, width=32), min_size=1, max_size=40),
    st.floats(0.01, 0.5),
)
def test_no_more_large_scores_are_trusted_than_the_mirrored_lower_half_has(scores: list[float], contamination: float):
    values = np.array(scores, np.float32)
    normal = max(1, len(values) - round(contamination * len(values)))
    logs = np.log(np.sort(values).astype(np.float64))
    half, median = normal // 2, logs[normal // 2]
    model = [
        max(median + 1.2 * (median - logs[row]), logs[normal - 1 - row]) for row in range(half)
    ]  # the mirrored half, or what is left without the largest scores

    kept = values[trusted(values, contamination)] if round(contamination * len(values)) else None
    for score in [] if kept is None else kept[np.log(kept.astype(np.float64)) > median]:
        assert (kept >= score).sum() <= sum(one >= np.log(np.float64(score)) - 1e-12 for one in model)


def test_scores_of_one_image_and_of_none_that_differ_are_trusted():
    assert trusted(np.zeros(1, np.float32), 0.5).tolist() == [True]
    assert trusted(np.zeros(10, np.float32), 0.3).sum() == 7
    assert trusted(np.full(10, 3, np.float32), 0.3).sum() == 7


@pytest.mark.parametrize("spread", [0.3, 0.6])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("median", "low", "high"),
    [
        (20.0, 0.003, 0.02),  # well separated
        (2.7, 0.0009, 0.02),  # overlapping: the model's tail is filled with them, and stretched by 1.2: 0.26 %
        (1.4, 0.003, 0.02),  # hardly anomalous
    ],
)
def test_threshold_of_a_contaminated_set_flags_about_as_many_fresh_images_as_promised(
    spread: float, seed: int, median: float, low: float, high: float
):
    """20 % are anomalies; the rate asked for is 1 %. With all scores the threshold would lie among the anomalies."""
    normal, anomalies = log_normal(1600, seed=seed, spread=spread), log_normal(400, seed=seed + 100, median=median)
    scores = np.random.default_rng(seed).permutation(np.concatenate([normal, anomalies]))
    fresh = log_normal(50_000, seed=seed + 200, spread=spread)

    threshold, _ = Calibration.of(scores[trusted(scores, 0.2)]).threshold(0.01)

    assert low < (fresh > threshold).mean() < high


def test_dropping_the_largest_scores_alone_would_promise_too_much():
    """Anomalies that score like normal images leave, for each that stays, a normal image that goes."""
    normal, anomalies = log_normal(1600, seed=0), log_normal(400, seed=1, median=1.4)
    scores = np.concatenate([normal, anomalies])
    fresh = log_normal(50_000, seed=2)

    naive_threshold, _ = Calibration.of(np.sort(scores)[:1600]).threshold(0.01)
    threshold, _ = Calibration.of(scores[trusted(scores, 0.2)]).threshold(0.01)

    assert (fresh > naive_threshold).mean() > 0.05
    assert (fresh > threshold).mean() < 0.02


@pytest.mark.parametrize(("count", "above"), [(99, 0), (500, 4), (2000, 19)])
def test_interval_of_single_images_is_the_law_of_split_conformal_prediction(count: int, above: int):
    scores = np.arange(count, dtype=np.float32)
    found = Calibration.of(scores).interval(float(count - 1 - above))
    assert found == pytest.approx(beta.ppf([0.05, 0.95], above + 1, count - above), rel=1e-6)


def test_interval_of_bursts_runs_from_a_next_unit_below_to_one_above():
    """One of 120 bursts of four has one image above: a quarter of a unit."""
    scores = np.arange(480, dtype=np.float32)
    units = np.arange(480) // 4
    low, high = Calibration.of(scores, units).interval(478.0)
    single_low, single_high = Calibration.of(np.arange(120, dtype=np.float32)).interval(118.0)
    assert 0 <= low < 0.25 / 121 < 1.25 / 121 < high
    assert low < single_low < high < single_high
    assert Calibration.of(scores, units).interval(479.0)[0] == 0


def test_interval_where_all_images_are_above_is_no_range():
    assert Calibration.of(np.ones(30, np.float32)).interval(0.0) == (1.0, 1.0)
