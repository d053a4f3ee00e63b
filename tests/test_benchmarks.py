"""Benchmarks are not run here, but they must still fit the library that they measure."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if not path.stem.startswith("_")
)


@pytest.mark.parametrize("module", MODULES)
def test_benchmark_can_be_loaded(module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DN2_BENCH_DIR", str(tmp_path))
    assert import_module(module).__doc__
