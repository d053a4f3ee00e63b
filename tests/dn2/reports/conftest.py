from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import Bricks
from tests.dn2.reports.batches import NAMES, Batch, scored


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
