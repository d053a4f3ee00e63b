from __future__ import annotations

import pytest
import typer

from dn2.errors import ConfigError, NotFoundError, SourceError
from flows.cli import console


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("k: got 0"), 2, "error: k: got 0\n"),
        (NotFoundError("bank 'b': not there"), 2, "error: bank 'b': not there\n"),
        (SourceError("two\nlines"), 1, "error: two lines\n"),
        (KeyError("a"), 1, "error: unexpected KeyError: 'a' (--verbose shows where)\n"),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to go on where it was\n"),
    ],
)
def test_every_end_has_one_line_and_one_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
):
    with pytest.raises(typer.Exit) as ended, console.session(verbose=False):
        raise error
    assert (ended.value.exit_code, capsys.readouterr()) == (code, ("", line))


def stopped_between_two_tasks() -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise ValueError("Task run is not set")


def test_error_that_control_c_causes_on_its_way_is_control_c(capsys: pytest.CaptureFixture[str]):
    """Between two tasks Prefect answers it with an error of its own."""
    with pytest.raises(typer.Exit) as ended, console.session(verbose=False):
        stopped_between_two_tasks()
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err.startswith("stopped; ")


def test_unexpected_error_is_raised_with_its_place_when_verbose():
    with pytest.raises(ZeroDivisionError), console.session(verbose=True):
        _ = 1 / 0
