"""The page about groups of real pictures: as a file, and opened in the system's Chromium."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from markupsafe import escape
from playwright.sync_api import Browser

import dn2
from tests.conftest import Bricks
from tests.dn2.groups.synthetic import folder_of, groups_of, members_of
from tests.dn2.reports.browsing import see

HOSTILE = (
    "<script>document.title='broken in'<",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" \'',
    "R&D &lt;b&gt; &amp;",
    "{{ bank.name }} {% raw %}",
    "line\u2028separator\u00a0and\u202eright to left",
    "x" * 200,
)


@dataclass(frozen=True)
class Walls:
    """Groups of brick walls: a store with a bank of normal ones, and where they lie."""

    store: Path
    normal: Path
    batch: Path

    def score(self, folder: Path | None = None, **settings: int) -> dn2.GroupReport:
        dataset = dn2.ingest(folder or self.batch, self.store, pattern="{group_id}/*")
        embedded = dn2.embed(dataset, self.store, bank=dn2.open_group_bank(self.store, "walls"))
        return dn2.score_groups(embedded, self.store, bank="walls", config=dn2.GroupScoreConfig(**settings))


@pytest.fixture(scope="module")
def built(bricks: Bricks, tmp_path_factory: pytest.TempPathFactory) -> Walls:
    """Eight normal groups of four pictures; in the batch eight of intact wall, one of another material, one broken."""
    root = tmp_path_factory.mktemp("walls")
    for number, picture in enumerate(sorted(bricks.normal.glob("*.png"))):
        copy(picture, root / "normal" / f"wall-{number % 8}")
    for number, picture in enumerate(sorted(bricks.batch.glob("good-*.png"))):
        copy(picture, root / "batch" / f"wall-{number % 8}")
    for picture in sorted(bricks.batch.glob("material-*.png"))[:4]:
        copy(picture, root / "batch" / "odd")
    for picture in sorted(bricks.batch.glob("broken-*.png")):
        copy(picture, root / "batch" / "broken")
    embedded = dn2.embed(dn2.ingest(root / "normal", root / "store", pattern="{group_id}/*"), root / "store")
    config = dn2.GroupFitConfig(false_alarm_rate=0.1, pooling="histogram", cells=4)
    dn2.fit_groups(embedded, root / "store", bank="walls", config=config)
    walls = Walls(root / "store", root / "normal", root / "batch")
    walls.score(report_groups=0)
    return walls


@pytest.fixture
def walls(built: Walls, tmp_path: Path) -> Walls:
    """A copy of that store that a test may change."""
    shutil.copytree(built.store, tmp_path / "store")
    return Walls(tmp_path / "store", built.normal, built.batch)


@pytest.fixture
def hostile(walls: Walls, tmp_path: Path) -> dn2.GroupReport:
    """Groups whose names are chosen to break a page; so are the folder's and the pictures'."""
    folder = tmp_path / "<b>R&D<"
    pictures = sorted(walls.batch.glob("*/good-*.png"))
    for number, name in enumerate(HOSTILE):
        for at in range(3):
            copy(pictures[3 * number + at], folder / name, f"{HOSTILE[at]}.png")
    return walls.score(folder)


def copy(picture: Path, folder: Path, name: str | None = None) -> None:
    target = folder / (name or picture.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(picture, target)


def page_of(report: dn2.GroupReport) -> str:
    return (folder_of(report) / "report.html").read_text()


def test_page_tells_what_the_tables_tell(walls: Walls):
    report = walls.score()
    page, rows = page_of(report), groups_of(dn2.Store.open(walls.store), report)

    assert (report.groups, report.scored, report.unscored, report.images, report.rejected) == (10, 9, 1, 39, 3)
    scored = [row for row in rows if row["score"] is not None]
    assert scored[0]["group_id"] == "odd"
    assert scored[0]["is_anomaly"]
    assert re.findall(r"<h3>\d+\. ([^<]*)</h3>", page) == [row["group_id"] for row in scored]
    assert re.findall(r"score <b>([^<]*)</b> \(threshold ([^)]*)\)", page) == [
        (f"{row['score']:.4g}", f"{row['threshold']:.4g}") for row in scored
    ]
    assert page.count('class="card flagged"') == report.anomalous
    assert f"<title>{report.anomalous} of 9 groups do not look normal" in page
    assert "8 normal groups with 32 images in all, 32 units" in page


def test_page_needs_nothing_from_elsewhere(walls: Walls):
    page = page_of(walls.score())

    assert "<script" not in page
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    sources = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert {source.partition(",")[0] for source in sources} == {"data:", "data:image/jpeg;base64"}


def test_images_without_thumbnails_are_shown_without_pictures(walls: Walls):
    """As those of a store that was copied without them."""
    for file in walls.store.glob("embeddings/*/*/*.thumbnails.parquet"):
        file.unlink()
    page = page_of(walls.score())

    assert "<img" not in page
    assert page.count("no picture") == 9 * 4


def test_bank_without_thumbnails_is_shown_beside_pictures_of_the_batch(walls: Walls):
    for file in walls.store.glob("embeddings/*/normal-*/*.thumbnails.parquet"):
        file.unlink()
    page = page_of(walls.score())

    assert page.count("<img") == 9 * 4
    assert "an image of wall-" not in page
    assert page.count(", 4 images</div>") == 9 * 2


def test_hostile_names_are_text(walls: Walls, hostile: dn2.GroupReport):
    """Every name appears escaped, as text and in titles; none is markup."""
    page = page_of(hostile)

    assert hostile.scored == len(HOSTILE)
    for forbidden in ("<script", "<img src=x", "<b>R&D", '" onmouseover'):
        assert forbidden not in page
    assert str(escape(hostile.source)) in page
    for name in HOSTILE:
        assert f". {escape(name)}</h3>" in page
    for row in members_of(dn2.Store.open(walls.store), hostile):
        assert f'title="{escape(row["uri"])}"' in page


def test_hostile_names_of_normal_groups_are_text(walls: Walls, tmp_path: Path):
    pictures = sorted(walls.normal.glob("*/*.png"))
    for number, picture in enumerate(pictures[:21]):
        copy(picture, tmp_path / "named" / HOSTILE[number % 7])
    embedded = dn2.embed(dn2.ingest(tmp_path / "named", walls.store, pattern="{group_id}/*"), walls.store)
    dn2.fit_groups(embedded, walls.store, bank="walls", config=dn2.GroupFitConfig(k=7 - 1))
    page = page_of(walls.score())

    for forbidden in ("<script", "<img src=x", '" onmouseover'):
        assert forbidden not in page
    for name in HOSTILE:
        assert f"{escape(name)}, 3 images" in page


@pytest.mark.browser
def test_hostile_names_do_nothing_in_a_browser(browser: Browser, hostile: dn2.GroupReport):
    seen = see(browser, hostile)

    assert (seen["troubles"], seen["scripts"], seen["cards"]) == ([], 0, len(HOSTILE))
    assert seen["widths"] == [64] * len(HOSTILE) * (3 + 2 * 4)
    text = str(seen["text"])
    for name in ("<b>R&D<", *HOSTILE[:5], "x" * 200):
        assert name in text


@pytest.mark.browser
def test_browser_shows_every_picture_and_asks_nobody_for_anything(browser: Browser, walls: Walls):
    report = walls.score()
    seen = see(browser, report)

    assert seen["troubles"] == []
    assert seen["schemes"] <= {"file", "data"}
    assert seen["widths"] == [64] * 9 * (4 + 2 * 4)  # members, and four of each of two normal groups
    assert seen["counts"] == [10, report.anomalous, 9 - report.anomalous, 1]
    assert "odd" in str(seen["text"])


@pytest.mark.browser
def test_page_of_many_long_names_does_not_scroll_sideways(browser: Browser, hostile: dn2.GroupReport):
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.goto(hostile.html)
    width = page.evaluate("document.documentElement.scrollWidth")
    page.close()

    assert width <= 1000


@pytest.mark.browser
@pytest.mark.parametrize("settings", [{"report_groups": 0}, {"report_members": 1}])
def test_page_with_fewer_pictures_is_still_a_page(browser: Browser, walls: Walls, settings: dict[str, int]):
    seen = see(browser, walls.score(**settings))

    cards = 0 if "report_groups" in settings else 9
    assert (seen["troubles"], seen["cards"]) == ([], cards)
    assert seen["widths"] == [64] * cards * (1 + 2 * 4)


@pytest.mark.browser
def test_page_of_no_scored_group_says_so(browser: Browser, walls: Walls, tmp_path: Path):
    copy(next(iter(walls.batch.glob("odd/*.png"))), tmp_path / "new" / "alone")
    seen = see(browser, walls.score(tmp_path / "new"))

    assert (seen["troubles"], seen["cards"], seen["counts"]) == ([], 0, [1, 0, 0, 1])
    assert "none of 1 groups could be scored" in str(seen["text"])
