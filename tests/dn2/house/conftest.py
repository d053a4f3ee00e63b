from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.dn2.house.nights import Nights, build


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Read-only: tests that change it take `nights`."""
    folder = tmp_path_factory.mktemp("nights")
    return build(folder, str(folder / "store"))


@pytest.fixture
def nights(made: Nights, tmp_path: Path) -> Nights:
    """A copy of the store that a test may change; its source is still the same one."""
    shutil.copytree(made.store, tmp_path / "store")
    return Nights(str(tmp_path / "store"), made.source, made.bank, made.reports)
