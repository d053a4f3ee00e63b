"""Look at several things of a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dn2.store.storage import Store

_LOOKS = 16  # at a time in a bucket, where each costs a round trip
T = TypeVar("T")
R = TypeVar("R")


def each(store: Store, look: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Return what a look at each thing shows; in a bucket several at a time."""
    if store.is_local or len(things) < 2:
        return [look(thing) for thing in things]
    with ThreadPoolExecutor(_LOOKS) as pool:
        return list(pool.map(look, things))
