from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import dn2
from dn2 import config, errors
from tests.conftest import Bricks


def test_public_names_are_those_that_the_modules_provide():
    """Every public name loads, and none is listed twice."""
    assert sorted(dn2.__all__) == sorted(set(dn2.__all__))
    assert dir(dn2) == sorted(dn2.__all__)
    for name in dn2.__all__:
        assert getattr(dn2, name).__name__ == name


def test_type_checkers_know_the_same_names_from_the_same_modules():
    """Else `dn2.something` would be unknown to mypy, or known and not there."""
    (block,) = (node for node in ast.parse(inspect.getsource(dn2)).body if isinstance(node, ast.If))
    told = [(line.module, name.name, name.asname) for line in block.body for name in line.names]
    assert sorted(told) == sorted((module, name, name) for name, module in dn2._HOME_OF.items())


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        _ = dn2.fits


def test_import_loads_nothing_heavy():
    """`import dn2` must not make a user wait."""
    heavy = ["torch", "openvino", "pyarrow", "numpy", "pydantic", "prefect", "PIL", "sklearn", "matplotlib", "fsspec"]
    code = f"import sys, dn2; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_error_is_a_dn2_error_and_drawn_in_the_tree():
    for name in (name for name in vars(errors) if name.endswith("Error")):
        assert issubclass(getattr(errors, name), errors.Dn2Error)
        assert name in (errors.__doc__ or "")


def test_five_lines_train_and_score_a_folder(bricks: Bricks, tmp_path: Path):
    """The same five lines as in the README, on real pictures."""
    normal, new, store = bricks.normal, bricks.batch, tmp_path / "store"
    bank = dn2.fit(dn2.embed(dn2.ingest(normal, store), store), store, bank="parts")
    report = dn2.score(dn2.embed(dn2.ingest(new, store), store, bank=bank), store, bank=bank)

    rows = pq.read_table(f"{report.uri.removeprefix('file://')}/part-00000.parquet").to_pylist()
    assert report.images == len(rows) == len(list(new.iterdir()))
    assert report.rejected == sum(row["reject_reason"] is not None for row in rows) == 3
    assert report.anomalous == sum(row["is_anomaly"] is True for row in rows) > 80
    assert Path(report.html.removeprefix("file://")).is_file()


def test_every_setting_is_described():
    for model in (config.EmbedConfig, config.FitConfig, config.ScoreConfig):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
