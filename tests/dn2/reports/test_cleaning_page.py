"""The page that shows what cleaning did: as a file, and opened in the system's Chromium."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from markupsafe import escape
from playwright.sync_api import Browser

import dn2
from tests.conftest import Bricks
from tests.dn2.reports.batches import NAMES
from tests.dn2.reports.browsing import see


@dataclass(frozen=True)
class Cleaned:
    """A cleaning, and what it was made of."""

    store: Path
    embedded: dn2.Embedded
    cleaning: dn2.Cleaning

    def page(self) -> str:
        return Path(self.cleaning.html.removeprefix("file://")).read_text()

    def rows(self) -> list[dict[str, object]]:
        """Return all images, the oddest first."""
        table = pq.read_table(Path(self.cleaning.uri.removeprefix("file://"), "rows.parquet"))
        return sorted(table.to_pylist(), key=lambda row: row["rank"])


def cleaned(source: Path, bricks: Bricks, **settings: object) -> Cleaned:
    """Clean a folder by the rule auto, with a contamination of 10 % if no other is given."""
    embedded = dn2.embed(dn2.ingest(source, bricks.store), bricks.store)
    config = dn2.CleanConfig(rule="auto", clusters="drop", **{"contamination": 0.1, **settings})
    return Cleaned(bricks.store, embedded, dn2.clean(embedded, bricks.store, config=config))


@pytest.fixture
def hostile(own_bricks: Bricks, tmp_path: Path) -> Cleaned:
    """Twenty-one different images, of which seven have names that are chosen to break a page."""
    folder = tmp_path / "<b>R&D<"
    pictures = sorted(own_bricks.batch.glob("[gh]o*.png"))[:21]
    for number, picture in enumerate(pictures):
        name = f"{NAMES[number]}.png" if number < len(NAMES) else picture.name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder / name)
    return cleaned(folder, own_bricks, report_images=13)  # those that are dropped, and the others


def ranks(page: str) -> list[int]:
    return [int(rank) for rank in re.findall(r"<b>(\d+)\.</b>", page)]


def test_page_shows_the_oddest_the_borders_and_the_most_typical(own_bricks: Bricks):
    """160 images, 16 anomalies, 96 dropped, five of each kind."""
    done = cleaned(own_bricks.batch, own_bricks, report_images=5)
    page = done.page()

    assert (done.cleaning.images, done.cleaning.dropped) == (160, 96)
    assert re.findall(r"<h2>([^<]*)</h2>", page) == [
        "The oddest images",
        "The last ones taken for anomalies",
        "The last ones that were dropped",
        "The first ones that were kept",
        "The most typical ones",
    ]
    assert ranks(page) == [*range(1, 6), *range(12, 17), *range(92, 102), *range(156, 161)]
    for row in done.rows():
        if row["rank"] in ranks(page):
            assert f"<b>{row['rank']}.</b> {row['score']:.3g}" in page
    assert Counter(re.findall(r'<div class="card (\w+)"', page)) == {"flagged": 15, "passed": 10}
    assert page.count("· impurity") == 10
    assert page.count("· margin") == 5


@pytest.mark.parametrize("count", [0, 1, 24, 50, 96, 500])
def test_no_image_is_shown_twice_however_many_are_wanted(own_bricks: Bricks, count: int):
    shown = ranks(cleaned(own_bricks.batch, own_bricks, report_images=count).page())

    assert shown == sorted(set(shown))
    assert len(shown) == (0 if count == 0 else 160 if count >= 96 else len(shown))
    assert set(range(1, 1 + min(count, 160))) <= set(shown)


def test_counts_and_words_are_those_of_the_cleaning(own_bricks: Bricks):
    given, guessed = (
        cleaned(own_bricks.batch, own_bricks, contamination=contamination) for contamination in (0.1, None)
    )

    counts = re.findall(r"<b>([\d.]+(?: %)?)</b>(images|dropped|kept|contamination[^<]*)", given.page())
    assert counts == [
        ("160", "images"),
        ("96", "dropped"),
        ("64", "kept"),
        ("10 %", "contamination, as given"),
    ]
    assert '16 images are taken for anomalies (ranks 1 to 16, reason "impurity")' in given.page()
    assert "contamination, estimated" in guessed.page()
    assert "a rough estimate; if you know better, say so" in guessed.page()
    assert "a rough estimate" not in given.page()


def test_page_needs_nothing_from_elsewhere(own_bricks: Bricks):
    page = cleaned(own_bricks.batch, own_bricks).page()
    assert "<script" not in page
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    sources = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert {source.partition(",")[0] for source in sources} == {"data:", "data:image/jpeg;base64"}


def test_hostile_names_are_text(hostile: Cleaned):
    """Every name appears escaped, as text and in titles; none is markup."""
    page = hostile.page()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "<b>R&D" not in page
    assert str(escape(hostile.cleaning.source)) in page
    assert ranks(page) == list(range(1, 22))
    for row in hostile.rows():
        assert str(escape(str(row["uri"]).rpartition("/")[2])) in page
        assert f'title="{escape(row["uri"])}"' in page


@pytest.mark.browser
def test_hostile_names_do_nothing_in_a_browser(browser: Browser, hostile: Cleaned):
    seen = see(browser, hostile.cleaning)
    assert (seen["troubles"], seen["scripts"], seen["cards"]) == ([], 0, 21)
    assert [width > 0 for width in seen["widths"]] == [True] * 21
    text = str(seen["text"])
    for name in ("<b>R&D<", "<img src=x onerror=alert(1)>.png", "R&D &lt;b&gt; &amp;.png", "{{ bank.name }} {% raw %}"):
        assert name in text


@pytest.mark.browser
def test_browser_shows_every_picture_and_asks_nobody_for_anything(browser: Browser, own_bricks: Bricks):
    done = cleaned(own_bricks.batch, own_bricks, contamination=0)
    seen = see(browser, done.cleaning)
    assert seen["troubles"] == []
    assert seen["schemes"] <= {"file", "data"}
    assert (
        seen["widths"] == [64] * 88
    )  # 40 are dropped, none is taken for an anomaly; of the kept ones the first and last 24
    assert seen["counts"] == [160, done.cleaning.dropped, done.cleaning.kept]


def test_images_without_thumbnails_are_shown_without_pictures(own_bricks: Bricks):
    """As those of a store that was copied without them."""
    embedded = dn2.embed(dn2.ingest(own_bricks.batch, own_bricks.store), own_bricks.store)
    for shard in embedded.shards:
        Path(own_bricks.store, shard.path.replace(".parquet", ".thumbnails.parquet")).unlink()
    page = Cleaned(
        own_bricks.store,
        embedded,
        dn2.clean(embedded, own_bricks.store, config=dn2.CleanConfig(rule="auto", clusters="drop", report_images=3)),
    ).page()
    assert "<img" not in page
    assert page.count("no picture") == len(ranks(page)) > 0
