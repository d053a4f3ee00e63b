"""Every file of a store, with size and time: hidden ones, odd names, links, and in a bucket."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import pytest

from dn2.errors import StoreError
from dn2.store.storage import Store


def test_every_file_is_listed_once_with_size_and_time(tmp_path: Path):
    expected = {}
    for number, name in enumerate(["a", ".tmp/b", "c/d/e/f.parquet", "g h/[i]*?", os.fsdecode(b"j/\xff\n")]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
        os.utime(path, (1000.5 + number,) * 2)
        expected[name] = (number, 1000.5 + number)
    (tmp_path / "empty").mkdir()
    found = list(Store.open(tmp_path).walk())
    assert {file.path: (file.size, file.modified) for file in found} == expected
    assert len(found) == len(expected)
    assert [file.path for file in Store.open(tmp_path).walk("c/d")] == ["c/d/e/f.parquet"]
    assert list(Store.open(tmp_path).walk("nothing")) == []
    assert list(Store.open(tmp_path / "nothing").walk()) == []


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path):
    (tmp_path / "disk" / "below").mkdir(parents=True)
    (tmp_path / "disk" / "below" / "a").write_bytes(b"1")
    store = tmp_path / "store"
    store.mkdir()
    (store / "embeddings").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "below" / "round").symlink_to(tmp_path / "disk")
    (store / "dangling").symlink_to(tmp_path / "gone")
    found = {file.path for file in Store.open(store).walk()}
    assert found == {"embeddings/below/a", "dangling"}


def test_folder_that_may_not_be_read_is_a_store_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StoreError, match=r"cannot list '/': .*Permission denied"):
        list(Store.open(tmp_path).walk())


def test_only_empty_folders_are_removed(tmp_path: Path):
    for name in ("a/b/c", "a/d"):
        (tmp_path / name).mkdir(parents=True)
    store = Store.open(tmp_path)
    store.write("a/d/file", b"1")
    store.remove_empty("a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["d"]
    store.remove_empty("a/d")
    store.remove_empty("nothing")
    assert store.read("a/d/file") == b"1"


@pytest.mark.s3
def test_bucket_is_listed_like_a_folder(s3_bucket: str):
    store = Store.open(f"{s3_bucket}/{uuid.uuid4().hex}")
    names = ["a", "b/c", "b/d/e/f/g", ".locks/x", "b/d e/[1]"]
    for number, name in enumerate(names):
        store.write(name, b"x" * number)
    found = {file.path: file for file in store.walk()}
    assert {path: file.size for path, file in found.items()} == {name: number for number, name in enumerate(names)}
    assert all(file.modified is not None and abs(file.modified - time.time()) < 600 for file in found.values())
    assert [file.path for file in store.walk("b/d")] == ["b/d/e/f/g"]
    assert list(store.walk("nothing")) == []
