"""What every flow run does besides its work: show how far the embedding is, and not start again for ever."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run

from dn2.errors import Dn2Error
from dn2.progress import Advance, listening

log = getLogger("dn2.flows")
MOST_CRASHES = 3  # a run that crashes more often in a row is not started again
_EVERY = 3.0  # seconds between two updates of the progress artifact


class CrashedTooOftenError(Dn2Error, RuntimeError):
    """A run that crashed again and again is not tried once more."""


@contextmanager
def watched() -> Iterator[None]:
    """Run a flow's body: embedding shows in a progress artifact, and a run that only ever crashes ends.

    Raises:
        CrashedTooOftenError: this run has crashed three times in a row.
    """
    _check_crashes()
    with _Progress() as progress, listening(progress.take):
        yield


def _check_crashes() -> None:
    if flow_run.run_count <= MOST_CRASHES:
        return
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(UUID(str(flow_run.id)))
    crashes = 0
    for state in sorted(states, key=lambda state: state.timestamp):
        if state.type in (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED):
            crashes = 0
        crashes += state.type == StateType.CRASHED
    if crashes >= MOST_CRASHES:
        raise CrashedTooOftenError(
            f"this run has crashed {crashes} times in a row, expected at most {MOST_CRASHES - 1}: it is not started "
            f"again; find the cause (memory, a machine that went down), then retry it by hand"
        )


class _Progress:
    """Keeps one progress artifact up to date from a thread of its own, so that a slow server slows no embedding."""

    def __init__(self) -> None:
        self._before = 0  # images of sources that are embedded
        self._done, self._total = 0, 0  # of the one that is being embedded now
        self._known = 0  # images of all of them that an earlier run had embedded
        self._limit, self._began = "", 0.0
        self._artifact: UUID | None = None
        self._shown = ""
        self._run = str(flow_run.id)
        self._ended = threading.Event()
        context = contextvars.copy_context()  # the thread must find the same server
        self._thread = threading.Thread(target=context.run, args=(self._loop,), daemon=True, name="dn2-progress")

    def __enter__(self) -> _Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def take(self, step: Advance) -> None:
        """Note one step of the embedding; steps without a limit were done by an earlier run."""
        if step.stage != "embed" or not step.items:
            return
        if self._done >= self._total:  # the next source begins
            self._before, self._done, self._total = self._before + self._done, 0, step.total or 0
        self._began = self._began or time.monotonic()
        self._limit = step.limit or self._limit
        if not step.limit:
            self._known += step.items
        self._done += step.items

    def _loop(self) -> None:
        while not self._ended.wait(_EVERY):
            self._show()
        self._show()

    def _show(self) -> None:
        text = self._text()
        if not text or text == self._shown:
            return
        done, total = self._counts()
        percent = 100 * done / total
        try:
            with get_client(sync_client=True) as client:
                if self._artifact is None:
                    request = ArtifactCreate(
                        type="progress",
                        key="dn2-embedding",
                        flow_run_id=UUID(self._run),
                        description=text,
                        data=round(percent, 1),
                    )
                    self._artifact = client.create_artifact(request).id
                else:
                    client.update_artifact(self._artifact, ArtifactUpdate(data=round(percent, 1), description=text))
            self._shown = text
        except Exception as error:  # progress is for the eye: whatever fails here must not stop the work
            log.debug("cannot show progress: %s", error)

    def _counts(self) -> tuple[int, int]:
        """Return how many images are embedded, and how many there are, as far as that is known."""
        return self._before + self._done, self._before + max(self._total, self._done)

    def _text(self) -> str:
        """Return how far the embedding is in words; nothing while none was needed."""
        done, total = self._counts()
        embedded = done - self._known
        if not embedded:
            return ""
        rate = embedded / max(time.monotonic() - self._began, 1e-3)
        left = "done" if done >= total else f"{(total - done) / rate:.0f} s left"
        return f"**{done:,}** of {total:,} images, {rate:.0f} images/s, {self._limit} limits, {left}"
