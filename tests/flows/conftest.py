from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.command import Run, own_logging, runner


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command sets the library's logger up for its process; the next test finds it as it was."""
    with own_logging():
        yield


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command line in this process, in an empty folder, for what needs no server: help, and wrong use."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return runner(capsys, monkeypatch)


@pytest.fixture
def run(
    prefect_server: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> Run:
    """The command line in this process, in an empty folder, against the tests' Prefect server."""
    monkeypatch.chdir(str(tmp_path))
    return runner(capsys, monkeypatch)
