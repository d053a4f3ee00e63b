from __future__ import annotations

import numpy as np
import pytest

from dn2.neighbors.bank import prepared
from dn2.neighbors.reverse import to_two_nearest
from dn2.scoring.contamination import interval
from dn2.scoring.kinds import MOST, kinds_of
from dn2.scoring.typicality import Sample
from tests.dn2.scoring.synthetic import mode


def found(*parts: np.ndarray) -> np.ndarray:
    vectors = prepared(np.concatenate(parts).astype(np.float32), "cosine")
    return kinds_of(vectors, Sample(vectors, np.stack([np.arange(len(vectors))] * 2)).distances)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", [(500, 20), (300, 200), (400, 8, 90)])
def test_kinds_apart_are_told_apart_whatever_their_size(seed: int, sizes: tuple[int, ...]):
    parts = [mode(size, seed=10 * seed + place, spread=0.7 - 0.1 * place) for place, size in enumerate(sizes)]
    kinds = found(*parts)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    assert len(set(kinds.tolist())) == len(sizes)
    assert len({*zip(kinds.tolist(), truth.tolist(), strict=True)}) == len(sizes)
    counts = np.bincount(kinds)
    assert (np.diff(counts) <= 0).all()


@pytest.mark.parametrize("count", [25, 200, 900])
def test_one_mode_is_one_kind(count: int):
    assert set(found(mode(count, seed=3, spread=0.8)).tolist()) == {0}


def test_there_are_never_more_kinds_than_anybody_answers():
    kinds = found(*(mode(40, seed=seed, spread=0.2) for seed in range(14)))
    assert len(set(kinds.tolist())) == MOST


def test_scattered_images_are_no_kind():
    strangers = np.concatenate([mode(1, seed=50 + seed, spread=0.8) for seed in range(9)])
    kinds = found(mode(400, seed=0, spread=0.4), strangers)
    assert np.bincount(kinds).min() >= 4


def test_two_nearest_are_ascending_and_missing_ones_infinitely_far():
    distances = np.array([[3, 1, 2], [np.inf, 5, 4]], np.float32)
    np.testing.assert_array_equal(to_two_nearest(distances), [[1, 2], [4, 5]])
    np.testing.assert_array_equal(to_two_nearest(distances[:, :1]), [[3, np.inf], [np.inf, np.inf]])
    np.testing.assert_array_equal(to_two_nearest(distances, np.array([2, 0])), [[2, 3], [4, np.inf]])


def test_interval_holds_the_share_and_grows_with_what_is_not_known():
    low, high = interval(50, 0, 1000)
    assert 0.01 < low < 0.05 < high < 0.15
    assert interval(50, 100, 1000)[0] == low
    assert interval(50, 100, 1000)[1] > 0.2
    small = interval(5, 0, 100)
    assert small[0] < low
    assert small[1] > high
    assert interval(0, 0, 100)[0] == interval(10, 0, 1000)[0] == 0
    assert interval(40, 60, 100)[1] == 0.5
