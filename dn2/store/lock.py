"""One writer at a time: a lock that lies in the store, so that everyone who shares the store shares the lock."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging import getLogger
from pathlib import Path

from dn2 import layout
from dn2.errors import NotFoundError, StoreError
from dn2.store.storage import Store

log = getLogger(__name__)
WAIT = 3600.0  # seconds to wait for another writer
_POLL = 0.2
LEASE, _BEAT, _SETTLE = 60.0, 15.0, 1.0


@contextmanager
def locked(store: Store, name: str, *, wait: float = WAIT) -> Iterator[None]:
    """Hold the store's lock of a name; wait for whoever holds it.

    A folder is locked with flock(2), which ends with the process, however that ends. A bucket knows no locks: there an
    object stands for one, renewed every 15 seconds while it is held. Whoever has watched it unchanged for 60 seconds
    takes it over, so no two clocks are ever compared. The object is created on the condition that there is none;
    because some servers ignore that condition, it is read again after a second: of two that wrote it, the later one
    holds the lock.

    Args:
        store: what is shared.
        name: what is locked, as a path: `banks/parts`.
        wait: seconds to wait for another holder.

    Raises:
        StoreError: somebody else still holds it after `wait` seconds, or it cannot be written, or the lock was lost
            while it was held (this process stood still for over a minute).
    """
    path = layout.lock(name)
    file = store.local(path)
    held = _folder_lock(store, file, name, wait) if file is not None else _bucket_lock(store, path, name, wait)
    with held:
        yield


def _holder() -> dict[str, str]:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return {"host": socket.gethostname(), "process": str(os.getpid()), "since": since}


def _busy(store: Store, name: str, text: str, wait: float) -> StoreError:
    with suppress(ValueError, KeyError, TypeError):
        holder = json.loads(text)
        text = f"process {holder['process']} on {holder['host']} since {holder['since']}"
    return StoreError(
        f"store {store.uri}: {name!r} is locked by {text or 'another process'}, waited {wait:g} s for it to end: "
        f"wait for that run or stop it, then run the same command again"
    )


@contextmanager
def _folder_lock(store: Store, file: Path, name: str, wait: float) -> Iterator[None]:
    with _translated(store, file):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + wait
        told = False
        while not _flocked(store, file, handle):
            if time.monotonic() >= deadline:
                raise _busy(store, name, os.pread(handle, 1000, 0).decode(errors="replace"), wait)
            told = told or _tell(store, name)
            time.sleep(_POLL)
        with _translated(store, file):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(_holder()).encode(), 0)  # for whoever waits; the lock itself is flock's
        yield
    finally:
        os.close(handle)


def _flocked(store: Store, file: Path, handle: int) -> bool:
    with _translated(store, file):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@contextmanager
def _translated(store: Store, file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"store {store.uri}: cannot write its lock {file}: {error}") from error


def _tell(store: Store, name: str) -> bool:
    log.warning("store %s: waiting for another writer of %s", store.uri, name)
    return True


@contextmanager
def _bucket_lock(store: Store, path: str, name: str, wait: float) -> Iterator[None]:
    mine = uuid.uuid4().hex
    holder = _holder()
    _take(store, path, name, json.dumps({"owner": mine, "beat": 0, **holder}), wait)
    ended, lost = threading.Event(), threading.Event()

    def renew() -> None:
        beat = 0
        while not ended.wait(_BEAT):
            beat += 1
            with suppress(StoreError):  # a network that fails now and then; the lease lasts four beats
                if _owner(_text(store, path)) != mine:
                    lost.set()
                    return
                store.write(path, json.dumps({"owner": mine, "beat": beat, **holder}).encode())

    thread = threading.Thread(target=renew, daemon=True, name="dn2-lock")
    thread.start()
    try:
        yield
        ended.set()
        thread.join()
        if lost.is_set() or _owner(_text(store, path)) != mine:  # lost since the last beat
            raise StoreError(
                f"store {store.uri}: the lock of {name!r} was lost while it was held: this process stood still for "
                f"over {LEASE:g} s, and another run may have written; run the same command again"
            )
    finally:
        ended.set()
        thread.join()
        with suppress(StoreError):
            if _owner(_text(store, path)) == mine:
                store.remove(path)


def _take(store: Store, path: str, name: str, text: str, wait: float) -> None:
    """Return when the lock is ours: our text is there, and still is a moment later."""
    deadline = time.monotonic() + wait
    seen, since, told = "", time.monotonic(), False
    while True:
        there = _text(store, path)
        if there != seen:
            seen, since = there, time.monotonic()
        if not there or time.monotonic() - since > LEASE:
            if there:
                log.warning("store %s: the lock of %s stood still for %g s: taking it over", store.uri, name, LEASE)
                store.remove(path)
            if store.write_new(path, text.encode()):
                time.sleep(_SETTLE)
                if _text(store, path) == text:
                    return
        if time.monotonic() >= deadline:
            raise _busy(store, name, there, wait)
        told = told or _tell(store, name)
        time.sleep(_SETTLE)


def _text(store: Store, path: str) -> str:
    try:
        return store.read(path).decode(errors="replace")
    except NotFoundError:
        return ""


def _owner(text: str) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["owner"])
    return ""
