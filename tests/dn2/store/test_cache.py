from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dn2.errors import NotFoundError, StoreError
from dn2.store import cache
from dn2.store.cache import cache_dir, local_copy
from dn2.store.storage import Store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the copies of this test lie."""
    monkeypatch.setenv("DN2_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "banks"


@pytest.fixture
def store() -> Store:
    return Store.open(f"memory://{uuid.uuid4().hex}")


def test_place_of_the_cache_can_be_chosen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DN2_CACHE_DIR", "/a")
    assert Path("/a") == cache_dir()
    monkeypatch.delenv("DN2_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert Path("/b/dn2") == cache_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert Path("/c/.cache/dn2") == cache_dir()


def test_file_of_a_local_store_is_not_copied(tmp_path: Path, folder: Path):
    store = Store.open(tmp_path / "store")
    store.write("a.npy", b"x")
    assert tmp_path / "store" / "a.npy" == local_copy(store, "a.npy")
    assert not folder.exists()


def test_remote_file_is_fetched_once(store: Store, folder: Path):
    store.write("banks/a.npy", b"content")
    first = local_copy(store, "banks/a.npy")
    assert first.read_bytes() == b"content"
    assert folder in first.parents
    store.write("banks/a.npy", b"immutable files never change")
    assert first == local_copy(store, "banks/a.npy")
    assert first.read_bytes() == b"content"


def test_files_of_the_same_name_in_other_stores_or_folders_are_other_files(store: Store, folder: Path):
    other = Store.open(f"memory://{uuid.uuid4().hex}")
    store.write("a/x.npy", b"1")
    store.write("b/x.npy", b"2")
    other.write("a/x.npy", b"3")
    found = [local_copy(store, "a/x.npy"), local_copy(store, "b/x.npy"), local_copy(other, "a/x.npy")]
    assert [path.read_bytes() for path in found] == [b"1", b"2", b"3"]


def test_missing_file_leaves_no_copy(store: Store, folder: Path):
    with pytest.raises(NotFoundError, match=r"no file 'a\.npy'"):
        local_copy(store, "a.npy")
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_least_recently_used_copies_go_first(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache, "BANK_BYTES", 250)
    for name in "abc":
        store.write(f"{name}.npy", bytes(100))
    first, second = local_copy(store, "a.npy"), local_copy(store, "b.npy")
    os.utime(first.parent, (1, 1))
    os.utime(second.parent, (2, 2))
    assert first == local_copy(store, "a.npy")  # used again: now the younger one
    third = local_copy(store, "c.npy")
    assert [path.exists() for path in (first, second, third)] == [True, False, True]


def test_copy_larger_than_the_bound_is_kept_alone(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """What was asked for is needed now."""
    monkeypatch.setattr(cache, "BANK_BYTES", 10)
    for name in "ab":
        store.write(f"{name}.npy", bytes(100))
    first, second = local_copy(store, "a.npy"), local_copy(store, "b.npy")
    assert [path.exists() for path in (first, second)] == [False, True]


def test_copies_at_once_do_not_disturb_each_other(store: Store, folder: Path):
    """Each one measures the whole cache while the others come into being."""
    contents = [bytes([number]) * 1000 for number in range(200)]
    for number, content in enumerate(contents):
        store.write(f"{number}.npy", content)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: local_copy(store, f"{number}.npy").read_bytes(), range(200)))
    assert contents == found
    assert len(list(folder.iterdir())) == 200


def test_cache_that_cannot_be_written_is_a_store_error(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("DN2_CACHE_DIR", str(tmp_path / "file"))
    store.write("a.npy", b"x")
    with pytest.raises(StoreError, match=f"cannot make the folder {tmp_path}/file/banks/"):
        local_copy(store, "a.npy")
