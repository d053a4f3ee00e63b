"""What the pages of flow runs show: at least one artifact each, and a report with its picture and its links."""

from __future__ import annotations

import base64
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from prefect import flow
from prefect.client.schemas.objects import Artifact
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

import dn2
from dn2.records import Dataset, Drop, Look
from flows.artifacts import display_dataset, display_looks
from flows.banks import train
from flows.drops import watch_drops
from flows.images import embed, ingest
from flows.nightly import nightly_score, score_drop
from flows.parameters import (
    DropParameters,
    EmbedParameters,
    IngestParameters,
    NightlyParameters,
    ScoreParameters,
    TrainParameters,
    WatchParameters,
)
from flows.scoring import score
from tests.conftest import Bricks
from tests.flows.told import artifacts, rows, run_id, write_sources

pytestmark = pytest.mark.usefixtures("prefect_server")
MARKDOWN = MarkdownIt("commonmark").enable("table")
BASE = "http://reports.example:8080/dn2"


@pytest.fixture
def batch(bricks: Bricks, tmp_path: Path) -> Path:
    """Three images, one of them anomalous, one unreadable, in a folder with a bad name, with a drop below it."""
    folder = tmp_path / "a|b <i>c"
    (folder / "drop").mkdir(parents=True)
    shutil.copy(bricks.batch / "good-01.png", folder / "good_|_1.png")
    shutil.copy(bricks.batch / "material-00.png", folder / "drop")
    shutil.copy(bricks.batch / "broken-text.png", folder)
    return folder


def lines(artifact: Artifact) -> dict[str, str]:
    """Return the first table in a Markdown artifact: what its second column shows, by its first one."""
    assert artifact.type == "markdown"
    tokens = MARKDOWN.parse(str(artifact.data))
    kinds = [token.type for token in tokens]
    table = tokens[kinds.index("table_open") : kinds.index("table_close")]
    shown = ["".join(part.content for part in one.children or []) for one in table if one.type == "inline"]
    return {name: value for name, value in zip(shown[::2], shown[1::2], strict=True) if name}


def shown_by(run: Any, parameters: Any) -> dict[str, Artifact]:
    state = run(parameters, return_state=True)
    assert state.is_completed(), state
    return artifacts(run_id(state))


def test_ingest_shows_the_dataset_and_what_changed(batch: Path, tmp_path: Path):
    found = shown_by(ingest, IngestParameters(source=str(batch), store=str(tmp_path / "store"), dataset="My.Set_1"))
    assert list(found) == ["dn2-dataset-my-set-1"]
    assert lines(found["dn2-dataset-my-set-1"]) == {
        "dataset": "My.Set_1",
        "source": f"file://{batch}",
        "images": "3",
        "changes": "3 added, 0 changed, 0 vanished",
        "other files": "0",
    }


def test_ingest_with_a_pattern_shows_what_it_does_not_fit(batch: Path, tmp_path: Path):
    parameters = {"source": str(batch), "store": str(tmp_path), "dataset": "d", "pattern": "broken-{label}.png"}
    assert lines(shown_by(ingest, IngestParameters(**parameters))["dn2-dataset-d"])["fit no group"] == "2"


def test_embed_and_train_show_what_they_made(own_bricks: Bricks, batch: Path):
    store = str(own_bricks.store)
    found = shown_by(embed, EmbedParameters(source=str(batch), store=store, dataset="d"))
    assert set(found) == {"dn2-embedded-d", "dn2-embedding"}
    shown = lines(found["dn2-embedded-d"])
    assert (shown["images"], shown["could not be read"], shown["shards"]) == ("3", "1", "1")
    assert (shown["source"], shown["embedder"]) == (f"file://{batch}", own_bricks.bank.embedder)

    found = shown_by(train, TrainParameters(source=str(own_bricks.normal), store=store, bank="bricks"))
    assert list(found) == ["dn2-bank-bricks"]
    bank = own_bricks.bank
    assert lines(found["dn2-bank-bricks"]) == {
        "bank": f"bricks, version {bank.version}",
        "normal images": "32",
        "could not be read": "0",
        "backbone": "efficientnet_lite0, k = 2, l2",
        "index": f"exact: {bank.why}",
        "threshold": f"{bank.threshold:.4g}; {bank.calibrated}",
        "false alarms": f"{bank.promise} lie above it",
    }
    assert [doubt.code for doubt in bank.doubts] == ["rate-not-kept"]
    assert "32 calibration images cannot promise" in MARKDOWN.render(str(found["dn2-bank-bricks"].data))
    assert "[rate-not-kept]" in MARKDOWN.render(str(found["dn2-bank-bricks"].data))


def picture(markdown: str) -> bytes:
    """Return the PNG that is written into a text."""
    (data,) = re.findall(r"!\[[^\]]*\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", markdown)
    return base64.b64decode(data)


def test_report_shows_counts_warnings_and_its_picture_without_a_link(own_bricks: Bricks, batch: Path):
    """Where the store is not served there is nothing that a browser could follow."""
    found = shown_by(score, ScoreParameters(source=str(batch), store=str(own_bricks.store), bank="bricks"))
    assert set(found) == {"dn2-report-bricks", "dn2-worst-bricks", "dn2-embedding"}
    report = found["dn2-report-bricks"]
    assert report.description == "**1 of 2** images are anomalous, 1 could not be read"
    text = str(report.data)
    assert "](http" not in text
    (folder,) = own_bricks.store.glob("reports/bricks/*")
    assert lines(report) == {
        "batch": f"file://{batch}",
        "bank": f"bricks, version {own_bricks.bank.version}",
        "threshold": f"{own_bricks.bank.threshold:.4g}: the bank's own, for a false-alarm rate of 1%",
        "selected": "1 at a false-discovery rate of 10%",
        "report": f"{folder}/report.html",
        "all rows": f"file://{folder}/part-*.parquet",
    }
    assert picture(text) == (folder / "histogram.png").read_bytes()
    assert "only 32 calibration images" in MARKDOWN.render(text)


def test_report_in_a_served_store_has_links_and_a_picture_of_its_own(own_bricks: Bricks, batch: Path):
    tell = {"report_base_url": f"{BASE}/"}
    parameters = ScoreParameters.model_validate(
        {"source": str(batch), "store": str(own_bricks.store), "bank": "bricks", "tell": tell}
    )
    found = shown_by(score, parameters)
    (folder,) = own_bricks.store.glob("reports/bricks/*")
    address = f"{BASE}/reports/bricks/{folder.name}"
    assert f"[open the report]({address}/report.html)" in str(found["dn2-report-bricks"].data)
    assert lines(found["dn2-report-bricks"])["report"] == "open the report"
    assert (found["dn2-histogram-bricks"].type, found["dn2-histogram-bricks"].data) == (
        "image",
        f"{address}/histogram.png",
    )
    worst = found["dn2-worst-bricks"]
    assert f"({address}/report.html)" in str(worst.description)
    first, second = rows(worst)
    assert (first["rank"], first["image"], first["anomalous"]) == (1, "drop/material-00.png", "yes")
    assert (second["rank"], second["image"], second["anomalous"]) == (2, r"good\_\|\_1\.png", "no")
    assert re.fullmatch(r"brick-\d\d\.png", first["nearest normal image"])
    assert [(row["q"], row["selected"]) for row in (first, second)] == [("0.0606", "yes"), (second["p"], "no")]
    assert float(first["score"]) > own_bricks.bank.threshold > float(second["score"])


def test_night_shows_a_row_with_a_link_for_each_source_beside_its_reports(own_bricks: Bricks, batch: Path):
    sources = write_sources(
        batch.parent / "sources.yaml",
        store="store",
        nightly=[{"source": batch.name, "bank": "bricks"}, {"source": f"{batch.name}/drop", "bank": "bricks"}],
        tell={"report_base_url": BASE},
    )
    found = shown_by(nightly_score, NightlyParameters(sources=sources))
    assert {"dn2-night", "dn2-report-bricks", "dn2-worst-bricks", "dn2-histogram-bricks"} <= set(found)
    assert found["dn2-night"].description == "2 sources, 0 failed"
    assert found["dn2-embedding"].data == 100
    assert str(found["dn2-embedding"].description).startswith("**4** of 4 images, ")
    both = rows(found["dn2-night"])
    assert [row["could not be read"] for row in both] == ["1", "0"]
    assert [row["anomalous"] for row in both] == ["1 (50.0%)", "1 (100.0%)"]
    for row in both:
        assert re.fullmatch(rf"{BASE}/reports/bricks/[0-9a-f]{{16}}/report\.html", row["report"])
        assert "|" not in re.sub(r"\\.", "", row["source"])


def test_drop_and_look_leave_what_they_found(own_bricks: Bricks, batch: Path):
    drop = DropParameters(source=str(batch / "drop"), store=str(own_bricks.store), bank="bricks")
    assert {"dn2-report-bricks", "dn2-worst-bricks"} <= set(shown_by(score_drop, drop))
    sources = write_sources(
        batch.parent / "sources.yaml", store="store", watch=[{"prefix": batch.name, "bank": "bricks"}]
    )
    found = shown_by(watch_drops, WatchParameters(sources=sources))
    assert list(found) == ["dn2-drops"]
    assert "| 1 | 0 | 2 |" in str(found["dn2-drops"].data)
    assert MARKDOWN.render(str(found["dn2-drops"].data)).count("<td") == 4


def test_many_drops_are_counted_not_listed():
    drop = Drop("0" * 32, "file:///in/x", "bricks", 3, marked=True)
    due = tuple(replace(drop, uri=f"file:///in/{number}") for number in range(25))

    @flow(name="shows")
    def shows(parameters: None) -> None:
        display_looks([Look("w", "file:///in", due, due, {}, 0)], [])

    text = str(shown_by(shows, None)["dn2-drops"].data)
    assert text.count("\n* ") == 21
    assert text.endswith("\n* and 5 more")


def test_picture_too_large_for_a_page_is_left_out(own_bricks: Bricks, batch: Path):
    """Of a report that is finished already: what lies there is shown, whatever its size."""
    parameters = ScoreParameters(source=str(batch), store=str(own_bricks.store), bank="bricks")
    shown_by(score, parameters)
    (folder,) = own_bricks.store.glob("reports/bricks/*")
    (folder / "histogram.png").write_bytes(bytes(100_001))
    assert "data:image" not in str(shown_by(score, parameters)["dn2-report-bricks"].data)
    (folder / "histogram.png").unlink()
    assert "data:image" not in str(shown_by(score, parameters)["dn2-report-bricks"].data)
    assert dn2.Store.open(own_bricks.store).exists(f"reports/bricks/{folder.name}/summary.json")


@pytest.mark.filterwarnings("ignore:Artifact creation outside of a flow:FutureWarning")  # a run would keep its server
def test_server_that_takes_no_artifact_costs_a_warning(caplog: pytest.LogCaptureFixture):
    """Nobody listens at its address."""
    away = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(away), caplog.at_level(logging.WARNING, logger="dn2.flows"):
        display_dataset(Dataset("d", "file:///d", (), 0))
    assert [one.partition(": ")[0] for one in caplog.messages] == ["cannot show the artifact on Prefect's page"]
