from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from markupsafe import escape

import dn2
from dn2.reports.report import finished
from tests.conftest import Bricks
from tests.dn2.reports.batches import Batch, scored


def rows(batch: Batch) -> list[dict[str, object]]:
    return [row for part in sorted(batch.folder.glob("part-*")) for row in pq.read_table(part).to_pylist()]


def test_summary_holds_the_record_the_bank_and_the_settings(batch: Batch):
    summary = json.loads((batch.folder / "summary.json").read_text())
    assert (summary["schema"], summary["schema_version"]) == ("dn2.report_summary", 1)
    record = json.loads(json.dumps(asdict(batch.report)))
    assert {name: summary[name] for name in record} == record
    assert summary["bank_version"] == json.loads(json.dumps(asdict(batch.bank)))
    assert summary["config"] == dn2.ScoreConfig().model_dump(mode="json")
    assert summary["parts"] == ["part-00000.parquet"]
    (scores,) = batch.store.glob("scores/bricks/*")
    (shard,) = batch.embedded.shards
    part = {"path": f"scores/bricks/{scores.name}/part-00000.parquet", "shard": shard.path}
    assert summary["scores"] == {
        "source": batch.report.source,
        "bank": "bricks",
        "version": batch.bank.version,
        "folder": f"scores/bricks/{scores.name}",
        "parts": [{**part, "scored": 160, "rejected": 3}],
    }


def test_report_without_summary_is_not_finished_and_is_made_again(batch: Batch):
    """The summary is written last: it makes the report whole."""
    store = dn2.Store.open(batch.store)
    folder = batch.report.uri.removeprefix(f"{store.uri}/")
    assert finished(store, folder) == batch.report
    times = {path.name: path.stat().st_mtime_ns for path in batch.folder.iterdir()}
    assert max(times, key=lambda name: times[name]) == "summary.json"
    page = batch.html()
    (batch.folder / "summary.json").unlink()
    (batch.folder / "report.html").write_text("half a pa")
    assert finished(store, folder) is None
    assert dn2.score(batch.embedded, store, bank=batch.bank) == batch.report
    assert batch.html() == page


def test_page_shows_the_worst_images_worst_first(batch: Batch):
    scores = sorted((row["score"] for row in rows(batch) if row["score"] is not None), reverse=True)
    shown = re.findall(r"score <b>([\d.e+]+)</b>", batch.html())
    assert shown == [f"{score:.4g}" for score in scores[:24]]


@pytest.mark.parametrize("count", [0, 1, 500])
def test_number_of_images_shown_is_a_setting(own_bricks: Bricks, count: int):
    page = scored(own_bricks.batch, own_bricks, report_images=count).html()
    shown = min(count, 160)
    assert page.count('<div class="card ') == shown
    assert ("worst images" in page) == (count > 0)
    assert page.count("<img ") == 3 * shown  # each beside its two nearest normal ones


def test_page_needs_nothing_from_elsewhere(batch: Batch):
    """No script, no address but those of images in the text, and a policy that forbids the rest."""
    page = batch.html()
    assert "<script" not in page
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    sources = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert len(sources) > 72
    assert {source.partition(",")[0] for source in sources if not source.startswith("#")} == {
        "data:",
        "data:image/jpeg;base64",
    }
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_hostile_names_are_text(hostile: Batch):
    """Every name appears escaped, in cards, titles and rejects; none is markup."""
    page = hostile.html()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "<b>R&D" not in page
    assert (hostile.report.scored, hostile.report.rejected) == (7, 7)
    for row in rows(hostile):
        name = str(row["uri"]).rpartition("/")[2]
        assert str(escape(name)) in page


def test_rejects_are_listed_with_their_reasons(batch: Batch):
    page = batch.html()
    assert "<h2>3 images could not be read</h2>" in page
    for row in rows(batch):
        if row["reject_reason"] is not None:
            assert f"<td>{escape(row['reject_reason'])}</td>" in page


def test_batch_without_rejects_has_no_list_of_them(own_bricks: Bricks):
    assert "could not be read</h2>" not in scored(own_bricks.normal, own_bricks).html()


def test_only_the_first_hundred_rejects_are_listed(own_bricks: Bricks, tmp_path: Path):
    folder = tmp_path / "broken"
    folder.mkdir()
    for number in range(101):
        (folder / f"{number:03d}.png").write_bytes(b"no picture")
    page = scored(folder, own_bricks).html()
    assert "<h2>101 images could not be read</h2>" in page
    assert page.count('<tr><td class="uri">') == 100
    assert "The first 100; all stand in the report" in page


def test_batch_without_a_readable_image_still_has_a_page(own_bricks: Bricks, tmp_path: Path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no picture")
    batch = scored(folder, own_bricks)
    assert (batch.report.images, batch.report.scored, batch.report.rejected) == (1, 0, 1)
    assert batch.report.warnings[0] == "none of the 1 images could be read: nothing was scored"
    assert "worst images" not in batch.html()
    assert "<svg" in batch.html()


def test_many_rejects_are_a_warning(own_bricks: Bricks, tmp_path: Path):
    folder = tmp_path / "some"
    shutil.copytree(own_bricks.normal, folder)
    (folder / "a.png").write_bytes(b"no picture")
    few = scored(folder, own_bricks, max_rejects=1, max_reject_rate=0)
    many = scored(folder, own_bricks, max_rejects=0, max_reject_rate=0)
    warning = "1 of 33 images could not be read: the others may not represent the batch"
    assert warning not in few.report.warnings
    assert many.report.warnings[0] == warning
    assert f"<p>{warning} <code>unreadable</code></p>" in many.html()


def test_damaged_count_is_a_bug_that_is_not_hidden(batch: Batch):
    """Rows in the parts and images in the batch are compared before the page is written."""
    short = replace(batch.embedded, shards=(replace(batch.embedded.shards[0], embedded=159),))
    (batch.folder / "summary.json").unlink()
    with pytest.raises(AssertionError, match="163 rows for 162 images: a bug in dn2"):
        dn2.score(short, batch.store, bank=batch.bank)
    assert not (batch.folder / "summary.json").exists()


def test_histogram_counts_every_image_and_every_calibration_score(batch: Batch, monkeypatch: pytest.MonkeyPatch):
    """Seen through the figure: nothing falls out of the bins, the largest score included."""
    from dn2.reports import report

    drawn = []
    monkeypatch.setattr(report, "histogram_svg", lambda histogram, threshold: drawn.append(histogram) or "<svg></svg>")
    (batch.folder / "summary.json").unlink()
    dn2.score(batch.embedded, batch.store, bank=batch.bank)
    assert (drawn[0].batch.sum(), drawn[0].calibration.sum()) == (160, 32)
    assert np.all(np.diff(drawn[0].edges) > 0)


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "dn2.report_summary", "schema_version": 1}'])
def test_damaged_summary_says_what_to_do_and_doing_it_helps(batch: Batch, content: str):
    summary = batch.folder / "summary.json"
    summary.write_text(content)
    with pytest.raises(dn2.SchemaError, match=r"summary\.json.*; delete that file: the report is made again$"):
        dn2.score(batch.embedded, batch.store, bank=batch.bank)
    summary.unlink()
    assert dn2.score(batch.embedded, batch.store, bank=batch.bank) == batch.report
