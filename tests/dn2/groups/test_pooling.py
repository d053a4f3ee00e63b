from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dn2.config import GroupFitConfig
from dn2.errors import BankError
from dn2.groups.pooling import Pooling, Totals, check_group_memory, make_pooling
from dn2.records import Embedded
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import DIM, images, normal_groups, write_groups
from tests.dn2.scoring.synthetic import write_shards

LARGEST = np.float16(65504)


def everything(embedded: Embedded) -> np.ndarray:
    return np.ones(embedded.embedded, bool)


def added(units: list[int], features: np.ndarray, cuts: list[int], *, count: int, places: int = 1) -> np.ndarray:
    """Return the vectors of units whose images are added in several pieces."""
    totals = Totals(count, features.shape[1], places=places)
    for piece in np.split(np.arange(len(units)), sorted(cuts)):
        totals.add(np.array(units, np.int64)[piece], features[piece])
    return totals.vectors()


@given(st.lists(st.integers(-1, 4), max_size=60), st.lists(st.integers(0, 60), max_size=5), st.integers(0, 9))
def test_mean_is_that_of_numpy_however_the_images_come(units: list[int], cuts: list[int], seed: int):
    """Images of no unit are left out; a unit without images is zero."""
    features = images(len(units), seed=seed).astype(np.float32)

    found = added(units, features, cuts, count=5)

    assert (found.dtype, found.shape) == (np.float16, (5, DIM))
    for unit in range(5):
        mine = features[np.array(units, np.int64) == unit].astype(np.float64)
        expected = mine.mean(axis=0) if len(mine) else np.zeros(DIM)
        np.testing.assert_allclose(found[unit], expected, rtol=2**-11, atol=1e-7)


@given(st.permutations([0, 1, 2] * 4 + [-1] * 3), st.lists(st.integers(0, 15), max_size=4))
def test_concat_puts_the_images_of_a_unit_in_the_order_of_their_rows(units: list[int], cuts: list[int]):
    features = images(len(units), seed=0).astype(np.float32)

    found = added(units, features, cuts, count=3, places=4)

    assert found.shape == (3, 4 * DIM)
    for unit in range(3):
        np.testing.assert_array_equal(found[unit], features[np.array(units) == unit].reshape(-1))


def test_mean_of_the_largest_and_smallest_float16_is_exact():
    """A million of the largest add up to more than float16, and far more than float16 can count."""
    expected = np.array([[LARGEST, -LARGEST, 2.0**-24]], np.float16)
    features = np.repeat(expected, 1000, axis=0).astype(np.float32)
    totals = Totals(1, 3)
    for _ in range(1000):
        totals.add(np.zeros(1000, np.int64), features)

    np.testing.assert_array_equal(totals.vectors(), expected)


def test_small_differences_survive_large_groups():
    """A running sum in float32 would lose one in 16 million."""
    totals = Totals(1, 1)
    totals.add(np.zeros(1, np.int64), np.array([[2.0**15]], np.float32))
    for _ in range(64):
        totals.add(np.zeros(1024, np.int64), np.full((1024, 1), 2.0**-11, np.float32))

    assert totals.vectors()[0, 0] == np.float16((2.0**15 + 32) / (1 + 2**16))


@pytest.mark.parametrize(("vectors", "dim"), [(2**27, 2), (3, 2**27)])
def test_memory_over_the_budget_is_refused_with_numbers(vectors: int, dim: int):
    needed = 8 * vectors * dim / 2**30
    message = (
        rf"{vectors} groups and parts of groups, with vectors of length {dim}: need {needed:.2f} GiB, expected at most "
        r"group_memory_gb = 1\.5; raise the setting, or use pooling histogram"
    )
    with pytest.raises(BankError, match=message):
        check_group_memory(vectors, dim, 1.5)


def test_memory_within_the_budget_is_allowed():
    assert check_group_memory(2**27, 1, 1.0) is None
    with pytest.raises(BankError):
        check_group_memory(2**27 + 1, 1, 1.0)


def test_mean_pooling_takes_embeddings_as_they_are(store: Store):
    embedded = write_groups(store, normal_groups([4, 4], seed=0))
    pooling = make_pooling(embedded, store, everything(embedded), GroupFitConfig())

    np.testing.assert_array_equal(pooling.features(images(5, seed=1)), images(5, seed=1).astype(np.float32))
    assert pooling.dim_of(embedded, store) == DIM


def test_cosine_scales_images_before_they_are_pooled():
    """A bright image counts no more than a dim one; an embedding of nothing stays nothing."""
    vectors = images(6, seed=0)
    bright = vectors * np.array([1, 100, 0.01, 7, 3, 0])[:, None]
    features = Pooling("cosine").features(bright.astype(np.float16))

    wide = vectors.astype(np.float64)
    expected = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(features[:5], expected[:5], atol=1e-3)
    assert (features[5] == 0).all()


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_histogram_gives_each_image_shares_that_add_up_to_one(store: Store, metric: str):
    embedded = write_groups(store, normal_groups([20] * 10, seed=0), shard_rows=37)
    pooling = make_pooling(
        embedded, store, everything(embedded), GroupFitConfig(pooling="histogram", cells=5, metric=metric)
    )

    features = pooling.features(images(3000, seed=1))
    assert (features.shape, pooling.dim_of(embedded, store)) == ((3000, 6), 6)  # five cells, and none of them
    assert (features >= 0).all()
    np.testing.assert_allclose(features.sum(axis=1), 1, atol=1e-5)


def test_histogram_tells_kinds_and_strangers_apart(store: Store):
    """Three kinds, three cells: each has nearly all of its images, and the last column what is like none."""
    embedded = write_groups(store, normal_groups([20] * 10, seed=0))
    pooling = make_pooling(embedded, store, everything(embedded), GroupFitConfig(pooling="histogram", cells=3))

    features = [pooling.features(images(50, seed=kind, kind=kind)) for kind in range(3)]
    assert {int(one.mean(axis=0).argmax()) for one in features} == {0, 1, 2}
    assert all(one.mean(axis=0).max() > 0.9 for one in features)
    assert pooling.features(images(5, seed=9) + 8 * np.eye(DIM)[9].astype(np.float16))[:, 3].min() > 0.99


def test_cells_depend_on_the_images_and_not_on_the_shards(store: Store):
    config = GroupFitConfig(pooling="histogram", cells=4)
    groups = normal_groups([20] * 10, seed=0)
    cut = [write_groups(store, groups, shard_rows=size) for size in (7, 64, 1000)]
    found = [make_pooling(embedded, store, everything(embedded), config) for embedded in cut]

    for pooling in found[1:]:
        np.testing.assert_array_equal(pooling.cells, found[0].cells)
        assert pooling.width == found[0].width


@pytest.mark.parametrize(("different", "cells"), [(1, 1), (3, 3)])
def test_fewer_different_images_than_cells_make_fewer_cells(store: Store, different: int, cells: int):
    vectors = np.repeat(images(different, seed=0), 20, axis=0)
    embedded = write_shards(store, vectors, groups=["a"] * len(vectors))
    pooling = make_pooling(embedded, store, everything(embedded), GroupFitConfig(pooling="histogram"))

    features = pooling.features(images(10, seed=1))
    assert features.shape == (10, cells + 1)
    np.testing.assert_allclose(features.sum(axis=1), 1, atol=1e-5)


def test_share_in_no_cell_is_that_of_a_cell_at_the_reach():
    """The softmax of distances: here to one cell, and the reach."""
    pooling = Pooling("l2", np.zeros((1, 2), np.float16), 2.0, 9.0)
    features = pooling.features(np.array([[0, 0], [3, 0], [0, 5]], np.float16))

    odds = np.exp((9 - np.array([0, 9, 25])) / 2.0)
    np.testing.assert_allclose(features, np.stack([odds / (1 + odds), 1 / (1 + odds)], axis=1), rtol=1e-4)


@pytest.mark.parametrize("cells", [None, images(3, seed=0)])
def test_no_images_have_no_features(cells: np.ndarray | None):
    features = Pooling("cosine", cells).features(np.zeros((0, DIM), np.float16))

    assert features.shape == (0, DIM if cells is None else 4)


def test_embeddings_at_the_limit_of_float16_have_shares():
    """Squared distances of 10^10 overflow nothing."""
    far = np.full((2, DIM), LARGEST, np.float16) * np.array([[1], [-1]], np.float16)
    pooling = Pooling("l2", far, 1e-20, 1.0)

    np.testing.assert_array_equal(pooling.features(far), np.eye(3)[:2])


def test_images_outside_of_the_groups_make_no_cells(store: Store):
    embedded = write_groups(store, normal_groups([20] * 10, seed=0))
    inside = everything(embedded)
    inside[::2] = False
    every, half = (make_pooling(embedded, store, one, GroupFitConfig(pooling="histogram")) for one in (~inside, inside))
    assert every.cells is not None
    assert half.cells is not None
    assert not np.array_equal(every.cells, half.cells)
    with_strangers = images(200, seed=0)
    with_strangers[1::2] += 9
    moved = write_shards(store, with_strangers, name="moved", groups=["g"] * 200)
    cells = make_pooling(moved, store, np.arange(200) % 2 == 0, GroupFitConfig(pooling="histogram")).cells
    assert cells is not None
    assert float(np.abs(cells).max()) < 9
