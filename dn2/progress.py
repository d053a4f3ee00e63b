"""How the library says how far it is, without knowing who listens: a terminal's bar, Prefect, both, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import RLock


@dataclass(frozen=True, slots=True)
class Advance:
    """One step forward.

    Attributes:
        stage: the verb: ingest, embed, calibrate, score.
        items: images finished by this step.
        total: images of the whole stage, if known.
        limit: which part of the stage waits for the other: "reading" or "network"; empty where it makes no sense.
    """

    stage: str
    items: int
    total: int | None = None
    limit: str = ""


Listener = Callable[[Advance], None]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("dn2_progress", default=())
_telling = RLock()  # workers of several devices tell at once, and listeners add up


def advance(stage: str, items: int, *, total: int | None = None, limit: str = "") -> None:
    """Tell whoever listens that `items` more images are through `stage`."""
    for listener in _listeners.get():
        with _telling:
            listener(Advance(stage, items, total, limit))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every step forward inside the block to `listener`, too."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)
