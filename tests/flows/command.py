"""Two ways to run the command line: the installed program, as a user does, or its `main` in this process, at once."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

from flows import cli

DN2 = Path(sys.executable).parent / "dn2"
Run = Callable[..., "Done"]


@dataclass(frozen=True)
class Done:
    """What is left of a command: its exit code and what it printed."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a user: without what this process tells Prefect about its own server."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTEST", "COV_"))}
    return {**mine, "PREFECT_HOME": os.environ["PREFECT_HOME"], "COLUMNS": "100", **more}


def server() -> dict[str, str]:
    """Return what makes a program use the tests' Prefect server, instead of starting one: eight seconds less."""
    return {"PREFECT_API_URL": str(PREFECT_API_URL.value())}


def dn2(*arguments: str | Path, cwd: Path | None = None, **more: str) -> Done:
    """Run the installed program."""
    done = subprocess.run(
        [DN2, *map(str, arguments)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=cwd,
        env=environment(**more),
        timeout=200,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def runner(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs the command line in this process."""

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["dn2", *map(str, arguments)])
        capsys.readouterr()
        with own_logging(), pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


@contextmanager
def own_logging() -> Iterator[None]:
    """Leave the library's logger as it was: a command sets it up for its process."""
    logger = logging.getLogger("dn2")
    before = logger.handlers[:], logger.propagate, logger.level
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate, level = before
        logger.setLevel(level)
