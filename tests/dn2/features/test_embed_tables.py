"""From a table to embeddings: images anywhere, missing ones, changed labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dn2
from dn2.config import EmbedConfig
from dn2.errors import SourceError
from dn2.store.files import locate
from dn2.store.schemas import EMBEDDINGS
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.conftest import make_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the table lies; photos/000.png to 005.png lie below it."""
    make_pictures(tmp_path / "data" / "photos", 6)
    return tmp_path / "data"


def write(folder: Path, *lines: str) -> Path:
    table = folder / "list.csv"
    table.write_text("uri,group_id,label\n" + "".join(f"{line}\n" for line in lines))
    return table


def embed(table: Path, store: Path) -> tuple[dn2.Embedded, list[dict[str, Any]]]:
    """Embed a table; return the record and the rows of living images."""
    embedded = dn2.embed(dn2.ingest(table, store), store)
    return embedded, rows_of(embedded, store)


def rows_of(embedded: dn2.Embedded, store: Path) -> list[dict[str, Any]]:
    rows = []
    for shard in embedded.shards:
        found = read_table(Store.open(store), shard.path, EMBEDDINGS).to_pylist()
        rows += [row for place, row in enumerate(found) if place not in shard.shard.superseded]
    return rows


def test_rows_are_embedded_with_their_group_and_label_without_the_table(folder: Path, tmp_path: Path):
    table = write(folder, *(f"photos/{number:03d}.png,g{number % 2},007" for number in range(6)))
    dataset = dn2.ingest(table, tmp_path / "store")
    table.unlink()
    embedded = dn2.embed(dataset, tmp_path / "store", config=EmbedConfig(shard_size=4))
    assert [(shard.embedded, shard.rejected) for shard in embedded.shards] == [(4, 0), (2, 0)]
    rows = rows_of(embedded, tmp_path / "store")
    assert [(row["uri"], row["group_id"], row["label"]) for row in rows] == [
        (f"file://{folder}/photos/{number:03d}.png", f"g{number % 2}", "007") for number in range(6)
    ]


def test_missing_file_is_a_reject_until_it_appears(folder: Path, tmp_path: Path):
    table = write(folder, "photos/000.png,,", "photos/new.png,a,", "photos/list.txt,,")
    (folder / "photos" / "list.txt").write_text("no picture")
    _, rows = embed(table, tmp_path / "store")
    assert {Path(row["uri"]).name: row["reject_reason"] for row in rows} == {
        "000.png": None,
        "list.txt": "not an image, or of an unknown format",
        "new.png": "not found when the table was listed",
    }
    (folder / "photos" / "001.png").rename(folder / "photos" / "new.png")
    embedded, rows = embed(table, tmp_path / "store")
    assert (embedded.embedded, embedded.rejected) == (2, 1)
    assert [(row["group_id"], row["reject_reason"]) for row in rows if row["uri"].endswith("new.png")] == [("a", None)]


def test_file_that_appears_after_the_listing_waits_for_the_next_one(folder: Path, tmp_path: Path):
    """Its id is that of a missing file."""
    table = write(folder, "photos/000.png,,", "photos/new.png,,")
    dataset = dn2.ingest(table, tmp_path / "store")
    (folder / "photos" / "001.png").rename(folder / "photos" / "new.png")
    assert dn2.embed(dataset, tmp_path / "store").rejected == 1
    assert embed(table, tmp_path / "store")[0].rejected == 0


def test_only_rows_with_another_label_are_embedded_again(folder: Path, tmp_path: Path):
    lines = [f"photos/{number:03d}.png,g,ok" for number in range(6)]
    first, before = embed(write(folder, *lines), tmp_path / "store")
    lines[2] = "photos/002.png,g,bad"
    second, after = embed(write(folder, *lines), tmp_path / "store")
    assert [(shard.shard.part, shard.embedded) for shard in second.shards] == [
        (first.dataset.parts[0], 5),
        (second.dataset.parts[1], 1),
    ]
    assert [row["label"] for row in after] == ["ok"] * 5 + ["bad"]
    ids = [[row["image_id"] for row in rows] for rows in (before, after)]
    assert sorted(ids[0]) == sorted(ids[1])


@pytest.mark.parametrize("gone", ["emptied", "removed"])
def test_drive_that_goes_while_it_is_read_freezes_nothing(gone: str, folder: Path, tmp_path: Path):
    table = write(folder, "photos/000.png,,", "photos/001.png,,")
    dataset = dn2.ingest(table, tmp_path / "store")
    (folder / "photos").rename(folder / "elsewhere")
    if gone == "emptied":
        (folder / "photos").mkdir()
    with pytest.raises(SourceError, match="not found, and its folder or bucket is empty or gone"):
        dn2.embed(dataset, tmp_path / "store")
    if gone == "emptied":
        (folder / "photos").rmdir()
    (folder / "elsewhere").rename(folder / "photos")
    assert dn2.embed(dataset, tmp_path / "store").embedded == 2


@pytest.mark.s3
def test_images_on_this_machine_and_in_a_bucket_in_one_table(folder: Path, tmp_path: Path, s3_bucket: str):
    place = locate(f"{s3_bucket}/embed-tables")
    place.fs.pipe(f"{place.path}/a.png", (folder / "photos" / "001.png").read_bytes())
    table = write(folder, "photos/000.png,x,", f"{place.uri}/a.png,y,", f"{place.uri}/b.png,z,")
    _, rows = embed(table, tmp_path / "store")
    assert {row["group_id"]: row["reject_reason"] for row in rows} == {
        "x": None,
        "y": None,
        "z": "not found when the table was listed",
    }
