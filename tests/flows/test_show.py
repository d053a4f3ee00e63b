"""`dn2 show`: what it prints of every kind of store, and the same as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import dn2
from dn2.store.schemas import MANIFEST
from dn2.store.tables import writing
from dn2.upkeep.overview import Overview
from tests.conftest import Bricks
from tests.dn2.upkeep.full import Full
from tests.flows.checks import FAILED, WRONG_USE, check, files
from tests.flows.command import DN2, Run, environment, runner

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d"
SIZE = r"[\d,]+ files?, [\d.]+ (bytes|kB|MB)"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command line in this process, in an empty folder, without a Prefect server: a look needs none."""
    monkeypatch.chdir(tmp_path)
    return runner(capsys, monkeypatch)


@pytest.fixture
def full(tmp_path: Path) -> Full:
    return Full(str(tmp_path / "dn2-store"), tmp_path / "photos")


def parsed(text: str) -> Overview:
    return TypeAdapter(Overview).validate_json(text)


def test_everything_in_the_store_is_printed(run: Run, full: Full, tmp_path: Path):
    first, second, groups, cleaning = full.first, full.second, full.groups, full.cleaning
    done = run("show")
    assert (done.code, done.err) == (0, "")
    newest = {report.uri: report for report in full.reports}
    order = re.findall(r"(file://\S+/reports/parts/\w+)/report\.html", done.out)
    assert sorted(order) == sorted(newest)
    expected = [
        rf"store file://{tmp_path}/dn2-store \(times are UTC\)",
        "",
        "datasets",
        rf"  photos: 3 images in 1 manifest part, changed {TIME}",
        f"    {SIZE}",
        f"    file://{tmp_path}/photos",
        "",
        "embedders",
        rf"  synthetic-0123456789ab: 4 shards, {SIZE}",
        r"    used by bank lots \(1 version\), bank parts \(2 versions\)",
        "",
        "banks",
        f"  lots: bank of groups, 1 version; {SIZE}",
        rf"    \* {groups.version}  {TIME}  \(current\)",
        "        12 groups, 48 images in all, 48 units, synthetic, l2",
        "        k = 2, pooling mean, threshold by size",
        "    batches: the last 1",
        rf"      {TIME}  [\d.]+% of 12 groups anomalous, drift not known, file:///lots",
        f"  parts: bank of images, 2 versions; {SIZE}",
        rf"    \* {second.version}  {TIME}, after {first.version}  \(current\)",
        f"        {second.rows} images, synthetic, l2, k = 2, threshold {second.threshold:.4g}",
        f"        cleaned: {second.dropped} images dropped",
        f"      {first.version}  {TIME}",
        f"        30 images, synthetic, l2, k = 2, threshold {first.threshold:.4g}",
        "    batches: the last 2",
        *([rf"      {TIME}  [\d.]+% of 20 images anomalous, drift \w+, file:///n\d"] * 2),
        "",
        "reports",
        "  of bank lots: 1 report",
        f"    {SIZE}; scores 0 files, 0 bytes",
        f"    {TIME}  {full.odd.anomalous} of 12 groups anomalous, version {groups.version}",
        "      of file:///lots",
        f"      {full.odd.html}",
        "  of bank parts: 2 reports",
        f"    {SIZE}; scores {SIZE}",
        *(
            line
            for report in (newest[uri] for uri in order)
            for line in (
                f"    {TIME}  {report.anomalous} of 20 images anomalous, version {report.version}",
                f"      of {report.source}",
                f"      {report.html}",
            )
        ),
        "",
        f"cleanings: 1; {SIZE}",
        rf"  {TIME}  {cleaning.dropped} of 30 images dropped \(auto\)",
        "    of file:///n0",
        f"    {cleaning.html}",
        "",
        f"total: {SIZE}",
    ]
    lines = done.out.splitlines()
    assert len(lines) == len(expected), done.out
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)
        assert len(line) <= 80 or "file://" in line, line


def test_doubts_about_a_bank_are_printed_below_its_version(run: Run, own_bricks: Bricks):
    (doubt,) = own_bricks.bank.doubts
    lines = run("show", "--store", own_bricks.store).out.splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith("        32 calibration images"))
    assert " ".join(line.strip() for line in lines[first : first + 2]) == f"{doubt.message} [rate-not-kept]"
    assert max(map(len, lines[first : first + 2])) <= 80


def test_json_is_one_object_in_ascii_and_equals_the_records(run: Run, full: Full):
    done = run("show", "--json")
    assert (done.code, done.err, done.out.isascii()) == (0, "", True)
    found = dn2.show(full.store)
    assert parsed(done.out) == found
    content = json.loads(done.out)
    assert list(content) == [
        *("store", "datasets", "banks", "reports", "cleanings"),
        *("embedders", "size", "stale", "stale_error"),
    ]
    sizes = [path.stat().st_size for path in Path(full.store.uri.removeprefix("file://")).rglob("*") if path.is_file()]
    assert content["size"] == {"files": len(sizes), "bytes": sum(sizes)}
    assert content["stale"]["kinds"] == []
    assert content["banks"][1]["current"] == full.second.version
    assert content["banks"][1]["versions"][0]["made"]["threshold"] == full.second.threshold
    assert content["reports"][1]["count"] == 2


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["text", "json"])
def test_number_of_reports_shown_is_an_option(run: Run, full: Full, how: list[str]):
    done = run("show", "--newest", "1", *how)
    assert done.code == 0
    assert len(set(re.findall(r"/reports/parts/\w+", done.out))) == 1
    assert ("of bank parts: 2 reports, the newest 1\n" in done.out) == (not how)
    assert "/reports/parts/" not in run("show", "--newest", "0", *how).out
    check(run("show", "--newest", "-1", *how), WRONG_USE, "newest: got -1, expected 0 or more reports to show")


def test_a_look_changes_nothing_and_asks_no_server(run: Run, full: Full, tmp_path: Path):
    before = files(tmp_path)
    assert run("show").out == run("show").out != ""
    assert files(tmp_path) == before


def test_piped_output_is_the_same_and_a_look_needs_neither_torch_nor_prefect(run: Run, full: Full, tmp_path: Path):
    here = run("show").out
    piped = subprocess.run(
        [sys.executable, "-X", "importtime", DN2, "show"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(COLUMNS="40"),
        check=True,
    )
    assert piped.stdout == here
    loaded = {line.rpartition("|")[2].strip() for line in piped.stderr.splitlines()}
    assert "dn2.upkeep.overview" in loaded
    assert {"torch", "openvino", "prefect", "sklearn", "PIL", "matplotlib"} & loaded == set()


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("place", ["missing", "empty"])
def test_store_that_is_not_there_is_wrong_use(run: Run, tmp_path: Path, place: str, how: list[str]):
    (tmp_path / "empty").mkdir()
    message = rf"store file://.*/{place}: got nothing that dn2 has made, expected .*; check --store, or begin with dn2"
    check(run("show", "--store", place, *how), WRONG_USE, message)
    check(run("show", "--store", "nope://x", *how), WRONG_USE, "Protocol not known: nope")
    check(run("show", "--store", "", *how), WRONG_USE, "got an empty path or URL")


def test_damaged_file_fails_after_all_the_rest_is_printed(run: Run, full: Full, tmp_path: Path):
    whole = run("show").out
    path = tmp_path / "dn2-store" / "banks" / "parts" / "versions" / f"{full.first.version}.json"
    path.write_bytes(b"{")
    done = run("show")
    assert done.code == FAILED
    assert re.fullmatch(
        rf"error: store file://\S+: 1 entry could not be read, the first: file://{path}: got a damaged file[^\n]*\n",
        done.err,
    )
    assert f"        error: file://{path}: got a damaged file, expected JSON" in done.out
    before, after = (
        Counter(re.sub(SIZE, "SIZE", re.sub(TIME, "TIME", text)).splitlines()) for text in (whole, done.out)
    )
    used_by = "    used by bank lots (1 version), bank parts"
    assert before - after == Counter(
        [f"        30 images, synthetic, l2, k = 2, threshold {full.first.threshold:.4g}", f"{used_by} (2 versions)"]
    )
    told = {line for line in after - before if "error:" not in line}
    assert told == {f"{used_by} (1 version)", "unused files: not known while something cannot be read"}
    assert sum((after - before).values()) == 3
    as_json = run("show", "--json")
    assert (as_json.code, as_json.err) == (FAILED, done.err)
    assert parsed(as_json.out) == dn2.show(full.store)


def test_hostile_names_cannot_move_the_cursor_or_colour_a_line(run: Run, full: Full, tmp_path: Path):
    source = "file:///[bold]x[/bold]\n\x1b[31mred\u202e\x07"
    with writing(full.store, "manifests/bad/000001-0000000000000000.parquet", MANIFEST, {"source": source}):
        pass
    (tmp_path / "dn2-store" / "banks" / "a\n\x1b[2Jb").mkdir()
    done = run("show")
    assert done.code == FAILED
    assert "    file:///[bold]x[/bold]\\n\\x1b[31mred\\u202e\\x07\n" in done.out
    assert "  a\\n\\x1b[2Jb: bank, no version is finished; 0 files, 0 bytes\n" in done.out
    assert re.search(r"[^\n -~]", done.out) is None
    assert re.search(r"[^\n -~]", done.err) is None
    as_json = run("show", "--json")
    assert parsed(as_json.out).datasets[0].source == source
    assert as_json.out.isascii()


@pytest.mark.s3
def test_store_in_a_bucket_is_shown(run: Run, s3_bucket: str, tmp_path: Path):
    url = f"{s3_bucket}/{uuid.uuid4().hex}"
    full = Full(url, tmp_path / "photos")
    done = run("show", "--store", url)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"store {url} (times are UTC)\n")
    assert re.search(rf"\* {full.second.version}  {TIME}, after {full.first.version}  \(current\)\n", done.out)
    assert all(report.html in done.out for report in full.reports)
    check(run("show", "--store", f"{url}/nothing"), WRONG_USE, f"store {url}/nothing: got nothing that dn2 has made")
