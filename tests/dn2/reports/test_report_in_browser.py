"""report.html as a person sees it: opened in the system's Chromium."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import dn2
from tests.conftest import Bricks
from tests.dn2.reports.browsing import see

pytestmark = pytest.mark.browser
HOSTILE = ("<script>alert(1)</script>.png", 'quote" onerror="alert(1).png', "a&amp;b{{ 7*7 }}.png")


def score(bricks: Bricks, batch: Path, **settings: int) -> dn2.Report:
    embedded = dn2.embed(dn2.ingest(batch, bricks.store), bricks.store, bank=bricks.bank)
    return dn2.score(embedded, bricks.store, bank=bricks.bank, config=dn2.ScoreConfig(**settings))


def test_page_shows_every_picture_and_asks_nobody_for_anything(browser: Browser, own_bricks: Bricks):
    report = score(own_bricks, own_bricks.batch)
    seen = see(browser, report)
    assert seen["troubles"] == []
    assert seen["schemes"] <= {"file", "data"}
    assert seen["scripts"] == 0
    assert seen["cards"] == 24
    assert len(seen["widths"]) == 24 * 3
    assert all(width == 64 for width in seen["widths"])
    assert seen["corners"] > 60


def test_counts_on_the_page_are_those_of_the_summary(browser: Browser, own_bricks: Bricks):
    report = score(own_bricks, own_bricks.batch)
    summary = json.loads(Path(report.uri.removeprefix("file://"), "summary.json").read_bytes())
    normal = summary["scored"] - summary["anomalous"]
    assert see(browser, report)["counts"] == [summary["images"], summary["anomalous"], normal, summary["rejected"]]


def test_names_of_files_are_shown_as_text(browser: Browser, own_bricks: Bricks, tmp_path: Path):
    """A name is hostile input: markup, quotes and template code in it do nothing."""
    batch = tmp_path / "<b>batch"
    (batch / "<script>alert(1)<").mkdir(parents=True)  # the slash of a closing tag makes it a folder
    for name in (*HOSTILE, "line\nbreak.png"):
        shutil.copy(own_bricks.batch / "good-01.png", batch / name)
    (batch / "<img src=x onerror=alert(1)>.png").write_bytes(b"broken")

    seen = see(browser, score(own_bricks, batch))
    assert seen["troubles"] == []
    assert seen["scripts"] == 0
    text = str(seen["text"])
    for name in ("<b>batch", "<img src=x onerror=alert(1)>.png", *HOSTILE):
        assert name in text
    assert all(width == 64 for width in seen["widths"])


def test_batch_without_a_readable_image_still_gives_a_page(browser: Browser, own_bricks: Bricks, tmp_path: Path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.png").write_bytes(b"broken")
    seen = see(browser, score(own_bricks, tmp_path / "new"))
    assert seen["troubles"] == []
    assert seen["counts"] == [1, 0, 0, 1]
    assert "none of the 1 images could be read" in str(seen["text"])


def test_no_pictures_are_shown_if_none_are_wanted(browser: Browser, own_bricks: Bricks):
    seen = see(browser, score(own_bricks, own_bricks.batch, report_images=0))
    assert (seen["cards"], seen["widths"], seen["troubles"]) == (0, [], [])


def test_bank_without_thumbnails_is_shown_without_pictures(browser: Browser, own_bricks: Bricks):
    """A bank copied from another store has no pictures beside its rows."""
    embedded = dn2.embed(dn2.ingest(own_bricks.batch, own_bricks.store), own_bricks.store, bank=own_bricks.bank)
    for file in own_bricks.store.glob("embeddings/*/normal-*/*.thumbnails.parquet"):
        file.unlink()
    report = dn2.score(embedded, own_bricks.store, bank=own_bricks.bank)
    seen = see(browser, report)
    assert seen["troubles"] == []
    assert len(seen["widths"]) == 24
    assert "no picture" in str(seen["text"])
