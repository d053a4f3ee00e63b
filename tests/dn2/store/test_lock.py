"""The lock of a store in a folder: threads, processes, and processes that die."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest

from dn2.errors import StoreError
from dn2.store import lock
from dn2.store.lock import locked
from dn2.store.storage import Store
from tests.dn2.store.holders import HOLDING, NAME, go_on, heard, is_free, process

COUNTING = """
import sys, time
from pathlib import Path
from dn2.store import lock
from dn2.store.storage import Store
lock._POLL = 0.01
counter = Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    with lock.locked(Store.open(sys.argv[1]), "banks/parts"):
        value = int(counter.read_text())
        time.sleep(0.01)
        counter.write_text(str(value + 1))
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(lock, "_POLL", 0.01)
    return Store.open(tmp_path / "store")


def test_threads_exclude_each_other(tmp_path: Path, store: Store):
    """Each reads a number, rests, and writes it back raised by one."""
    counter, start = tmp_path / "counter", Barrier(8)
    counter.write_text("0")

    def count(_: int) -> None:
        start.wait()
        for _ in range(5):
            with locked(Store.open(store.uri), NAME):
                value = int(counter.read_text())
                time.sleep(0.002)
                counter.write_text(str(value + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert counter.read_text() == "40"


def test_processes_exclude_each_other(tmp_path: Path, store: Store):
    counter = tmp_path / "counter"
    counter.write_text("0")
    with (
        process(COUNTING, store.uri, counter, says="ready") as one,
        process(COUNTING, store.uri, counter, says="ready") as two,
        process(COUNTING, store.uri, counter, says="ready") as three,
    ):
        for each in (one, two, three):
            go_on(each)
        assert [each.wait(60) for each in (one, two, three)] == [0, 0, 0]
    assert counter.read_text() == "30"


def test_lock_of_a_killed_process_is_free_at_once(store: Store):
    """SIGKILL: no handler runs."""
    with process(HOLDING, store.uri, says="held") as holder:
        assert not is_free(store)
        holder.kill()
        holder.wait()
        assert is_free(store)


def test_lock_of_a_process_that_ends_is_free(store: Store):
    with process(HOLDING, store.uri, says="held") as holder:
        assert not is_free(store)
        go_on(holder)
        assert heard(holder) == "done"
        assert is_free(store)


def test_waiting_too_long_names_the_holder(store: Store):
    with process(HOLDING, store.uri, says="held") as holder:
        message = (
            rf"^store {re.escape(store.uri)}: 'banks/parts' is locked by process {holder.pid} on "
            rf"{re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC, waited 0\.1 s for it to "
            rf"end: wait for that run or stop it, then run the same command again$"
        )
        with pytest.raises(StoreError, match=message), locked(store, NAME, wait=0.1):
            pytest.fail("two hold the lock")


@pytest.mark.parametrize(
    ("text", "holder"), [("", "another process"), ("[]", r"\[\]"), ("{}", r"\{\}"), ("\N{BOMB}", "\N{BOMB}")]
)
def test_holder_that_did_not_say_who_it_is_is_waited_for_all_the_same(
    tmp_path: Path, store: Store, text: str, holder: str
):
    file = tmp_path / "store" / ".locks" / "banks" / "parts"
    file.parent.mkdir(parents=True)
    with file.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=f"is locked by {holder}, waited 0 s"), locked(store, NAME, wait=0):
            pytest.fail("two hold the lock")


def test_next_holder_is_named_instead_of_the_last_one(store: Store):
    with process(HOLDING, store.uri, says="held"):
        pass
    with locked(store, NAME), pytest.raises(StoreError, match=f"locked by process {os.getpid()} on"):
        locked(store, NAME, wait=0).__enter__()


def test_other_names_are_not_blocked(store: Store):
    with locked(store, NAME, wait=0):
        assert is_free(store, "banks/part")
        assert is_free(store, "parts")
        assert not is_free(store, NAME)


def test_other_stores_are_not_blocked(tmp_path: Path, store: Store):
    with locked(store, NAME, wait=0):
        assert is_free(Store.open(tmp_path / "other"))


def test_link_to_a_store_has_the_same_lock(tmp_path: Path, store: Store):
    (tmp_path / "link").symlink_to(tmp_path / "store")
    with locked(store, NAME, wait=0):
        assert not is_free(Store.open(tmp_path / "link"))


def test_error_in_the_block_frees_the_lock(store: Store):
    with pytest.raises(ValueError, match=r"^mine$"), locked(store, NAME):
        raise ValueError("mine")
    assert is_free(store)


def test_lock_is_no_visible_file_of_the_store(store: Store):
    with locked(store, NAME):
        assert store.names("") == []
    assert store.names("") == []


def test_log_tells_once_that_it_waits(store: Store, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO), locked(store, NAME), pytest.raises(StoreError, match="is locked by"):
        locked(store, NAME, wait=1).__enter__()
    assert caplog.messages == [f"store {store.uri}: waiting for another writer of banks/parts"]


def test_waiter_goes_on_when_the_holder_ends(store: Store):
    held, waited = Event(), []

    def wait() -> None:
        held.set()
        with locked(store, NAME, wait=60):
            waited.append("second")

    waiter = Thread(target=wait)
    with locked(store, NAME):
        waiter.start()
        held.wait()
        time.sleep(0.05)
        waited.append("first")
    waiter.join()
    assert waited == ["first", "second"]


@pytest.mark.parametrize("place", ["below a file", "proc", "dangling link", "folder in its place"])
def test_store_that_cannot_be_written_is_a_store_error(tmp_path: Path, place: str):
    """Nothing here can be written by root, either."""
    url = tmp_path / "place" / "store"
    if place == "below a file":
        (tmp_path / "place").write_bytes(b"")
    elif place == "dangling link":
        (tmp_path / "place").symlink_to(tmp_path / "nowhere" / "at" / "all")
    elif place == "folder in its place":
        (url / ".locks" / NAME).mkdir(parents=True)
    else:
        url = Path("/proc/dn2")
    message = f"^store file://{url}: cannot write its lock {url}/.locks/banks/parts: "
    with pytest.raises(StoreError, match=message), locked(Store.open(url), NAME):
        pytest.fail("holds a lock that cannot be")


def test_full_disk_is_a_store_error_and_holds_nothing(store: Store):
    """A limit on the size of files stands for the end of the disk."""
    code = """
import resource, sys
from dn2.errors import StoreError
from dn2.store.lock import locked
from dn2.store.storage import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    with locked(Store.open(sys.argv[1]), "banks/parts"):
        print("held", flush=True)
except StoreError as error:
    print(error, flush=True)
sys.stdin.readline()
"""
    text = f"store {store.uri}: cannot write its lock {store.local('.locks/banks/parts')}: [Errno 27] File too large"
    with process(code, store.uri, says=text):
        assert is_free(store)
