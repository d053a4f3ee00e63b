"""A summary may lie anywhere and come from anybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dn2
from dn2.reports.finished import find_report
from tests.dn2.reports.batches import Batch


def changed(folder: Path, **values: Any) -> Path:
    """Change fields of an exported report's summary; None removes one."""
    summary = json.loads((folder / "summary.json").read_bytes()) | values
    kept = {name: value for name, value in summary.items() if value is not None}
    (folder / "summary.json").write_text(json.dumps(kept))
    return folder


def test_report_in_a_store_and_its_copy_say_the_same(batch: Batch, tmp_path: Path):
    folder = dn2.export(batch.report, batch.store, tmp_path / "report")
    inside, copied = find_report(batch.report), find_report(folder)

    assert (inside.uri, inside.copy, copied.uri, copied.copy) == (
        batch.report.uri,
        None,
        f"file://{folder}",
        str(folder),
    )
    assert inside.store == copied.store == f"file://{batch.store}"
    assert inside.scored == copied.scored
    assert (inside.bank, inside.config) == (copied.bank, copied.config) == (batch.bank, dn2.ScoreConfig())
    assert (inside.scored.scored, inside.scored.rejected) == (160, 3)


@pytest.mark.parametrize("place", ["nowhere", "empty", "photo.png"])
def test_what_is_no_report_is_refused(tmp_path: Path, place: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.png").write_bytes(b"no report")
    with pytest.raises(
        dn2.NotFoundError, match=rf"report file://.*/{place}: got no summary.json there, expected a fini"
    ):
        find_report(tmp_path / place)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("half a summ", "got a damaged file, expected JSON"),
        ("[]", "expected a JSON object"),
        ('{"schema": "dn2.watch", "schema_version": 1}', "got schema dn2.watch version 1, expected dn2.report_summary"),
    ],
)
def test_summary_of_something_else_is_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(dn2.SchemaError, match=message):
        find_report(tmp_path)


def test_report_of_an_older_dn2_says_what_to_do(batch: Batch, tmp_path: Path):
    folder = changed(dn2.export(batch.report, batch.store, tmp_path / "report"), scores=None, producer="dn2 0.0.9")
    with pytest.raises(dn2.ConfigError, match=r"made by dn2 0.0.9, which kept no scores; score the batch again"):
        find_report(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scores": []}, r"got scores = \[\], expected an object"),
        ({"scores": {"parts": []}}, r"scores: got source"),
        ({"bank_version": {"name": "bricks"}}, r"bank_version: got version"),
        ({"config": {"shine": 3}}, r"summary.json: config: shine = 3: Extra inputs are not permitted"),
        ({"uri": "s3://elsewhere/reports/other/0123456789abcdef"}, "got paths that dn2 does not use"),
        ({"uri": 3}, "got paths that dn2 does not use"),
    ],
)
def test_damaged_summary_is_refused(batch: Batch, tmp_path: Path, values: dict[str, Any], message: str):
    folder = changed(dn2.export(batch.report, batch.store, tmp_path / "report"), **values)
    with pytest.raises(dn2.SchemaError, match=message):
        find_report(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", "../../secret/part-00000.parquet"),
        ("path", "scores/bricks/0123456789abcdef/part-00000.parquet"),
        ("path", "s3://evil/part-00000.parquet"),
        ("shard", "http://127.0.0.1:1/x.parquet"),
        ("shard", "embeddings/../../secret.parquet"),
        ("shard", "/etc/passwd"),
        ("shard", "embeddings//etc/passwd"),
    ],
)
def test_summary_that_leads_out_of_the_store_is_refused(batch: Batch, tmp_path: Path, field: str, value: str):
    folder = dn2.export(batch.report, batch.store, tmp_path / "report")
    scores = json.loads((folder / "summary.json").read_bytes())["scores"]
    scores["parts"][0][field] = value
    with pytest.raises(
        dn2.SchemaError,
        match=r"scores: parts.0.\w+: got .*, expected \w+/<|got paths that dn2 does not use, expected those",
    ):
        find_report(changed(folder, scores=scores))


@pytest.mark.parametrize(
    "home",
    [
        "s3://evil/store",
        "http://127.0.0.1:1/store",
        "file:///x::s3://evil/store",
        "simplecache::http://127.0.0.1:1/store",
        "memory://store",
        "store",
        "/store",
        "file:///x/../store",
        "file:///x//store",
        "file:///x\0y",
        "file:///x\ny",
        "file://",
        "",
    ],
)
def test_summary_does_not_choose_which_server_is_asked(batch: Batch, tmp_path: Path, home: str):
    """A copy's summary may name a store in a folder of this machine; any other one is named by who runs the command."""
    folder = dn2.export(batch.report, batch.store, tmp_path / "report")
    tail = batch.report.uri.removeprefix(f"file://{batch.store}")
    changed(folder, uri=f"{home}{tail}")
    with pytest.raises(dn2.ConfigError, match=r"expected one in a folder of this machine; name the store with --store"):
        find_report(folder)
    assert find_report(folder, batch.store).store == f"file://{batch.store}"
