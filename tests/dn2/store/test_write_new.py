"""Objects that are written only if there are none, and files that are removed."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from dn2.errors import StoreError
from dn2.store.storage import Store


@pytest.fixture(params=["memory", pytest.param("moto", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store of each kind that keeps the condition."""
    if request.param == "moto":
        return request.getfixturevalue("moto")
    return Store.open(f"memory://{uuid.uuid4().hex}")


def test_object_that_is_there_is_left_as_it_is(store: Store):
    assert store.write_new("a/b.json", b"first")
    assert not store.write_new("a/b.json", b"second")
    assert store.read("a/b.json") == b"first"


def test_object_that_was_removed_may_be_written_again(store: Store):
    store.write("a.json", b"first")
    store.remove("a.json")
    assert store.write_new("a.json", b"second")
    assert store.read("a.json") == b"second"


@pytest.mark.s3
def test_one_of_many_writers_at_once_wins(moto: Store):
    start = Barrier(8)

    def one(number: int) -> bool:
        store = Store.open(moto.uri)
        store.exists("")  # connects
        start.wait()
        return store.write_new("a.json", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(one, range(8)))
    assert won.count(True) == 1
    assert moto.read("a.json") == str(won.index(True)).encode()


@pytest.mark.s3
def test_wrong_credentials_are_a_store_error_and_no_object_that_is_there(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match=rf"^store {s3_bucket}/x: cannot write 'a\.json': "):
        Store.open(f"{s3_bucket}/x").write_new("a.json", b"")


@pytest.mark.parametrize("kind", ["local", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def test_removed_file_is_gone_and_may_be_removed_again(request: pytest.FixtureRequest, tmp_path: Path, kind: str):
    place = request.getfixturevalue("s3_bucket") if kind == "s3" else "memory://x" if kind == "memory" else tmp_path
    store = Store.open(f"{place}/{uuid.uuid4().hex}")
    for name in ("a.json", "b.json"):
        store.write(name, b"")
    store.remove("a.json")
    store.remove("a.json")
    assert store.names("") == ["b.json"]


def test_file_that_cannot_be_removed_is_a_store_error(tmp_path: Path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(StoreError, match=rf"^store file://{tmp_path}: cannot remove 'a\.json': "):
        Store.open(tmp_path).remove("a.json")
    assert (tmp_path / "a.json").is_dir()


@pytest.mark.s3
def test_bucket_that_does_not_exist_is_a_store_error(moto: Store):
    with pytest.raises(StoreError, match=r"cannot write 'a\.json': .*bucket does not exist"):
        Store.open("s3://there-is-no-such-bucket/x").write_new("a.json", b"")
