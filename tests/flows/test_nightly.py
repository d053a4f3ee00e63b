"""Nights on a real server: what is new is scored once, what fails is named, what died is found again."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dn2
from dn2.neighbors.bank import Search
from dn2.records import BankVersion
from flows.facts import NightError, Outcome
from flows.nightly import nightly_score
from flows.parameters import NightlyParameters
from tests.conftest import Bricks
from tests.flows.checks import files
from tests.flows.meanwhile import Meanwhile, die
from tests.flows.nights import Nights
from tests.flows.told import artifacts, events, rows, run_id

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def nights(own_bricks: Bricks, tmp_path: Path) -> Nights:
    return Nights(own_bricks, tmp_path)


def night(sources: str, *, rescore: bool = False) -> tuple[Outcome, ...]:
    """Score a night; return what became of each source."""
    return nightly_score(NightlyParameters(sources=sources, rescore=rescore))


def table(report: dn2.Report | None) -> pa.Table:
    assert report is not None
    return pa.concat_tables(map(pq.read_table, sorted(Path(report.uri.removeprefix("file://")).glob("part-*.parquet"))))


def names(report: dn2.Report | None) -> list[str]:
    """Return the names of the images in a report."""
    return sorted(Path(uri).stem for uri in table(report)["uri"].to_pylist())


def marks(store: Path) -> Iterable[Path]:
    return store.glob("watermarks/*/*/*.json")


def test_first_night_scores_all_the_second_nothing_the_third_what_came_and_what_changed(nights: Nights):
    source = nights.put("line", "good-01", "material-00", "hole-03", "broken-text")
    sources = nights.write("line")
    first = night(sources)
    assert [(one.source, one.bank, one.error) for one in first] == [(source, "bricks", None)]
    assert names(first[0].report) == ["broken-text", "good-01", "hole-03", "material-00"]

    before = files(nights.bricks.store)
    assert night(sources) == (Outcome(source, "bricks"),)
    assert files(nights.bricks.store) == before

    nights.put("line", "scratch-02")
    shutil.copy(nights.bricks.batch / "pasted-05.png", nights.folder / "line" / "good-01.png")
    third = night(sources)
    assert names(third[0].report) == ["good-01", "scratch-02"]
    assert table(third[0].report)["is_anomaly"].to_pylist() == [True, True]
    assert night(sources) == (Outcome(source, "bricks"),)

    told = events("dn2.batch.scored", source)
    assert [event["payload"]["report"] for event in told] == [one[0].report.uri for one in (first, third)]
    payload = told[0]["payload"]
    counts = {name: payload[name] for name in ("images", "scored", "anomalous", "rejected")}
    assert counts == {"images": 4, "scored": 3, "anomalous": 2, "rejected": 1}
    assert (payload["anomalous_rate"], payload["rejected_rate"]) == (0.666667, 0.25)
    assert (payload["bank"], payload["bank_version"]) == ("bricks", nights.bricks.bank.version)
    assert (payload["threshold"], payload["report_url"]) == (nights.bricks.bank.threshold, None)
    assert payload["warnings"] == list(first[0].report.warnings) != []
    assert payload["doubts"] == [doubt.code for doubt in first[0].report.doubts] == ["rate-not-kept"]


def test_vanished_image_makes_no_report_and_is_not_looked_at_again(nights: Nights):
    source = nights.put("line", "good-01", "good-03")
    sources = nights.write("line")
    night(sources)
    (nights.folder / "line" / "good-03.png").unlink()
    before = len([*marks(nights.bricks.store)])
    (outcome,) = night(sources)
    assert outcome == Outcome(source, "bricks", vanished=1)
    assert outcome.in_words() == "nothing new; 1 images vanished"
    assert len([*marks(nights.bricks.store)]) == before + 1
    kept = files(nights.bricks.store)
    assert night(sources) == (Outcome(source, "bricks"),)
    assert files(nights.bricks.store) == kept
    nights.put("line", "good-03")
    assert names(night(sources)[0].report) == ["good-03"]


def test_images_that_were_listed_by_hand_between_two_nights_are_scored_as_they_are_now(nights: Nights):
    """Three manifest parts, one report: an image that changed is in it once, one that went is not."""
    sources = nights.write("line")
    nights.put("line", "good-01")
    night(sources)
    nights.put("line", "good-03", "good-05")
    dn2.ingest(nights.folder / "line", nights.bricks.store)
    shutil.copy(nights.bricks.batch / "material-01.png", nights.folder / "line" / "good-03.png")
    dn2.ingest(nights.folder / "line", nights.bricks.store)
    (nights.folder / "line" / "good-05.png").unlink()
    report = night(sources)[0].report
    assert names(report) == ["good-03"]
    assert table(report)["is_anomaly"].to_pylist() == [True]


def test_failing_sources_are_named_and_do_not_stop_the_others(nights: Nights, monkeypatch: pytest.MonkeyPatch):
    """A missing and an empty source, an unknown bank, and one that fails as nobody expects."""
    nights.train("torn", k=3)
    whole = Search.of

    def torn(record: BankVersion) -> Search:
        return whole(record) if record.name != "torn" else list(record.k)  # type: ignore[call-overload]

    monkeypatch.setattr(Search, "of", torn)
    nights.put("first", "good-01")
    nights.put("empty")
    nights.put("last", "material-00")
    sources = nights.write(
        "first",
        "missing",
        "empty",
        {"source": "first", "bank": "nobodys"},
        {"source": "first", "bank": "torn"},
        "last",
    )
    state = nightly_score(NightlyParameters(sources=sources), return_state=True)
    assert state.is_failed()
    with pytest.raises(NightError) as failed:
        state.result()
    outcomes = failed.value.outcomes
    assert [names(one.report) if one.report else None for one in outcomes] == [
        ["good-01"],
        None,
        None,
        None,
        None,
        ["material-00"],
    ]
    reasons = [
        "nothing is there: expected a folder or prefix with images",
        "got no image (0 other files)",
        "bank 'nobodys': not in store",
        "unexpected TypeError: 'int' object is not iterable",
    ]
    for outcome, reason in zip(outcomes[1:5], reasons, strict=True):
        assert reason in str(outcome.error)
    message = str(failed.value)
    assert message.startswith("4 of 6 sources failed, the others are scored: ")
    for outcome in outcomes[1:5]:
        assert f"{outcome.source} (bank {outcome.bank}): {outcome.error}" in message
    assert message in str(state.message)

    shown = artifacts(run_id(state))["dn2-night"]
    assert shown.description == "6 sources, 4 failed"
    lines = rows(shown)
    assert [line["bank"] for line in lines] == ["bricks", "bricks", "nobodys", "torn", "bricks", "bricks"]
    assert [line["outcome"] for line in lines] == [*["failed"] * 4, "scored", "scored"]
    assert [bool(line["why"]) for line in lines] == [*[True] * 4, False, False]
    assert [line["images"] for line in lines] == ["", "", "", "", "1", "1"]
    assert [line["anomalous"] for line in lines] == ["", "", "", "", "0 (0.0%)", "1 (100.0%)"]

    before = files(nights.bricks.store)
    with pytest.raises(NightError):
        night(sources)
    assert files(nights.bricks.store) == before


def test_new_version_of_a_bank_scores_old_images_only_if_asked_to(nights: Nights):
    nights.put("line", "good-01", "material-00")
    sources = nights.write("line")
    first = night(sources)[0].report
    nights.train("bricks", k=4)
    before = files(nights.bricks.store)
    assert [one.report for one in night(sources)] == [None]
    assert files(nights.bricks.store) == before
    again = night(sources, rescore=True)[0].report
    assert names(again) == names(first)
    assert again is not None
    assert again.version == dn2.open_bank(nights.bricks.store, "bricks").version != nights.bricks.bank.version
    before = files(nights.bricks.store)
    assert [one.report for one in night(sources, rescore=True)] == [None]
    assert files(nights.bricks.store) == before


def test_one_source_is_scored_against_each_of_its_banks(nights: Nights):
    nights.train("other", k=5)
    nights.put("line", "good-01")
    sources = nights.write("line", {"source": "line", "bank": "other"})
    assert [one.report.bank for one in night(sources) if one.report] == ["bricks", "other"]
    assert [one.report for one in night(sources)] == [None, None]


def test_run_that_died_before_it_marked_finds_the_same_report_and_tells_it_once(nights: Nights):
    """The report is finished and told; the mark is what is missing."""
    source = nights.put("line", "good-01", "hole-03")
    sources = nights.write("line")
    with Meanwhile("noting", die), pytest.raises(KeyboardInterrupt):
        night(sources)
    left = files(nights.bricks.store)
    (told,) = events("dn2.batch.scored", source)
    (outcome,) = night(sources)
    assert names(outcome.report) == ["good-01", "hole-03"]
    assert outcome.report.uri == told["payload"]["report"]
    after = files(nights.bricks.store)
    assert [name.partition("/")[0] for name in after if name not in left] == ["watermarks"]
    assert {name: time for name, time in after.items() if name in left} == left
    assert len(events("dn2.batch.scored", source)) == 1
    assert [one.report for one in night(sources)] == [None]


@pytest.mark.parametrize(("rate", "told"), [(0.49, True), (0.5, False)])
def test_batch_is_told_to_be_anomalous_only_above_the_rate(nights: Nights, rate: float, told: bool):
    """One of two images is anomalous."""
    source = nights.put("line", "good-01", "material-00")
    tell = {"alert_rate": rate, "report_base_url": "http://host/"}
    state = nightly_score(NightlyParameters(sources=nights.write("line", tell=tell)), return_state=True)
    report = state.result()[0].report
    assert report.anomalous_rate == 0.5
    anomalous = events("dn2.batch.anomalous", source)
    assert [event["payload"]["report"] for event in anomalous] == [report.uri] * told
    scored = events("dn2.batch.scored", source)
    assert [event["payload"] for event in scored[:told]] == [event["payload"] for event in anomalous]
    payload = scored[0]["payload"]
    assert [payload[name] for name in ("selected", "threshold", "rule", "false_discovery_rate")] == [
        report.selected,
        report.threshold,
        "the bank's own, for a false-alarm rate of 1%",
        0.1,
    ]
    resource = scored[0]["resource"]
    assert resource["prefect.resource.id"] == f"dn2.report.bricks.{report.uri.rpartition('/')[2]}"
    assert resource["dn2.bank"] == "bricks"
    address = f"http://host/reports/bricks/{report.uri.rpartition('/')[2]}/report.html"
    assert scored[0]["payload"]["report_url"] == address
    (related,) = [one for one in scored[0]["related"] if one["prefect.resource.role"] == "flow-run"]
    assert related["prefect.resource.id"] == f"prefect.flow-run.{run_id(state)}"


def test_batch_without_an_anomaly_is_never_told_to_be_anomalous(nights: Nights):
    source = nights.put("line", "good-01")
    assert night(nights.write("line"))[0].report.anomalous == 0
    assert len(events("dn2.batch.scored", source)) == 1
    assert events("dn2.batch.anomalous", source) == []
