from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.dn2.upkeep.full import Full
from tests.dn2.upkeep.nights import Nights, build


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


@pytest.fixture(scope="session")
def made_full(tmp_path_factory: pytest.TempPathFactory) -> Full:
    """Read-only: tests that change it take `full`."""
    folder = tmp_path_factory.mktemp("full")
    full = Full(str(folder / "store"), folder / "photos")
    for age, path in enumerate(  # a clock that is coarse, or a machine that is fast, must not decide
        [
            f"banks/parts/versions/{full.second.version}.json",
            f"banks/parts/versions/{full.first.version}.json",
            *(f"{full.path(report.uri)}/summary.json" for report in reversed(full.reports)),
        ]
    ):
        os.utime(folder / "store" / path, (10**9 - age, 10**9 - age))
    return full


@pytest.fixture
def full(made_full: Full, tmp_path: Path) -> Path:
    """A copy of the store that a test may change."""
    return shutil.copytree(made_full.store.uri.removeprefix("file://"), tmp_path / "store")
