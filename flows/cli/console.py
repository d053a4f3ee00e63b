"""What the command line shows: progress bars, results, and one clear line when something is wrong."""

from __future__ import annotations

import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from dn2.errors import ConfigError, Dn2Error, NotFoundError
from dn2.fields import Config
from dn2.progress import Advance, listening
from flows.cli.server import Server

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130  # exit codes
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print one line of result; nothing in it is markup."""
    out.print(Text(text))


def visible(line: str) -> str:
    """Return a line in which nothing moves the cursor or breaks it: names of files are hostile input."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)


def warn(text: str) -> None:
    """Print one line of warning."""
    err.print(Text(f"warning: {text}", "yellow"))


class Run:
    """Runs flows for one command, on a server that starts when the first one does.

    Attributes:
        done: what the last flow returned.
        seconds: how long it ran.
    """

    done: Any = None
    seconds = 0.0

    def __init__(self, *, verbose: bool) -> None:
        self._server = Server(verbose=verbose)

    def __call__(self, flow: str, parameters: Config) -> Any:
        """Return the record of a flow.

        Args:
            flow: its module in `flows`, and its function.
            parameters: what it is told.
        """
        began = time.monotonic()
        self._server.start()  # it comes up while the flow's module, and with it torch, is loaded
        module, _, name = flow.partition(".")
        function = getattr(import_module(f"flows.{module}"), name)
        self._server.wait()
        with progress():
            self.done = function(parameters)
        self.seconds = time.monotonic() - began
        return self.done


@contextmanager
def session(*, verbose: bool, as_typed: Callable[[str], str] = str) -> Iterator[Run]:
    """Run a command: quiet logs, one line for an error, and an exit code a script can trust.

    Args:
        verbose: show the log, and where an unexpected error arose.
        as_typed: turns the names of fields in an error into those of the command's options.
    """
    _quiet(verbose)
    try:
        yield Run(verbose=verbose)
    except Dn2Error as error:
        _fail(as_typed(str(error)), WRONG_USE if isinstance(error, ConfigError | NotFoundError) else FAILED)
    except (typer.Exit, typer.Abort):
        raise
    except BaseException as error:
        if _stems_from(error, "TerminationSignal"):  # Prefect's, for SIGTERM: end as if nobody had caught that
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        if _stems_from(error, "KeyboardInterrupt"):
            err.print("stopped; run the same command again to go on where it was")
            raise typer.Exit(INTERRUPTED) from None
        if verbose or not isinstance(error, Exception):
            raise
        _fail(f"unexpected {type(error).__name__}: {error} (--verbose shows where)", FAILED)


def _stems_from(error: BaseException | None, signal_name: str) -> bool:
    """Return True for a signal's exception, and for the errors that it causes in Prefect between two tasks."""
    while error is not None and type(error).__name__ != signal_name:
        error = error.__context__
    return error is not None


def _fail(error: str, code: int) -> None:
    err.print(Text("error: ", "bold red") + Text(" ".join(error.split())))
    raise typer.Exit(code) from None


class _Lines(logging.Handler):
    """Prints each record as one line, above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        err.print(
            Text(f"{record.levelname.lower()}: {record.getMessage()}", "yellow" if record.levelno > 20 else "dim")
        )


def _quiet(verbose: bool) -> None:
    """Let our own warnings through, Prefect's only if asked to. Must run before Prefect is imported."""
    logger = logging.getLogger("dn2")
    logger.addHandler(_Lines())
    logger.propagate = False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    if not verbose:
        warnings.filterwarnings("ignore", module=r"prefect\.")
        warnings.filterwarnings("ignore", module="PIL")  # what is wrong with a picture is its reject reason
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")


@contextmanager
def progress() -> Iterator[None]:
    """Show a bar with images per second for every stage that runs inside the block, if this is a terminal."""
    from rich import progress as of  # here: a command that only shows its help draws none

    columns = (
        of.SpinnerColumn(),
        of.TextColumn("{task.description:9}"),
        of.BarColumn(),
        of.MofNCompleteColumn(),
        of.TextColumn("{task.fields[rate]}"),
        of.TimeRemainingColumn(compact=True),
        of.TextColumn("{task.fields[limit]}", style="dim"),
    )
    with of.Progress(*columns, console=err, disable=not err.is_terminal) as bars:
        stages: dict[str, of.TaskID] = {}

        def listener(step: Advance) -> None:
            if step.stage not in stages:
                stages[step.stage] = bars.add_task(step.stage, total=step.total, rate="", limit="")
            stage = stages[step.stage]
            task = bars.tasks[stage]
            elapsed = task.elapsed or 0
            done = task.completed + step.items
            rate = f"{done / elapsed:.0f} images/s" if elapsed > 0.5 else ""
            limit = f"{step.limit} limits" if step.limit else ""
            bars.update(stage, advance=step.items, total=step.total, rate=rate, limit=limit)

        with listening(listener):
            yield
