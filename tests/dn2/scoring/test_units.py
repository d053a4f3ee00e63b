"""What counts once: groups, copies and near copies, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from dn2.scoring.units import places_of, units_of

NO_GROUPS = -1


def bursts(count: int, size: int, jitter: float, *, dim: int = 64, seed: int = 0) -> np.ndarray:
    """Return (count * size, dim) vectors: each burst one after the other."""
    random = np.random.default_rng(seed)
    parts = random.standard_normal((count, 1, dim))
    return (parts + jitter * random.standard_normal((count, size, dim))).reshape(-1, dim).astype(np.float16)


def found(vectors: np.ndarray, groups: np.ndarray | None = None, contents: np.ndarray | None = None) -> np.ndarray:
    count = len(vectors)
    contents = np.random.default_rng(1).permutation(count) if contents is None else contents
    return units_of([vectors], contents, np.full(count, NO_GROUPS) if groups is None else groups)


def together(units: np.ndarray) -> set[frozenset[int]]:
    """The units as sets of rows: their numbers mean nothing."""
    return {frozenset(np.flatnonzero(units == unit).tolist()) for unit in np.unique(units)}


@pytest.mark.parametrize(("size", "jitter"), [(2, 0.1), (4, 0.1), (4, 0.5), (10, 0.3)])
def test_bursts_are_units(size: int, jitter: float):
    units = found(bursts(60, size, jitter))
    wanted = {frozenset(range(first, first + size)) for first in range(0, 60 * size, size)}
    assert len(together(units) & wanted) >= 57


def ordered(vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
    count = len(vectors)
    contents = np.random.default_rng(1).permutation(count)
    return units_of([vectors], contents, np.full(count, NO_GROUPS), places=places)


def test_long_and_loose_bursts_are_units_if_their_files_follow_each_other():
    """Fifteen shots, half as far apart as parts are: without names they could be a kind of images."""
    vectors = bursts(60, 15, 0.5)
    files = np.arange(len(vectors))
    wanted = {frozenset(range(first, first + 15)) for first in range(0, len(vectors), 15)}

    assert len(together(ordered(vectors, files)) & wanted) >= 57
    assert not together(found(vectors)) & wanted
    assert not together(ordered(vectors, np.random.default_rng(0).permutation(files))) & wanted


def test_order_in_which_images_are_given_changes_no_unit_where_files_follow_each_other():
    vectors, order = bursts(40, 12, 0.5), np.random.default_rng(2).permutation(480)
    contents, files, none = np.arange(480), np.arange(480), np.full(480, NO_GROUPS)

    one = units_of([vectors], contents, none, places=files)
    other = units_of([vectors[order]], contents[order], none, places=files[order])

    assert {frozenset(order[list(rows)].tolist()) for rows in together(other)} == together(one)


@pytest.mark.parametrize("seed", range(3))
def test_kinds_in_folders_are_no_units(seed: int):
    """Six kinds of forty images, one folder after the other."""
    random = np.random.default_rng(seed)
    vectors = (3 * random.standard_normal((6, 1, 32)) + random.standard_normal((6, 40, 32))).reshape(-1, 32)

    assert len(np.unique(ordered(vectors.astype(np.float16), np.arange(240)))) >= 0.9 * 240


def test_video_is_not_one_unit():
    steps = np.cumsum(np.random.default_rng(0).standard_normal((400, 64)), axis=0) / 4

    assert np.bincount(ordered(steps.astype(np.float16), np.arange(400))).max() <= 25


def test_names_are_ordered_by_their_numbers():
    names = ["b/2.png", "a/10.png", "a/9.png", "b/10.png", "a/9b.png"]

    assert places_of(names).tolist() == [3, 2, 0, 4, 1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "dim"), [(12, 64), (60, 16), (500, 16), (500, 64)])
def test_independent_images_are_units_of_their_own(count: int, dim: int, seed: int):
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float16)
    assert len(np.unique(found(vectors))) >= 0.95 * count


def test_kinds_of_images_are_no_units():
    """Ten kinds far apart, forty images of each: that these are forty bursts nobody can tell."""
    random = np.random.default_rng(0)
    vectors = (8 * random.standard_normal((10, 1, 32)) + random.standard_normal((10, 40, 32))).reshape(-1, 32)
    assert len(np.unique(found(vectors.astype(np.float16)))) >= 380


def test_many_copies_of_one_picture_that_were_saved_anew_are_one_unit():
    random = np.random.default_rng(0)
    others = random.standard_normal((600, 64))
    copies = 2 * random.standard_normal(64) + 0.02 * random.standard_normal((80, 64))
    units = found(np.concatenate([others, copies]).astype(np.float16))
    assert frozenset(range(600, 680)) in together(units)
    assert len(np.unique(units)) >= 590


def test_frames_of_a_video_do_not_become_one_unit():
    """Each is near the next one: a chain."""
    random = np.random.default_rng(0)
    frames = np.zeros((400, 64))
    for row in range(1, 400):
        frames[row] = 0.95 * frames[row - 1] + 0.31 * random.standard_normal(64)
    assert np.bincount(found(frames.astype(np.float16))).max() <= 10


def test_groups_and_equal_bytes_are_units_and_join_what_they_share():
    """Rows 0 and 1 are a group; 1 and 5 have the same bytes; 5 and 6 are a group."""
    vectors = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float16)
    groups, contents = np.full(40, NO_GROUPS), np.arange(100, 140)
    groups[[0, 1]], groups[[5, 6]] = 3, 4
    vectors[5], contents[5] = vectors[1], contents[1]
    units = found(vectors, groups, contents)
    assert frozenset([0, 1, 5, 6]) in together(units)
    assert len(together(units)) == 37


def test_units_do_not_depend_on_order_or_blocks():
    vectors, contents = bursts(50, 3, 0.7), np.random.default_rng(2).permutation(150)
    order = np.random.default_rng(3).permutation(150)
    none = np.full(150, NO_GROUPS)
    whole = units_of([vectors], contents, none)
    mixed = units_of(np.split(vectors[order], [20, 21, 90]), contents[order], none)
    back = np.empty(150, np.int64)
    back[order] = mixed
    assert together(back) == together(whole)


def test_only_wanted_images_are_asked_and_their_near_copies_are_found_among_all():
    vectors, contents = bursts(100, 4, 0.1), np.arange(400)
    wanted = np.zeros(400, bool)
    wanted[:40] = True
    units = units_of([vectors[:200], vectors[200:]], contents, np.full(400, NO_GROUPS), wanted)
    wide = together(units)
    assert sum(frozenset(range(first, first + 4)) in wide for first in range(0, 40, 4)) >= 9
    assert len(np.unique(units[40:])) >= 350


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_too_few_images_to_tell_are_units_of_their_own(count: int):
    assert len(np.unique(found(bursts(count, 1, 0.1)))) == count


def test_vectors_that_are_all_alike_are_no_bursts():
    """The backbone sees no difference: nothing can be told."""
    assert len(np.unique(found(np.ones((50, 8), np.float16)))) >= 1
