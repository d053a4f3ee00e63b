"""Scored batches of which reports are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
