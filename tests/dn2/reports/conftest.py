from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import dn2
from tests.conftest import Bricks

NAMES = (
    "<script>document.title='broken in'<",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" \'',
    "R&D &lt;b&gt; &amp;",
    "two\nlines",
    "{{ bank.name }} {% raw %}",
    "<h1>big",
)


@dataclass(frozen=True)
class Batch:
    """A scored batch and what it was scored with."""

    store: Path
    bank: dn2.BankVersion
    embedded: dn2.Embedded
    report: dn2.Report

    @property
    def folder(self) -> Path:
        return Path(self.report.uri.removeprefix("file://"))

    def html(self) -> str:
        return (self.folder / "report.html").read_text()


def scored(source: Path, bricks: Bricks, **settings: int) -> Batch:
    """Score a folder against the bricks' bank."""
    embedded = dn2.embed(dn2.ingest(source, bricks.store), bricks.store, bank=bricks.bank)
    report = dn2.score(embedded, bricks.store, bank=bricks.bank, config=dn2.ScoreConfig(**settings))
    return Batch(bricks.store, bricks.bank, embedded, report)


@pytest.fixture
def own_bricks(own_embedded_bricks: Bricks) -> Bricks:
    """All pages here are of batches that are embedded already."""
    return own_embedded_bricks


@pytest.fixture
def batch(own_bricks: Bricks) -> Batch:
    """The bricks' own batch: 160 scored images and 3 that cannot be read."""
    return scored(own_bricks.batch, own_bricks)


@pytest.fixture
def hostile(own_bricks: Bricks, tmp_path: Path) -> Batch:
    """Images and rejects whose names are chosen to break a page."""
    folder = tmp_path / "<b>R&D<"
    folder.mkdir()
    pictures = sorted(own_bricks.batch.glob("hole-*"))
    for number, name in enumerate(NAMES):
        shutil.copy(pictures[number], folder / f"{name}.png")
        (folder / f"{name}.jpg").write_bytes(b"no picture")
    return scored(folder, own_bricks)
