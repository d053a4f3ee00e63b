"""What tests of locks share: another process that holds one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dn2.errors import StoreError
from dn2.store.lock import locked
from dn2.store.storage import Store

NAME = "banks/parts"
HOLDING = """
import sys
from dn2.errors import StoreError
from dn2.store import lock
from dn2.store.storage import Store
lock.LEASE, lock._BEAT, lock._SETTLE = map(float, sys.argv[2:] or ("60", "15", "1"))
try:
    with lock.locked(Store.open(sys.argv[1]), "banks/parts"):
        print("held", flush=True)
        sys.stdin.readline()
    print("done", flush=True)
except StoreError as error:
    print(error, flush=True)
"""


@contextmanager
def process(code: str, *arguments: object, says: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has said something; it is killed in the end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert heard(started) == says
            yield started
        finally:
            started.kill()


def heard(started: subprocess.Popen[str]) -> str:
    """The next line that a process says."""
    assert started.stdout is not None
    return started.stdout.readline().removesuffix("\n")


def go_on(started: subprocess.Popen[str]) -> None:
    """Let a process go on that waits for a line."""
    assert started.stdin is not None
    started.stdin.write("\n")
    started.stdin.flush()


def is_free(store: Store, name: str = NAME) -> bool:
    """True if nobody holds a lock."""
    try:
        with locked(store, name, wait=0):
            return True
    except StoreError:
        return False
