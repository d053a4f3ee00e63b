"""A group counts as many independent images as it has units: near copies are one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dn2
from dn2.config import GroupFitConfig, GroupScoreConfig
from dn2.groups.distinct import each_image, effective_size, near_distance_of, units_in
from dn2.groups.parts import parts_of
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import groups_of, write_groups

DIM = 32


def bursts(units: int, shots: int, *, seed: int, jitter: float = 0.2) -> np.ndarray:
    """Return (units * shots, DIM) float16: each unit several times, in random order."""
    random = np.random.default_rng(seed)
    base = np.repeat(random.standard_normal((units, DIM)), shots, axis=0)
    return random.permutation(base + jitter * random.standard_normal(base.shape)).astype(np.float16)


def hashes(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, count)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_effective_size_is_that_of_kish(sizes: list[int]):
    shares = np.array(sizes) / sum(sizes)

    found = effective_size(np.repeat(np.arange(len(sizes)), sizes), sum(sizes))

    assert found == pytest.approx(1 / (shares**2).sum())
    assert 1 - 1e-9 <= found <= len(sizes) + 1e-9


def test_sample_tells_the_effective_size_of_a_large_group():
    units = np.repeat(np.arange(1_000), np.random.default_rng(0).integers(1, 60, 1_000))
    sample = np.random.default_rng(1).permutation(units)[:2_000]

    whole, told = (effective_size(one, len(units)) for one in (units, sample))

    assert told == pytest.approx(whole, rel=0.1)


def test_pictures_are_bursts_and_do_not_depend_on_the_order():
    vectors, keys = bursts(6, 5, seed=0), hashes(30)
    order = np.random.default_rng(1).permutation(30)

    found = units_in(vectors, keys, 20.0)

    assert sorted(np.bincount(found).tolist()) == [5] * 6
    np.testing.assert_array_equal(units_in(vectors[order], keys[order], 20.0), found[order])


def test_equal_bytes_are_one_picture_however_small_the_distance_is():
    vectors, keys = bursts(4, 1, seed=0), hashes(2)[[0, 0, 1, 1]]

    assert np.bincount(units_in(vectors, keys, 0.0)).tolist() == [2, 2]


def test_video_is_not_one_picture():
    steps = np.cumsum(np.random.default_rng(0).standard_normal((200, DIM)) / np.sqrt(DIM), axis=0)

    found = units_in(steps.astype(np.float16), hashes(200), 4.0)

    assert found.max() + 1 > 20


def test_large_bursts_do_not_come_first():
    """The least hash of many images is smaller than that of one: parts would begin with large bursts."""
    sizes = np.tile([1, 9], 500)
    vectors = 100 * np.repeat(np.random.default_rng(0).standard_normal((1_000, DIM)), sizes, axis=0)

    found = units_in(vectors.astype(np.float16), hashes(len(vectors)), 1.0)

    large = np.flatnonzero(np.bincount(found) == 9)
    assert len(large) == 500
    assert large.mean() == pytest.approx(499.5, abs=60)


@pytest.mark.parametrize("jitter", [0.05, 0.2, 0.4])
def test_near_distance_lies_between_shots_and_pictures(jitter: float):
    groups = [bursts(6, 5, seed=seed, jitter=jitter) for seed in range(40)]
    group_of = np.repeat(np.arange(40), 30)

    near = near_distance_of(np.concatenate(groups), group_of, hashes(len(group_of)))

    assert 2 * DIM * jitter**2 < near < 2 * DIM


def test_near_distance_without_copies_is_much_less_than_that_of_pictures():
    groups = [bursts(30, 1, seed=seed) for seed in range(40)]

    near = near_distance_of(np.concatenate(groups), np.repeat(np.arange(40), 30), hashes(1_200))

    assert 0 < near < 2 * DIM / 3


@pytest.mark.parametrize("count", [1, 2, 19])
def test_near_distance_of_few_images_is_some_number(count: int):
    near = near_distance_of(bursts(count, 1, seed=0), np.zeros(count, np.int64), hashes(count))

    assert near >= 0


def test_parts_hold_all_shots_of_a_picture():
    unit_of, group_of = np.repeat(np.arange(7), 3), np.zeros(21, np.int64)

    part_of, groups = parts_of(group_of, unit_of, 2)

    assert (groups == 0).all()
    assert part_of.reshape(7, 3).tolist() == [[part] * 3 for part in (0, 0, 1, 1, 2, 2, -1)]


def test_images_are_numbered_in_each_group():
    found = each_image(np.array([1, 0, -1, 1, 1]), np.array([5, 9, 0, -3, 7]))

    assert found.tolist() == [1, 0, -1, 0, 2]


def fitted(store: Store, groups: int, count: int, shots: int, **settings: object) -> dn2.GroupBankVersion:
    normal = {f"g{number:02d}": bursts(count, shots, seed=number) for number in range(groups)}
    config = GroupFitConfig(false_alarm_rate=0.05, **settings)
    return dn2.fit_groups(write_groups(store, normal, shard_rows=70), store, bank="lots", config=config)


def flagged(store: Store, bank: dn2.GroupBankVersion, units: int, shots: int) -> tuple[float, float]:
    """Return the share of 200 new normal groups that is flagged, and what they count as on average."""
    new = {f"n{number}": bursts(units, shots, seed=10_000 + number) for number in range(200)}
    batch = write_groups(store, new, name=f"new-{units}x{shots}", mixed=False)
    report = dn2.score_groups(batch, store, bank=bank, config=GroupScoreConfig(report_groups=0))
    rows = groups_of(store, report)
    return report.anomalous / report.scored, float(np.mean([row["effective"] or 0 for row in rows]))


def test_record_tells_how_many_pictures_the_bank_has_seen(store: Store):
    bank = fitted(store, 12, 6, 5)

    assert (bank.members, bank.units, bank.sizes[-1]) == (12 * 30, 12 * 6, 6)


@pytest.mark.parametrize("asked", [(1, 5), (2, 5), (6, 5)])
def test_groups_of_few_bursts_are_judged_as_groups_of_few_images(store: Store, asked: tuple[int, int]):
    """A bank of groups of six bursts of five; a new group of one burst, of two, of six."""
    bank = fitted(store, 60, 6, 5)

    share, counted = flagged(store, bank, *asked)

    assert counted == pytest.approx(asked[0], rel=0.1)
    assert share <= 0.13  # of 60 groups a right threshold for 5 % flags up to that, in 99 of 100 cases


def test_where_every_image_counts_a_burst_is_flagged(store: Store):
    """The control: as it is in older banks."""
    bank = fitted(store, 60, 6, 5, units="images")

    share, counted = flagged(store, bank, 1, 5)

    assert bank.units is None
    assert counted == 0  # not told
    assert share > 0.5


@pytest.mark.parametrize("units", [15, 10, 5])
def test_groups_with_copies_are_judged_by_their_pictures(store: Store, units: int):
    """A bank of groups of thirty different images; new groups of thirty, of which some are copies."""
    bank = fitted(store, 60, 30, 1)

    share, counted = flagged(store, bank, units, 30 // units)

    assert counted == pytest.approx(units, rel=0.15)
    assert share <= 0.13
