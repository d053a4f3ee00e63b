"""The lock of a store in a bucket: an object that is renewed, on servers that keep its condition and on one that does
not."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread

import pytest

from dn2.errors import StoreError
from dn2.store import lock
from dn2.store.lock import locked
from dn2.store.storage import Store
from tests.dn2.store.holders import HOLDING, NAME, go_on, heard, is_free, process

PATH = ".locks/banks/parts"
LOST = r"the lock of 'banks/parts' was lost while it was held: .*; run the same command again$"


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.s3) for name in ("rclone", "moto")])
def bucket(request: pytest.FixtureRequest) -> Store:
    """An empty store on a server that ignores conditions, and on one that keeps them."""
    if request.param == "moto":
        return request.getfixturevalue("moto")
    return Store.open(f"{request.getfixturevalue('s3_bucket')}/{uuid.uuid4().hex}")


@pytest.fixture
def memory() -> Store:
    """An empty store that is no folder, and quick."""
    return Store.open(f"memory://{uuid.uuid4().hex}")


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Seconds that a test can wait. The first is long: only tests of it let a lease run out."""
    monkeypatch.setattr(lock, "LEASE", 60.0)
    monkeypatch.setattr(lock, "_BEAT", 0.1)
    monkeypatch.setattr(lock, "_SETTLE", 0.1)
    return monkeypatch


def again(store: Store) -> Store:
    """The same store, opened by somebody else."""
    return Store.open(store.uri)


def write_and_rest(store: Store, theirs: bytes) -> None:
    """Take a lock from its holder, and give him the time to notice."""
    store.write(PATH, theirs)
    time.sleep(0.3)


def test_threads_exclude_each_other(bucket: Store, times: pytest.MonkeyPatch):
    """Each reads a number, rests, and writes it back raised by one. All find the lock free at the same moment."""
    times.setattr(lock, "_SETTLE", 0.5)
    number, start = [0], Barrier(3)

    def count(_: int) -> None:
        mine = again(bucket)
        mine.exists("")  # connects
        start.wait()
        for _ in range(2):
            with locked(mine, NAME):
                value = number[0]
                time.sleep(0.2)
                number[0] = value + 1

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(count, range(3)))
    assert number == [6]
    assert not bucket.exists(PATH)


def test_object_says_who_holds_the_lock_and_is_gone_afterwards(bucket: Store):
    with locked(bucket, NAME):
        held = json.loads(bucket.read(PATH))
        assert (held["host"], held["process"]) == (socket.gethostname(), str(os.getpid()))
        assert bucket.names("") == []
    assert not bucket.exists(PATH)


def test_error_in_the_block_frees_the_lock(memory: Store):
    with pytest.raises(ValueError, match=r"^mine$"), locked(memory, NAME):
        raise ValueError("mine")
    assert not memory.exists(PATH)


def test_other_names_are_not_blocked(memory: Store):
    with locked(memory, NAME):
        assert is_free(again(memory), "banks/part")
        assert not is_free(again(memory), NAME)


def test_waiting_too_long_names_the_holder_and_is_logged_once(bucket: Store, caplog: pytest.LogCaptureFixture):
    message = (
        rf"^store {re.escape(bucket.uri)}: 'banks/parts' is locked by process {os.getpid()} on "
        rf"{re.escape(socket.gethostname())} since .* UTC, waited 1 s for it to end: wait for that run or stop it"
    )
    with (
        caplog.at_level(logging.INFO, "dn2"),
        locked(bucket, NAME),
        pytest.raises(StoreError, match=message),
        locked(bucket, NAME, wait=1),
    ):
        pytest.fail("two hold the lock")
    told = [record.getMessage() for record in caplog.records if record.name.startswith("dn2")]
    assert told == [f"store {bucket.uri}: waiting for another writer of banks/parts"]


def test_long_holder_is_kept_safe_by_its_beats(bucket: Store, times: pytest.MonkeyPatch):
    """Somebody waits for more than two leases; the next test shows that without beats he would get the lock."""
    times.setattr(lock, "LEASE", 2.0)
    with locked(bucket, NAME), pytest.raises(StoreError, match="is locked by"), locked(again(bucket), NAME, wait=5):
        pytest.fail("two hold the lock")
    assert not bucket.exists(PATH)


def test_holder_that_stands_still_for_a_lease_loses_the_lock_and_is_told(
    bucket: Store, times: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    times.setattr(lock, "_BEAT", 3600.0)
    times.setattr(lock, "LEASE", 0.5)
    with pytest.raises(StoreError, match=LOST), locked(bucket, NAME), locked(again(bucket), NAME, wait=60):
        pass
    assert f"store {bucket.uri}: the lock of banks/parts stood still for 0.5 s: taking it over" in caplog.messages


@pytest.mark.parametrize("beat", [0.05, 3600.0])
@pytest.mark.parametrize("theirs", [b'{"owner": "somebody"}', b"garbage"])
def test_lock_that_somebody_took_is_told_and_left_to_him(
    memory: Store, times: pytest.MonkeyPatch, beat: float, theirs: bytes
):
    """Noticed by a beat, or at the end where there was none since."""
    times.setattr(lock, "_BEAT", beat)
    with pytest.raises(StoreError, match=LOST), locked(memory, NAME):
        write_and_rest(memory, theirs)
    assert memory.read(PATH) == theirs


def test_lock_that_somebody_removed_is_told(bucket: Store, times: pytest.MonkeyPatch):
    times.setattr(lock, "_BEAT", 3600.0)
    with pytest.raises(StoreError, match=LOST), locked(bucket, NAME):
        bucket.remove(PATH)
    assert not bucket.exists(PATH)


def test_lock_of_a_killed_process_is_taken_over(
    bucket: Store, times: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """SIGKILL: no handler runs, and the object stays."""
    times.setattr(lock, "LEASE", 1.0)
    with process(HOLDING, bucket.uri, 60, 0.1, 0.1, says="held") as holder:
        holder.kill()
        holder.wait()
        assert f'"process": "{holder.pid}"' in bucket.read(PATH).decode()
        with locked(bucket, NAME, wait=60):
            assert json.loads(bucket.read(PATH))["process"] == str(os.getpid())
    assert not bucket.exists(PATH)
    assert f"store {bucket.uri}: the lock of banks/parts stood still for 1 s: taking it over" in caplog.messages


def test_process_that_was_stopped_for_longer_than_a_lease_is_told(bucket: Store, times: pytest.MonkeyPatch):
    """SIGSTOP, as on a machine that was suspended; the next holder's object is not removed."""
    times.setattr(lock, "LEASE", 1.0)
    with process(HOLDING, bucket.uri, 1, 0.1, 0.1, says="held") as holder:
        holder.send_signal(signal.SIGSTOP)
        with locked(bucket, NAME, wait=60):
            holder.send_signal(signal.SIGCONT)
            go_on(holder)
            assert re.search(LOST, heard(holder))
            assert json.loads(bucket.read(PATH))["process"] == str(os.getpid())


def test_waiter_goes_on_when_the_holder_ends(memory: Store):
    held, order = Event(), []

    def wait() -> None:
        held.set()
        with locked(again(memory), NAME, wait=60):
            order.append("second")

    waiter = Thread(target=wait)
    with locked(memory, NAME):
        waiter.start()
        held.wait()
        time.sleep(0.3)
        order.append("first")
    waiter.join()
    assert order == ["first", "second"]
