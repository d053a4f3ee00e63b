"""Something that happens in the middle of a run, at a step that the run's log names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Meanwhile(logging.Handler):
    """Does something else from begin to end, in a thread of its own, when a step says that it begins.

    What is raised there is raised by the step.
    """

    def __init__(self, step: str, work: Callable[[], Any]) -> None:
        super().__init__()
        self.done: list[Any] = []
        self._step, self._work = step, work

    def createLock(self) -> None:  # noqa: N802  (logging's name)
        self.lock = None  # what else is done logs, too

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self._step):
            self._step = "\0"  # once
            with ThreadPoolExecutor(1) as pool:
                self.done.append(pool.submit(self._work).result())

    def __enter__(self) -> Meanwhile:
        logging.getLogger("prefect.task_runs").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("prefect.task_runs").removeHandler(self)


def die() -> None:
    """Stop the run as Ctrl-C does."""
    raise KeyboardInterrupt
