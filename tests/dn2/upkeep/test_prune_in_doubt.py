"""Nothing is removed in doubt, and a run that is killed has removed nothing that is needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import dn2
from dn2.errors import ConfigError, NotFoundError, SchemaError, StoreError
from dn2.store.storage import Store
from tests.dn2.upkeep.nights import Nights, embeddings, files, union
from tests.dn2.upkeep.pruning import later, needs_of


@pytest.mark.parametrize("damage", ["version", "pointer", "rows", "missing rows", "report", "merged part"])
def test_nothing_is_removed_while_something_that_tells_what_is_needed_is_damaged(nights: Nights, damage: str):
    done = dn2.compact(nights.store, dataset="inbox")
    root = Path(nights.store)
    path = {
        "version": root / "banks" / "parts" / "versions" / f"{nights.bank.version}.json",
        "pointer": root / "banks" / "parts" / "current.json",
        "rows": next((root / "banks" / "parts" / "segments").glob("*.parquet")),
        "missing rows": next((root / "banks" / "parts" / "segments").glob("*.parquet")),
        "report": next((root / "reports" / "parts").glob("*/summary.json")),
        "merged part": root / "manifests" / "inbox" / f"{done.part}.parquet",
    }[damage]
    if damage == "missing rows":
        path.unlink()
    else:
        path.write_bytes(b"{}")
    before = files(nights.store)
    with pytest.raises(SchemaError, match=rf"nothing was deleted: cannot tell what is unused: .*{path.name}"):
        dn2.prune(nights.store, reports=1, now=later(), yes=True)
    assert files(nights.store) == before


def test_numbers_below_zero_and_places_without_a_store_are_refused(nights: Nights, tmp_path: Path):
    with pytest.raises(ConfigError, match="reports: got -1, expected 0 or more"):
        dn2.prune(nights.store, reports=-1)
    for days in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match=f"age: got {days}, expected 0 or more days"):
            dn2.prune(nights.store, age=days)
    with pytest.raises(NotFoundError, match=r"store file://.*/none: got nothing that dn2 has made"):
        dn2.prune(tmp_path / "none")


def test_killed_at_any_removal_no_need_is_touched_and_the_next_run_ends_it(
    made: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each time a few more files are removed, until a run gets through."""
    base = str(shutil.copytree(made.store, tmp_path / "base"))
    dn2.compact(base, dataset="inbox")
    state, vectors, needed, when = union(base), embeddings(base), needs_of(base), later()
    whole = str(shutil.copytree(base, tmp_path / "whole"))
    expected = dn2.prune(whole, reports=1, now=when, yes=True)
    remove = Store.remove
    runs = 0
    for allowed in range(0, expected.size.files + 3, 3):
        store = str(shutil.copytree(base, tmp_path / str(allowed)))
        left = [allowed]

        def limited(self: Store, path: str, left: list[int] = left) -> None:
            if not left[0]:
                raise StoreError("killed")
            left[0] -= 1
            remove(self, path)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "remove", limited)
            try:
                dn2.prune(store, reports=1, now=when, yes=True)
            except StoreError:
                runs += 1
        there = files(store)
        assert needed <= there.keys()
        assert (union(store), embeddings(store)) == (state, vectors)
        for summary in Path(store).glob("reports/*/*/summary.json"):  # what is whole is whole
            assert len(list(summary.parent.iterdir())) >= 4
            assert dn2.rethreshold(summary.parent, store).images
        for shard in Path(store).glob("embeddings/*/*/*-????????.parquet"):
            assert shard.with_name(shard.name.replace(".parquet", ".thumbnails.parquet")).exists()
        dn2.prune(store, reports=1, now=when, yes=True)
        assert files(store).keys() - files(whole).keys() <= leftovers(store)
        shutil.rmtree(store)
    assert runs == -(-expected.size.files // 3)


def leftovers(store: str) -> set[str]:
    """What the decisions of this test have written: reports made anew by rethreshold."""
    return {str(path.relative_to(store)) for path in Path(store).glob("reports/*/*/*")}


def test_file_that_another_run_removed_meanwhile_is_no_error(nights: Nights, monkeypatch: pytest.MonkeyPatch):
    dn2.compact(nights.store, dataset="inbox")
    remove: Callable[[Store, str], None] = Store.remove

    def twice(self: Store, path: str) -> None:
        remove(self, path)
        remove(self, path)

    monkeypatch.setattr(Store, "remove", twice)
    assert dn2.prune(nights.store, reports=0, now=later(), yes=True).removed
