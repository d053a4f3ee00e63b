"""Images in cells. What a source makes of them is told in tests/dn2/images/test_parquet.py."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from dn2.errors import ConfigError, NotFoundError
from dn2.sources.blobs import Cells, holds_images, iter_known
from dn2.sources.versions import Pack
from dn2.store.files import locate
from tests.dn2.sources.packing import write_parquet


def test_memory_is_bounded_by_settings_and_not_by_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Only every tenth row is asked for: the others wait for nobody and are given up."""
    monkeypatch.setattr("dn2.sources.blobs._BATCH", 20_000)
    monkeypatch.setattr("dn2.sources.blobs._KEPT", 100_000)
    rows = [bytes([number % 256]) * 10_000 for number in range(400)]
    cells = Cells(Pack(locate(write_parquet(tmp_path / "a.parquet", {"image": rows}, rows_of_group=100))), lambda: None)
    for number in range(0, 400, 10):
        assert cells.read(number) == rows[number]
        assert sum(len(value or b"") for value in cells._waiting.values()) == cells._bytes <= 100_000
    cells.close()


def test_what_was_read_is_checked_before_it_is_used(tmp_path: Path):
    def refuse() -> None:
        raise ConfigError("no")

    cells = Cells(Pack(locate(write_parquet(tmp_path / "a.parquet", {"image": [b"x"]}))), refuse)
    with pytest.raises(ConfigError, match=r"^no$"):
        cells.read(0)
    cells.close()


def test_row_that_is_not_there_is_refused(tmp_path: Path):
    cells = Cells(Pack(locate(write_parquet(tmp_path / "a.parquet", {"image": [b"x"]}))), lambda: None)
    with pytest.raises(ConfigError, match=r"got 1 rows, expected one of number 7"):
        cells.read(7)
    cells.close()


def test_listing_reads_no_image(tmp_path: Path):
    """The pages of the images are destroyed; what is known about them is still there."""
    path = write_parquet(tmp_path / "a.parquet", {"label": ["x"] * 5, "image": [bytes(50_000)] * 5}, rows_of_group=2)
    content = bytearray(path.read_bytes())
    at = pa.parquet.ParquetFile(path).metadata.row_group(0).column(1)
    content[at.dictionary_page_offset or at.data_page_offset : at.data_page_offset + 20] = b"\xff" * (
        at.data_page_offset + 20 - (at.dictionary_page_offset or at.data_page_offset)
    )
    path.write_bytes(content)
    pieces = list(iter_known(Pack(locate(path)), ["label", "path"], required=[]))
    assert sum(count for count, _ in pieces) == 5
    assert [label for _, columns in pieces for label in columns["label"]] == ["x"] * 5


def test_missing_file_is_not_found(tmp_path: Path):
    with pytest.raises(NotFoundError, match=f"table file://{tmp_path}/a.parquet: nothing is there"):
        holds_images(locate(tmp_path / "a.parquet"))
