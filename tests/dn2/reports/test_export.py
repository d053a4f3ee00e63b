from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dn2
from dn2.reports.export import check_target
from tests.conftest import Bricks
from tests.dn2.reports.batches import Batch, scored

KILLED_HALF_WAY = """
import os, signal, sys
import dn2
from dn2.reports.report import finished

store, folder, target = dn2.Store.open(sys.argv[1]), sys.argv[2], sys.argv[3]
store.download, copied = (lambda name, to: copied(name, to) or os.kill(os.getpid(), signal.SIGKILL)), store.download
dn2.export(finished(store, folder), store, target)
"""


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def report_of(batch: Batch) -> dict[str, bytes]:
    """What is exported of a report: all but the picture for Prefect's pages."""
    files = content(batch.folder)
    del files["histogram.png"]
    return files


def test_exported_folder_holds_the_report_and_nothing_else(batch: Batch, tmp_path: Path):
    assert dn2.export(batch.report, batch.store, tmp_path / "new" / "report") == tmp_path / "new" / "report"
    assert content(tmp_path / "new" / "report") == report_of(batch)
    assert sorted(report_of(batch)) == ["part-00000.parquet", "report.html", "summary.json"]
    assert [*(tmp_path / "new").iterdir()] == [tmp_path / "new" / "report"]


def test_second_export_gives_the_same_folder(batch: Batch, tmp_path: Path):
    for _ in range(2):
        dn2.export(batch.report, batch.store, tmp_path / "new" / "report")
    assert content(tmp_path / "new" / "report") == report_of(batch)
    assert [*(tmp_path / "new").iterdir()] == [tmp_path / "new" / "report"]


def test_older_report_is_replaced(batch: Batch, own_bricks: Bricks, tmp_path: Path):
    other = scored(own_bricks.normal, own_bricks)
    dn2.export(other.report, other.store, tmp_path / "new" / "report")
    dn2.export(batch.report, batch.store, tmp_path / "new" / "report")
    assert content(tmp_path / "new" / "report") == report_of(batch)
    assert [*(tmp_path / "new").iterdir()] == [tmp_path / "new" / "report"]


def test_export_that_is_killed_half_way_leaves_the_older_report(batch: Batch, own_bricks: Bricks, tmp_path: Path):
    """SIGKILL after the first file; the next export goes through."""
    other = scored(own_bricks.normal, own_bricks)
    target = tmp_path / "new" / "report"
    dn2.export(other.report, other.store, target)
    folder = batch.report.uri.removeprefix(f"file://{batch.store}/")
    command = [sys.executable, "-c", KILLED_HALF_WAY, str(batch.store), folder, str(target)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert content(target) == report_of(other)
    dn2.export(batch.report, batch.store, target)
    assert content(target) == report_of(batch)


def test_failed_export_leaves_the_older_report_and_no_rest(batch: Batch, own_bricks: Bricks, tmp_path: Path):
    other = scored(own_bricks.normal, own_bricks)
    dn2.export(other.report, other.store, tmp_path / "new" / "report")
    (batch.folder / "report.html").rename(tmp_path / "moved")
    (batch.folder / "report.html").symlink_to(tmp_path / "nowhere")
    with pytest.raises(dn2.NotFoundError, match=r"no file 'reports/.*/report\.html'"):
        dn2.export(batch.report, batch.store, tmp_path / "new" / "report")
    assert content(tmp_path / "new" / "report") == report_of(other)
    assert [*(tmp_path / "new").iterdir()] == [tmp_path / "new" / "report"]


def test_empty_folder_may_be_used_and_stays_a_folder(batch: Batch, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    dn2.export(batch.report, batch.store, tmp_path / "empty")
    assert content(tmp_path / "empty") == report_of(batch)


@pytest.mark.parametrize("extra", ["notes.txt", ".git", "part-00001.parquet"])
def test_folder_that_holds_more_than_a_report_is_refused(batch: Batch, tmp_path: Path, extra: str):
    dn2.export(batch.report, batch.store, tmp_path / "report")
    (tmp_path / "report" / extra).write_text("precious")
    with pytest.raises(dn2.ConfigError, match="holds other files, expected a new or empty folder, or a report"):
        dn2.export(batch.report, batch.store, tmp_path / "report")
    assert (tmp_path / "report" / extra).read_text() == "precious"


@pytest.mark.parametrize("summary", ["", "[]", "{}", '{"schema": "other", "parts": []}', '{"parts": 1}', "null"])
def test_folder_with_another_summary_is_refused(tmp_path: Path, summary: str):
    (tmp_path / "summary.json").write_text(summary)
    with pytest.raises(dn2.ConfigError, match="holds other files"):
        check_target(tmp_path, "dn2-store")


def test_link_to_a_folder_stays_a_link(batch: Batch, tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    dn2.export(batch.report, batch.store, tmp_path / "link")
    assert (tmp_path / "link").readlink() == tmp_path / "real"
    assert {path.name for path in tmp_path.iterdir()} == {"store", "real", "link"}
    assert content(tmp_path / "real") == report_of(batch)


def test_target_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert check_target("report", "dn2-store") == tmp_path / "report"
    assert check_target("~/report", "dn2-store") == tmp_path / "home" / "report"
    assert check_target(f"file://{tmp_path}/report", "dn2-store") == tmp_path / "report"


def test_url_is_no_target():
    with pytest.raises(dn2.ConfigError, match="got s3://bucket/x, expected a local folder; in the store the report is"):
        check_target("s3://bucket/x", "dn2-store")


def test_folder_that_cannot_be_made_is_told_without_our_temporary_names(batch: Batch, tmp_path: Path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(dn2.StoreError, match=r"^out: cannot write .*/file/report: Not a directory; choose another"):
        dn2.export(batch.report, batch.store, tmp_path / "file" / "report")


def test_folder_in_the_store_is_no_target(batch: Batch):
    with pytest.raises(dn2.ConfigError, match=r"which lies in the store .*, expected a folder outside of it"):
        dn2.export(batch.report, batch.store, batch.folder.parent / "another")


def test_report_replaces_another_with_its_permissions_and_its_folder_may_not_be_stood_in(
    batch: Batch, own_bricks: Bricks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = scored(own_bricks.normal, own_bricks)
    target = dn2.export(other.report, other.store, tmp_path / "new" / "report")
    target.chmod(0o700)
    dn2.export(batch.report, batch.store, target)
    assert target.stat().st_mode & 0o777 == 0o700
    assert content(target) == report_of(batch)
    assert [*target.parent.iterdir()] == [target]
    monkeypatch.chdir(target)
    with pytest.raises(dn2.ConfigError, match="a report in which this command runs: run it in another folder"):
        dn2.export(other.report, other.store, ".")


def test_empty_folder_in_which_the_command_runs_gets_the_files(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    dn2.export(batch.report, batch.store, ".")
    assert {path.name for path in Path().iterdir()} == set(report_of(batch))


def test_part_that_is_missing_fails_the_export(batch: Batch, tmp_path: Path):
    (batch.folder / "part-00000.parquet").unlink()
    with pytest.raises(dn2.NotFoundError, match=r"no file 'reports/.*/part-00000.parquet'"):
        dn2.export(batch.report, batch.store, tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    "name", ["{outside}", "../../precious.txt", "..", "", "a/b", "a\\b", "x\0y", "x\ny", "notes.txt", 3]
)
def test_forged_names_of_parts_overwrite_nothing(batch: Batch, tmp_path: Path, name: object):
    """An absolute path, or one that leads out of the folder, would be written to: whatever lies there is lost."""
    outside = tmp_path / "precious.txt"
    outside.write_text("precious")
    name = str(outside) if name == "{outside}" else name
    summary = json.loads((batch.folder / "summary.json").read_bytes())
    (batch.folder / "summary.json").write_text(json.dumps({**summary, "parts": [*summary["parts"], name]}))
    with pytest.raises(dn2.SchemaError, match=r"summary.json: .*got .*"):
        dn2.export(batch.report, batch.store, tmp_path / "out" / "report")
    assert outside.read_text() == "precious"
    assert not [*(tmp_path / "out").glob("*")]


@pytest.mark.parametrize("name", ["notes.txt", ".git", "part-1.parquet", "part-00000.parquet\n"])
def test_folder_whose_forged_summary_counts_a_foreign_file_among_its_parts_is_refused(
    batch: Batch, tmp_path: Path, name: str
):
    folder = dn2.export(batch.report, batch.store, tmp_path / "report")
    dn2.export(batch.report, batch.store, folder)
    (folder / name).write_text("precious")
    summary = json.loads((folder / "summary.json").read_bytes())
    (folder / "summary.json").write_text(json.dumps({**summary, "parts": [*summary["parts"], name]}))
    with pytest.raises(dn2.ConfigError, match="holds other files, expected a new or empty folder, or a report"):
        dn2.export(batch.report, batch.store, folder)
    assert (folder / name).read_text() == "precious"
