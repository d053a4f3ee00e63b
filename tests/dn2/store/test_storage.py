from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dn2.errors import NotFoundError, StoreError
from dn2.store.storage import Store


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "local":
        return Store.open(tmp_path / "store")
    if request.param == "memory":
        return Store.open(f"memory://{uuid.uuid4().hex}")
    return Store.open(f"{request.getfixturevalue('s3_bucket')}/{uuid.uuid4().hex}")


def test_written_file_is_read_again(store: Store):
    store.write("a/b.bin", b"one")
    assert store.read("a/b.bin") == b"one"
    store.write("a/b.bin", b"two")
    assert store.read("a/b.bin") == b"two"
    with store.open_input("a/b.bin") as file:
        assert file.read() == b"two"
    assert store.exists("a/b.bin")
    assert store.exists("a")
    assert f"{store.uri}/a/b.bin" == store.uri_of("a/b.bin")


def test_names_are_sorted_and_hide_hidden_ones(store: Store):
    for path in ("f/b.bin", "f/a.bin", "f/.hidden", "f/sub/c.bin", "g/d.bin"):
        store.write(path, b"x")
    assert store.names("f") == ["a.bin", "b.bin", "sub"]
    assert store.names("") == ["f", "g"]
    assert store.names("absent") == []


def test_store_that_is_not_there_yet_has_no_names(store: Store):
    assert store.names("manifests/x") == []
    assert not store.exists("manifests/x")


def test_time_of_the_last_write_is_told_in_utc(store: Store):
    before = datetime.now(UTC)
    store.write("f/a.bin", b"x")
    after = datetime.now(UTC)
    written = store.modified("f/a.bin")
    assert written is not None
    assert written.utcoffset() == timedelta(0)
    spare = timedelta(seconds=2)  # a server that knows whole seconds
    assert before - spare <= written <= after + spare
    with pytest.raises(NotFoundError, match=r"store .*: no file 'f/b\.bin'"):
        store.modified("f/b.bin")


def test_missing_file_is_not_found(store: Store):
    with pytest.raises(NotFoundError, match=r"store .*: no file 'a/b\.bin'"):
        store.read("a/b.bin")
    with pytest.raises(NotFoundError, match=r"store .*: no file 'a/b\.bin'"), store.open_input("a/b.bin"):
        pytest.fail("opened a file that is not there")


def test_writer_that_raises_leaves_the_old_content_and_nothing_else(store: Store):
    store.write("a.bin", b"old")
    for name in ("a.bin", "b.bin"):
        with pytest.raises(ValueError, match=r"^mine$"), store.create(name) as file:
            fail(file.write_bytes(b"half"))
    assert store.read("a.bin") == b"old"
    assert store.names("") == ["a.bin"]


def fail(_: int) -> None:
    raise ValueError("mine")


def test_nothing_is_visible_before_the_block_ends(store: Store):
    with store.create("a.bin") as file:
        file.write_bytes(b"whole")
        assert not store.exists("a.bin")
        assert store.names("") == []
    assert store.names("") == ["a.bin"]


def test_check_writable_leaves_nothing(store: Store):
    store.check_writable()
    assert store.names("") == []


def test_writer_that_writes_nothing_is_a_store_error(store: Store):
    with pytest.raises(StoreError, match=r"store .*: cannot write 'a\.bin'"), store.create("a.bin"):
        pass
    assert not store.exists("a.bin")


def test_temporary_files_do_not_pile_up(tmp_path: Path):
    store = Store.open(tmp_path)
    store.write("a.bin", b"x")
    with pytest.raises(ValueError, match="mine"), store.create("b.bin"):
        fail(0)
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_process_killed_in_the_middle_leaves_the_old_content(tmp_path: Path):
    """SIGKILL: no handler runs."""
    store = Store.open(tmp_path / "store")
    store.write("a.bin", b"old")
    code = """
import sys, time
from dn2.store.storage import Store
with Store.open(sys.argv[1]).create("a.bin") as file:
    file.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code, store.uri], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    assert store.read("a.bin") == b"old"
    assert store.names("") == ["a.bin"]


def test_full_disk_is_a_store_error_and_leaves_the_old_content(tmp_path: Path):
    """A limit on the size of files stands for the end of the disk."""
    store = Store.open(tmp_path / "store")
    store.write("a.bin", b"old")
    code = """
import resource, sys
from dn2.errors import StoreError
from dn2.store.schemas import REJECTS
from dn2.store.storage import Store
from dn2.store.tables import writing
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
store = Store.open(sys.argv[1])
try:
    store.write("a.bin", bytes(5000))
except StoreError as error:
    print(error)
try:
    with writing(store, "b.parquet", REJECTS, {}) as file:
        for number in range(50):
            file.write({name: [f"{number}-{n}" for n in range(50)] for name in REJECTS.columns.names})
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, store.uri], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith(f"store {store.uri}: cannot write 'a.bin': ")
    assert second.startswith(f"store {store.uri}: cannot write 'b.parquet': ")
    assert first.endswith("File too large")
    assert store.read("a.bin") == b"old"
    assert store.names("") == ["a.bin"]
    assert list((tmp_path / "store" / ".tmp").iterdir()) == []


@pytest.fixture(params=["below a file", "proc", "dangling link"])
def unwritable(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store that not even root can write."""
    if request.param == "proc":
        return Store.open("/proc/dn2")
    place = tmp_path / "place"
    if request.param == "below a file":
        place.write_bytes(b"")
    else:
        place.symlink_to(tmp_path / "nowhere" / "at" / "all")
    return Store.open(place / "store")


def test_unwritable_store_is_one_store_error(unwritable: Store):
    with pytest.raises(StoreError, match=f"^store {unwritable.uri}: cannot "):
        unwritable.check_writable()
    with pytest.raises(StoreError, match=f"^store {unwritable.uri}: cannot "), unwritable.create("a.bin"):
        pytest.fail("asked for the content of a file that cannot be written")


def test_folder_in_place_of_a_file_is_a_store_error(tmp_path: Path):
    store = Store.open(tmp_path)
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(StoreError, match=r"cannot write 'a\.bin': .*Is a directory"):
        store.write("a.bin", b"x")
    with pytest.raises(StoreError, match=r"cannot read 'a\.bin': .*Is a directory"):
        store.read("a.bin")


def test_store_below_a_file_cannot_be_listed(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot list 'banks': .*Not a directory"):
        Store.open(tmp_path / "file").names("banks")


def test_open_store_is_returned_as_it_is(store: Store):
    assert store is Store.open(store)


def test_only_local_files_have_a_local_place(tmp_path: Path):
    assert tmp_path / "a" / "b.bin" == Store.open(tmp_path).local("a/b.bin")
    assert Store.open("memory://x").local("a/b.bin") is None


def test_download_is_whole_or_not_there(store: Store, tmp_path: Path):
    store.write("a.bin", b"content")
    target = tmp_path / "deep" / "copy.bin"
    store.download("a.bin", target)
    assert target.read_bytes() == b"content"
    with pytest.raises(NotFoundError, match=r"no file 'b\.bin'"):
        store.download("b.bin", tmp_path / "deep" / "other.bin")
    assert [target] == list((tmp_path / "deep").iterdir())


def test_download_to_an_impossible_place_is_a_store_error(store: Store, tmp_path: Path):
    store.write("a.bin", b"content")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=f"cannot make the folder {tmp_path}/file"):
        store.download("a.bin", tmp_path / "file" / "copy.bin")


@pytest.mark.s3
def test_bucket_that_does_not_exist_is_a_store_error(s3_bucket: str):
    with pytest.raises(StoreError, match=r"store s3://no-such-bucket/x: cannot write there: .*bucket does not exist"):
        Store.open("s3://no-such-bucket/x").check_writable()
    assert Store.open("s3://no-such-bucket/x").names("banks") == []


@pytest.mark.s3
def test_wrong_credentials_are_a_store_error(s3_bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match=f"store {s3_bucket}/x: cannot write"):
        Store.open(f"{s3_bucket}/x").check_writable()
    with pytest.raises(StoreError, match=f"store {s3_bucket}/x: cannot read 'a'"):
        Store.open(f"{s3_bucket}/x").read("a")


@settings(deadline=None)
@given(
    name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
        lambda name: not name.startswith(".")
    ),
    content=st.binary(max_size=100),
)
def test_any_file_name_is_written_listed_and_read(name: str, content: bytes, tmp_path_factory: pytest.TempPathFactory):
    store = Store.open(tmp_path_factory.mktemp("any"))
    store.write(f"folder/{name}", content)
    assert [name] == store.names("folder")
    assert content == store.read(f"folder/{name}")


def test_rests_of_killed_processes_are_swept_after_a_day(tmp_path: Path):
    store = Store.open(tmp_path)
    store.write("a", b"kept")
    for name, age in ((f"{1:032x}", 25 * 3600), (f"{2:032x}.parquet", 25 * 3600), (f"{3:032x}.json", 23 * 3600)):
        (tmp_path / ".tmp" / name).write_bytes(b"rest")
        then = time.time() - age
        os.utime(tmp_path / ".tmp" / name, (then, then))
    store.check_writable()
    assert [path.name for path in (tmp_path / ".tmp").iterdir()] == [f"{3:032x}.json"]
    assert store.read("a") == b"kept"


def test_only_files_with_names_of_unfinished_ones_are_swept(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    store.write("a", b"kept")
    unfinished = tmp_path / "store" / ".tmp"
    (unfinished / "notes.txt").write_bytes(b"mine")
    (unfinished / "folder").mkdir()
    (unfinished / f"{1:032x}").mkdir()
    (unfinished / f"{2:032x}").symlink_to(unfinished / "notes.txt")
    for path in unfinished.iterdir():
        os.utime(path, (10**9, 10**9), follow_symlinks=False)
    store.check_writable()
    assert {path.name for path in unfinished.iterdir()} == {"notes.txt", "folder", f"{1:032x}", f"{2:032x}"}


def test_nothing_is_swept_behind_a_link(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("photo.png", f"{1:032x}.parquet"):
        (elsewhere / name).write_bytes(b"mine")
        os.utime(elsewhere / name, (10**9, 10**9))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".tmp").symlink_to(elsewhere)
    Store.open(tmp_path / "store").check_writable()
    assert {path.name for path in elsewhere.iterdir()} == {"photo.png", f"{1:032x}.parquet"}


def test_root_that_is_a_link_is_swept(tmp_path: Path):
    (tmp_path / "disk" / ".tmp").mkdir(parents=True)
    rest = tmp_path / "disk" / ".tmp" / f"{1:032x}"
    rest.write_bytes(b"rest")
    os.utime(rest, (10**9, 10**9))
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    Store.open(tmp_path / "store").check_writable()
    assert not rest.exists()
