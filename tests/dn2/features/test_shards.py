from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dn2
from dn2.errors import NotFoundError
from dn2.features.shards import plan_shards, slices
from tests.conftest import make_pictures

parts_of_rows = st.lists(st.lists(st.booleans(), max_size=40), max_size=6)


@given(parts_of_rows, st.integers(1, 50))
def test_every_living_row_is_in_one_slice(parts: list[list[bool]], shard_size: int):
    """No slice crosses a part, none is longer than asked for, and each tells which of its rows are dead."""
    living = [(part, row) for part, rows in enumerate(parts) for row, lives in enumerate(rows) if lives]

    planned = list(slices([len(rows) for rows in parts], living, shard_size))

    covered = []
    for part, start, stop, dead in planned:
        assert start % shard_size == 0
        assert start < stop == min(start + shard_size, len(parts[part]))
        assert [row - start for row in range(start, stop) if not parts[part][row]] == list(dead)
        rows = [(part, row) for row in range(start, stop) if row - start not in dead]
        assert rows
        covered += rows
    assert covered == living


@given(parts_of_rows, st.lists(st.booleans(), max_size=40), st.integers(1, 50))
def test_new_part_moves_no_shard_of_older_ones(parts: list[list[bool]], new: list[bool], shard_size: int):
    def plan(all_parts: list[list[bool]]) -> list[tuple[int, int, int, tuple[int, ...]]]:
        living = ((part, row) for part, rows in enumerate(all_parts) for row, lives in enumerate(rows) if lives)
        return list(slices([len(rows) for rows in all_parts], living, shard_size))

    assert plan([*parts, new])[: len(plan(parts))] == plan(parts)


def test_plan_of_a_real_dataset_that_grew_changed_and_shrank(tmp_path: Path):
    """Two pictures are changed, one vanishes, one is new: the older part keeps four, the newer one holds three."""
    folder, store = tmp_path / "pictures", tmp_path / "store"
    make_pictures(folder, 7)
    dn2.ingest(folder, store, dataset="parts")
    make_pictures(folder, 2, seed=1)
    (folder / "003.png").unlink()
    shutil.copy(folder / "006.png", folder / "new.png")
    dataset = dn2.ingest(folder, store, dataset="parts")

    shards = plan_shards(dataset, store, shard_size=4)

    first, second = dataset.parts
    assert [(shard.part, shard.start, shard.stop, shard.superseded) for shard in shards] == [
        (first, 0, 4, (0, 1, 3)),
        (first, 4, 7, ()),
        (second, 0, 4, (3,)),
    ]
    assert sum(shard.images for shard in shards) == dataset.images == 7


def test_missing_manifest_part_is_named(tmp_path: Path):
    make_pictures(tmp_path / "pictures", 2)
    dataset = dn2.ingest(tmp_path / "pictures", tmp_path / "store", dataset="parts")
    (part,) = (tmp_path / "store/manifests/parts").iterdir()
    part.unlink()

    with pytest.raises(NotFoundError, match=f"no file 'manifests/parts/{part.name}'"):
        plan_shards(dataset, tmp_path / "store")
