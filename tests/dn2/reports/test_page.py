"""What the page says of the bank and of how it was searched."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from markupsafe import escape

import dn2
from dn2.records import Fidelity
from dn2.reports.page import told_search
from tests.conftest import Bricks
from tests.dn2.reports.batches import scored

MILLION = Fidelity(images=1000, recall=0.9932, rank_correlation=0.99993, score_error=0.0002, flipped=0)


@pytest.fixture
def exact(bricks: Bricks) -> dn2.BankVersion:
    return replace(bricks.bank, calibration="held-out")


@pytest.fixture
def ivf(exact: dn2.BankVersion) -> dn2.BankVersion:
    return replace(exact, index="ivf", nlist=4000, nprobe=46, fidelity=MILLION)


@pytest.fixture
def centroids(exact: dn2.BankVersion) -> dn2.BankVersion:
    cost = Fidelity(images=400, recall=None, rank_correlation=0.9, score_error=0.123, flipped=1)
    return replace(exact, index="centroids", nlist=100, rows=100, fidelity=cost)


def retrained(bricks: Bricks, **settings: object) -> Bricks:
    """Train the bricks' bank again, with other settings."""
    embedded = dn2.embed(dn2.ingest(bricks.normal, bricks.store), bricks.store)
    bank = dn2.fit(embedded, bricks.store, bank="bricks", config=dn2.FitConfig(**settings))
    return replace(bricks, bank=bank)


def soft_text(page: str) -> str:
    """The small print, as one line."""
    return " ".join(re.sub(r"<[^>]+>", "", part) for part in re.findall(r'<p class="soft".*?</p>', page, re.DOTALL))


def test_exact_search_is_not_spoken_of(own_bricks: Bricks):
    page = scored(own_bricks.batch, own_bricks).html()
    assert told_search(own_bricks.bank) is None
    assert "approximately" not in page
    assert "index" not in soft_text(page)
    assert "centre" not in soft_text(page)
    assert "32 normal images, efficientnet_lite0, k = 2, l2" in soft_text(page).replace("\n", " ")


def test_page_says_how_many_cells_were_visited_and_what_that_costs(own_bricks: Bricks):
    bricks = retrained(own_bricks, index="ivf", nlist=4, nprobe=1)
    assert bricks.bank.fidelity is not None
    page = scored(bricks.batch, bricks).html()
    text = told_search(bricks.bank)
    assert text is not None
    assert text.startswith(
        "Neighbours are searched approximately: 4 cells, 1 visited. On 16 images, each left out, this finds "
    )
    assert f'<p class="soft">{escape(text)}</p>' in page
    assert "l2, index ivf" in soft_text(page)
    assert "centre" not in soft_text(page)


def test_page_says_that_centres_stand_for_images(own_bricks: Bricks):
    bricks = retrained(own_bricks, index="centroids", centroids=5)
    assert bricks.bank.fidelity is not None
    page = scored(bricks.batch, bricks).html()
    text = told_search(bricks.bank)
    assert text is not None
    assert f'<p class="soft">{escape(text)}</p>' in page
    assert f"compared with {bricks.bank.rows} centres instead of images. On " in text
    assert "true neighbours" not in text
    assert f"{bricks.bank.rows} centres of normal images, efficientnet_lite0" in soft_text(page)
    assert "l2, index centroids" in soft_text(page)
    assert "squared distances; where an image stands for the centre that it is nearest to, to that centre." in page


def test_cells(ivf: dn2.BankVersion):
    assert told_search(ivf) == (
        "Neighbours are searched approximately: 4,000 cells, 46 visited. On 1,000 images that are not in the bank this "
        "finds 99.3 % of the true neighbours; scores are off by 0.02 % on average, their ranks correlate by 0.9999, "
        "and 0 decisions flip."
    )


def test_cells_of_several_segments(ivf: dn2.BankVersion):
    text = told_search(replace(ivf, segment_count=3))
    assert text is not None
    assert ": cells in each of 3 segments, at most 46 visited. On" in text


def test_images_of_the_bank_itself_are_left_out_one_by_one(ivf: dn2.BankVersion):
    text = told_search(replace(ivf, calibration="leave-one-out"))
    assert text is not None
    assert "On 1,000 images, each left out, this finds" in text


def test_centres(centroids: dn2.BankVersion):
    assert told_search(centroids) == (
        "Neighbours are searched approximately: compared with 100 centres instead of images. On 400 images that are "
        "not in the bank scores are off by 12 % on average, their ranks correlate by 0.9, and 1 decision flips."
    )


def test_centres_to_which_images_were_added(centroids: dn2.BankVersion):
    """What was measured was measured before: the page says so."""
    assert told_search(replace(centroids, rows=120, segment_count=2)) == (
        "Neighbours are searched approximately: compared with centres instead of images, and with the images that were "
        "added since. On 400 images that are not in the bank scores are off by 12 % on average, their ranks correlate "
        "by 0.9, and 1 decision flips. This was measured before images were added."
    )


@pytest.mark.parametrize(
    ("recall", "correlation", "said"),
    [
        (0.99996, 0.99999, ("99.9 %", "by 0.9999,")),
        (1.0, 1.0, ("100 %", "by 1,")),
        (0.29, -0.5, ("29 %", "by -0.5,")),
        (0.0, 0.0, ("0 %", "by 0,")),
    ],
)
def test_what_is_not_all_does_not_look_like_it(
    ivf: dn2.BankVersion, recall: float, correlation: float, said: tuple[str, str]
):
    text = told_search(replace(ivf, fidelity=replace(MILLION, recall=recall, rank_correlation=correlation)))
    assert text is not None
    assert [words for words in said if words not in text] == []


@pytest.mark.parametrize(("error", "said"), [(0.0, "0 %"), (0.00018, "0.018 %"), (0.996, "100 %"), (12.34, "1,234 %")])
def test_errors_of_every_size_are_legible(ivf: dn2.BankVersion, error: float, said: str):
    text = told_search(replace(ivf, fidelity=replace(MILLION, score_error=error)))
    assert text is not None
    assert f"scores are off by {said} on average" in text
