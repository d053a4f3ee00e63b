"""Merging that is killed, and several at once: never a half state."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import dn2
from dn2.errors import StoreError
from dn2.scoring.watermark import unscored
from dn2.store.storage import Store
from tests.conftest import make_pictures
from tests.dn2.upkeep.nights import (
    Nights,
    embeddings,
    files,
    ingest,
    union,
)


def test_killed_at_any_write_it_leaves_the_old_state_and_the_next_run_ends_it(
    made: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each time one more file is written, from none on, until a run gets through."""
    state = union(made.store)
    vectors = embeddings(made.store)
    whole = dn2.compact(shutil.copytree(made.store, tmp_path / "whole"), dataset="inbox")
    expected = set(files(str(tmp_path / "whole")))
    create = Store.create
    for allowed in range(20):
        store = str(shutil.copytree(made.store, tmp_path / str(allowed)))
        left = [allowed]

        def limited(self: Store, path: str, left: list[int] = left):
            if not left[0]:
                raise StoreError("killed")
            left[0] -= 1
            return create(self, path)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "create", limited)
            try:
                assert dn2.compact(store, dataset="inbox") == whole
                break
            except StoreError:
                pass
        assert union(store) == state
        assert embeddings(store) == vectors
        assert unscored(ingest(made.source, store), store, bank=made.bank) == ()
        done = dn2.compact(store, dataset="inbox")
        assert (done.part, done.merged, done.size.files) == (whole.part, whole.merged, whole.size.files)
        assert union(store) == state
        assert embeddings(store) == vectors
        assert unscored(ingest(made.source, store), store, bank=made.bank) == ()
        assert set(files(store)) == expected
    assert allowed == 6  # two shards with thumbnails, a mark, the part


def test_two_at_once_merge_once(nights: Nights):
    before = union(nights.store)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: dn2.compact(nights.store, dataset="inbox"), range(2)))
    assert sorted(len(one.merged) for one in done) == [0, 3]
    assert union(nights.store) == before


def test_ingests_and_merges_at_once_lose_nothing(tmp_path: Path):
    source, store = tmp_path / "source", str(tmp_path / "store")
    make_pictures(source, 2)
    dn2.ingest(source, store, dataset="busy")

    def deliver() -> None:
        for count in range(3, 11):
            make_pictures(source / str(count), 1, seed=count)
            (source / str(count - 1) / "000.png").unlink(missing_ok=True)
            dn2.ingest(source, store, dataset="busy")

    def merge() -> list[dn2.Compacted]:
        return [dn2.compact(store, dataset="busy") for _ in range(12)]

    with ThreadPoolExecutor(2) as pool:
        delivered, merged = pool.submit(deliver), pool.submit(merge)
        delivered.result()
        assert len(merged.result()) == 12
    assert sorted(union(store, "busy")) == sorted(f"file://{path}" for path in source.rglob("*.png"))
    dn2.compact(store, dataset="busy")
    assert sorted(union(store, "busy")) == sorted(f"file://{path}" for path in source.rglob("*.png"))
    assert dn2.ingest(source, store, dataset="busy").added == 0
