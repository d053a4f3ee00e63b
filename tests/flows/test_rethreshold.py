"""A finished report decided anew: the flow, the command, and what both leave alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import dn2
from dn2.records import Report
from flows.nightly import nightly_score
from flows.parameters import NightlyParameters, RethresholdParameters, ScoreParameters
from flows.scoring import rethreshold, score
from tests.conftest import Bricks
from tests.flows.checks import FAILED, WRONG_USE, check, files
from tests.flows.command import Run
from tests.flows.told import artifacts, events, run_id, task_runs, write_sources

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def own_bricks(own_embedded_bricks: Bricks) -> Bricks:
    """What is decided anew was embedded before."""
    return own_embedded_bricks


def scored(bricks: Bricks, **more: Any) -> Report:
    values = {"source": str(bricks.batch), "store": str(bricks.store), "bank": "bricks", **more}
    return score(ScoreParameters.model_validate(values))


def again(report: str, **values: Any) -> Report:
    return rethreshold(RethresholdParameters.model_validate({"report": report, **values}))


def content(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(str(folder).removeprefix("file://")).iterdir()}


def test_flow_gives_the_report_that_the_score_flow_gives(own_bricks: Bricks, tmp_path: Path):
    """The same record and the same folder; an image's scores are made once."""
    first = scored(own_bricks)
    report = again(first.uri, threshold={"budget": 20}, false_discovery_rate=0.25)
    settings = {"threshold": {"budget": 20}, "false_discovery_rate": 0.25}
    other, tried = task_runs(
        score,
        ScoreParameters.model_validate(
            {"source": str(own_bricks.batch), "store": str(own_bricks.store), "bank": "bricks", "score": settings}
        ),
    )
    assert other.result() == report
    assert {"score", "report"}.isdisjoint(tried)
    assert (report.anomalous, report.rule) == (20, "at most 20 images of this batch")
    assert len([*own_bricks.store.glob("scores/bricks/*/*")]) == 1


def test_score_flow_with_another_threshold_searches_nothing(own_bricks: Bricks):
    first = scored(own_bricks)
    for path in own_bricks.store.glob("banks/bricks/segments/*.npy"):
        path.unlink()
    second = scored(own_bricks, score={"threshold": {"quantile": 0.5}})
    assert (second.scored, second.uri != first.uri) == (160, True)
    assert second.anomalous > first.anomalous


def test_what_is_not_given_stays_and_an_empty_threshold_is_the_banks_own(own_bricks: Bricks):
    settings = {"threshold": {"budget": 20}, "false_discovery_rate": 0.25, "report_images": 2}
    first = scored(own_bricks, score=settings)

    kept = again(first.uri, false_discovery_rate=0.5)
    assert (kept.anomalous, kept.false_discovery_rate, len(kept.worst)) == (20, 0.5, 2)
    own = again(first.uri, threshold={})
    assert (own.threshold, own.false_discovery_rate, len(own.worst)) == (own_bricks.bank.threshold, 0.25, 2)
    assert again(first.uri) == first


def test_run_shows_the_report_and_tells_nobody_of_a_batch(own_bricks: Bricks):
    first = scored(own_bricks)
    told = len(events("dn2.batch.scored", first.source))
    state, tried = task_runs(rethreshold, RethresholdParameters(report=first.uri, threshold={"budget": 20}))
    assert tried == Counter({"open-report": 1, "report": 1})
    shown = artifacts(run_id(state))
    assert {"dn2-report-bricks", "dn2-worst-bricks"} <= set(shown)
    assert str(shown["dn2-report-bricks"].description).startswith("**20 of 160** images are anomalous")
    assert len(events("dn2.batch.scored", first.source)) == told


def test_nightly_run_takes_the_rule_from_the_sources_file(own_bricks: Bricks, tmp_path: Path):
    sources = write_sources(
        tmp_path / "sources.yaml",
        store="store",
        nightly=[{"source": str(own_bricks.batch), "bank": "bricks"}],
        score={"threshold": {"budget": 20}, "false_discovery_rate": 0.3},
    )
    (outcome,) = nightly_score(NightlyParameters(sources=sources))
    assert (outcome.report.anomalous, outcome.report.false_discovery_rate) == (20, 0.3)


def command(run: Run, bricks: Bricks, *options: str) -> None:
    done = run("score", bricks.batch, "--store", bricks.store, "--bank", "bricks", *options)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--far", "0.1"], "a false-alarm rate of 10%"),
        (["--quantile", "0.5"], "the quantile 0.5 of the calibration scores"),
        (["--threshold", "99.5"], "a fixed number, 99.5"),
        (["--budget", "7"], "at most 7 images of this batch"),
    ],
)
def test_command_replaces_the_exported_folder_with_what_score_would_have_written(
    run: Run, own_bricks: Bricks, tmp_path: Path, options: list[str], rule: str
):
    command(run, own_bricks, "--out", "report")
    done = run("rethreshold", "report", *options, "--fdr", "0.2")
    assert (done.code, done.out.splitlines()[2]) == (0, f"report: {tmp_path / 'report' / 'report.html'}")
    assert re.fullmatch(
        rf"threshold: {rule}; \d+ images are selected at a false-discovery rate of 20%", done.out.splitlines()[1]
    )
    command(run, own_bricks, "--out", "other", *options, "--fdr", "0.2")
    assert content("report") == content("other")


def test_command_takes_the_report_in_the_store_or_the_page_and_prints_where_the_new_one_is(
    run: Run, own_bricks: Bricks, tmp_path: Path
):
    command(run, own_bricks, "--out", "report")
    (inside,) = own_bricks.store.glob("reports/bricks/*")
    before = content(inside)
    done = run("rethreshold", inside, "--budget", "5")
    place = re.search(r"^report: file://(\S+)/report\.html$", done.out, re.MULTILINE)
    assert (done.code, place is not None) == (0, True)
    assert json.loads(content(place[1])["summary.json"])["anomalous"] == 5
    assert content(inside) == before
    assert run("rethreshold", f"file://{inside}", "--budget", "6", "--out", "six").code == 0
    assert json.loads(content("six")["summary.json"])["anomalous"] == 6
    assert run("rethreshold", "report/report.html", "--budget", "7").code == 0
    assert json.loads(content("report")["summary.json"])["anomalous"] == 7


def test_command_without_options_goes_back_to_the_banks_own_threshold(run: Run, own_bricks: Bricks, tmp_path: Path):
    command(run, own_bricks, "--out", "report")
    first = content("report")
    assert run("rethreshold", "report", "--budget", "5").code == 0
    assert run("rethreshold", "report", "--fdr", "0.3").out.startswith("5 of 160 images")
    assert run("rethreshold", "report", "--fdr", "0.1").code == 0
    assert run("rethreshold", "report").code == 0
    assert content("report") == first


def test_warning_tells_how_many_calibration_scores_would_do(run: Run, own_bricks: Bricks):
    command(run, own_bricks, "--out", "report")
    done = run("rethreshold", "report", "--budget", "5", "--fdr", "0.02")
    assert (done.code, done.out.count("; 0 images are selected")) == (0, 1)
    assert done.err.startswith("warning: drift: the normal has moved (")  # four of five images of the batch are odd
    assert done.err.endswith(
        "\nwarning: 32 calibration scores are too few to select any image at a false-discovery rate of 2%: 49 would do "
        "if all 160 images scored above them, 7999 if one did [none-selected]\n"
    )


def test_store_that_has_moved_is_named_by_an_option(run: Run, own_bricks: Bricks, tmp_path: Path):
    command(run, own_bricks, "--out", "report")
    own_bricks.store.rename(tmp_path / "moved")
    done = run("rethreshold", "report", "--budget", "5")
    check(done, WRONG_USE, r"its store file://.*/store is not there; if it has moved, name it \(--store\)")
    assert run("rethreshold", "report", "--budget", "5", "--store", "moved").code == 0
    assert run("rethreshold", "report", "--budget", "6").code == 0
    assert not own_bricks.store.exists()


def test_nonsense_is_refused_in_one_line(run: Run, own_bricks: Bricks, tmp_path: Path):
    command(run, own_bricks, "--out", "report")
    (tmp_path / "empty").mkdir()
    before = files(tmp_path)
    for place in ("nowhere", "empty", own_bricks.batch / "good-01.png"):
        check(run("rethreshold", place), WRONG_USE, "got no summary.json there, expected a finished report: its folder")
    check(run("rethreshold", ""), WRONG_USE, "got an empty path or URL")
    check(run("rethreshold", "nope://x/reports"), WRONG_USE, "Protocol not known: nope")
    check(run("rethreshold", "report", "--out", own_bricks.store / "x"), WRONG_USE, "which lies in the store")
    check(run("rethreshold", "report", "--store", "nowhere"), WRONG_USE, "its store file://.*/nowhere is not there")
    assert files(tmp_path) == before
    summary = tmp_path / "report" / "summary.json"
    document = json.loads(summary.read_bytes())
    del document["scores"]
    summary.write_text(json.dumps(document))
    check(run("rethreshold", "report"), WRONG_USE, "made by dn2 [^ ]+, which kept no scores; score the batch again")
    summary.write_text("half a summ")
    check(run("rethreshold", summary), FAILED, "got a damaged file, expected JSON")


def test_bank_version_that_was_deleted_is_named(run: Run, own_bricks: Bricks):
    command(run, own_bricks, "--out", "report")
    (own_bricks.store / "banks" / "bricks" / "versions" / f"{own_bricks.bank.version}.json").unlink()
    done = run("rethreshold", "report", "--budget", "5")
    check(done, WRONG_USE, f"bank 'bricks' version {own_bricks.bank.version} is no longer in store .*; score the batch")
    assert dn2.Store.open(own_bricks.store).names("reports/bricks") != []


def test_every_field_is_described_where_a_form_reads_it():
    schema = RethresholdParameters.model_json_schema()
    for part in (schema, schema["$defs"]["ThresholdConfig"]):
        assert (part["additionalProperties"], bool(part["description"])) == (False, True)
        assert all(len(field["description"]) > 10 for field in part["properties"].values())
