"""What tests of commands ask of them: one clear line for a failure, and what lies in a folder."""

from __future__ import annotations

import re
from pathlib import Path

from tests.flows.command import Done

WRONG_USE, FAILED = 2, 1


def files(folder: Path) -> dict[str, int]:
    """Return what lies in a folder, with the time of its last change; locks are no results."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts)
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def check(done: Done, code: int, message: str) -> None:
    """Assert that a command failed with one line that matches."""
    assert re.fullmatch(f"error: [^\n]*{message}[^\n]*\n", done.err), done.err
    assert (done.code, done.out) == (code, "")
    assert "Traceback" not in done.err
    assert "file://file://" not in done.err
