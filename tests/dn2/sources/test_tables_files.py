"""The files that a table lists: looked up and read wherever they lie, there or not."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest

import dn2
from dn2.errors import SourceError
from dn2.sources.opening import open_source, reader_of
from dn2.sources.source import VanishedError
from dn2.sources.tables import TableSource
from dn2.store.files import locate
from dn2.store.storage import Store
from tests.dn2.images.listing import live_uris, part_rows, touch
from tests.dn2.sources.listed import FORMS, Row, as_bytes, counts, known, write


def test_file_that_is_not_there_is_an_image_until_it_appears(folder: Path, store: Store):
    table = write(folder / "list.csv", {"uri": "a.png", "label": "x"}, {"uri": "later.png", "label": "y"})
    first = dn2.ingest(table, store)
    (row,) = (row for row in part_rows(store, first) if row["uri"].endswith("later.png"))
    assert (row["version"], row["size"], row["present"], row["label"]) == ("absent", -1, True, "y")
    assert counts(dn2.ingest(table, store)) == (2, 0, 0, 0)
    touch(folder, "later.png", content=b"now")
    second = dn2.ingest(table, store)
    (now,) = part_rows(store, second)
    assert (counts(second), now["size"], now["label"]) == ((2, 0, 1, 0), 3, "y")
    assert now["image_id"] != row["image_id"]


@pytest.mark.parametrize("uri", ["sub", "pipe", "a.png/x.png", "a.png/x/y.png", "loop", "x" * 300, ".", "~nobody.png"])
def test_what_is_no_file_is_not_there(uri: str, folder: Path, store: Store):
    """Reading a pipe would wait for ever."""
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    uri = f"./{uri}"
    (row,) = part_rows(store, dn2.ingest(write(folder / "list.csv", {"uri": uri}), store))
    assert (row["version"], row["size"]) == ("absent", -1)


@pytest.mark.parametrize("gone", ["emptied", "removed"])
def test_missing_drive_is_an_error_and_no_row_of_missing_files(gone: str, folder: Path, store: Store):
    table = write(folder / "list.csv", {"uri": "sub/c.jpg"}, {"uri": "a.png"})
    dn2.ingest(table, store, dataset="x")
    (folder / "sub" / "c.jpg").unlink()
    if gone == "removed":
        (folder / "sub").rmdir()
    with pytest.raises(
        SourceError, match=r"sub/c\.jpg not found, and its folder or bucket is empty or gone; mount the"
    ):
        dn2.ingest(table, store, dataset="x")
    assert len(store.names("manifests/x")) == 1


def test_file_that_cannot_be_looked_up_is_a_fault(folder: Path, tmp_path: Path, request: pytest.FixtureRequest):
    table = write(folder / "list.csv", {"uri": "sub/c.jpg"})
    tmp_path.parent.chmod(0o755)
    (folder / "sub").chmod(0o600)
    source = TableSource(locate(table))
    rows = source._rows()
    place = next(rows)
    request.getfixturevalue("nobody")
    with pytest.raises(
        SourceError, match=r"source file://.*list.csv: cannot look up .*sub/c\.jpg: .*Permission denied"
    ):
        source._listed(*place)


@pytest.mark.parametrize("form", FORMS)
def test_table_in_memory_lists_files_beside_it_and_elsewhere(form: str, memory: str, folder: Path, store: Store):
    fs = locate(memory).fs
    rows: list[Row] = [{"uri": uri} for uri in ("../x/1.png", f"{memory}/x/2.png", "gone.png", f"{folder}/a.png")]
    fs.pipe({f"{memory}/l/list.{form}": as_bytes(rows, form), f"{memory}/x/1.png": b"1", f"{memory}/x/2.png": b"22"})
    found = dn2.ingest(f"{memory}/l/list.{form}", store)
    sizes = {row["uri"]: row["size"] for row in part_rows(store, found)}
    assert sizes == {
        f"{memory}/x/1.png": 1, f"{memory}/x/2.png": 2, f"{memory}/l/gone.png": -1, f"file://{folder}/a.png": 5
    }  # fmt: skip
    assert reader_of(found.source).read(f"{memory}/x/2.png") == b"22"


@pytest.mark.s3
@pytest.mark.parametrize("form", FORMS)
def test_table_in_a_bucket(form: str, s3_bucket: str, store: Store):
    root = f"{s3_bucket}/{uuid.uuid4().hex}"
    place = locate(root)
    rows: list[Row] = [{"uri": f"img/{number:03d}.png", "group_id": f"0{number % 7}"} for number in range(300)]
    rows += [{"uri": f"{root}/img/gone.png", "group_id": None}, {"uri": "img", "group_id": None}]
    images = {f"{place.path}/img/{number:03d}.png": bytes([number % 256]) * (number + 1) for number in range(300)}
    place.fs.pipe({**images, f"{place.path}/list.{form}": as_bytes(rows, form)})
    found = dn2.ingest(f"{root}/list.{form}", store)
    listed = {row["uri"]: row for row in part_rows(store, found)}
    assert len(listed) == found.images == 302
    for name in ("img/gone.png", "img"):
        assert (listed.pop(f"{root}/{name}")["version"]) == "absent"
    walked = part_rows(store, dn2.ingest(f"{root}/img", store))
    assert [{**row, "group_id": None} for row in listed.values()] == walked
    assert listed[f"{root}/img/008.png"]["group_id"] == "01"
    assert reader_of(found.source).read(f"{root}/img/008.png") == b"\x08" * 9
    with pytest.raises(VanishedError, match=r"^vanished since it was listed$"):
        reader_of(found.source).read(f"{root}/img/gone.png")
    with pytest.raises(SourceError, match="its folder or bucket is empty or gone") as caught:
        reader_of(found.source).read(f"s3://no-such-bucket-{uuid.uuid4().hex}/a.png")
    assert not isinstance(caught.value, VanishedError)


@pytest.mark.s3
def test_local_table_of_a_bucket_opens_it_once(s3_bucket: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A connection for each of a million rows would be as many connections."""
    root = f"{s3_bucket}/{uuid.uuid4().hex}"
    place = locate(root)
    place.fs.pipe({f"{place.path}/{number}.png": b"x" for number in range(50)})
    source = open_source(write(folder / "list.csv", *({"uri": f"{root}/{number}.png"} for number in range(50))))
    opened = []

    def counted(url: str) -> Any:
        opened.append(url)
        return locate(url)

    monkeypatch.setattr("dn2.store.files.locate", counted)
    assert {file.size for file in source.walk()} == {1}
    assert source.read(f"{root}/7.png") == b"x"
    assert len(opened) == 1


def test_unreachable_bucket_is_a_fault(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch):
    """Nothing listens on port 1."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    table = write(folder / "list.csv", {"uri": "s3://bucket/a.png"}, {"uri": "a.png"})
    with pytest.raises(SourceError, match=r"list\.csv: cannot look up s3://bucket/a\.png: .*127\.0\.0\.1:1"):
        dn2.ingest(table, store)
    assert store.names("manifests") == []


def test_reading_needs_no_table(folder: Path):
    table = write(folder / "list.csv", {"uri": "a.png"})
    table.unlink()
    assert reader_of(f"file://{table}").read(f"file://{folder}/a.png") == b"first"


def fault(uri: str, folder: Path) -> str:
    """The message of a fault of reading that may pass."""
    with pytest.raises(SourceError) as caught:
        reader_of(f"file://{folder}/list.csv").read(uri)
    assert not isinstance(caught.value, VanishedError)
    return str(caught.value)


def test_file_that_vanished_is_told_from_a_drive_that_did(folder: Path):
    (folder / "a.png").unlink()
    with pytest.raises(VanishedError, match=r"^vanished since it was listed$"):
        reader_of(f"file://{folder}/list.csv").read(f"file://{folder}/a.png")
    (folder / "sub" / "c.jpg").unlink()
    assert "its folder or bucket is empty or gone" in fault(f"file://{folder}/sub/c.jpg", folder)
    (folder / "sub").rmdir()
    assert "its folder or bucket is empty or gone" in fault(f"file://{folder}/sub/c.jpg", folder)
    assert "Is a directory" in fault(f"file://{folder}", folder)


HOSTILE = [
    "with space",
    "hash#tag",
    "percent%20",
    "quote'\"",
    "line\nbreak",
    "a::b",
    "q?versionId=x",
    "*[x]",
    "bäume-木",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_listed_and_read(form: str, name: str, tmp_path: Path, store: Store):
    touch(tmp_path / name, f"{name}.png", content=name.encode())
    group = name.replace("\n", " ")  # a group with a line break is a quote that was not closed
    table = write(tmp_path / name / f"{name}.{form}", {"uri": f"{name}.png", "group_id": group, "label": f"={group}"})
    found = dn2.ingest(table, store)
    assert known(store, found) == [(f"{name}.png", group, f"={group}")]
    (uri,) = live_uris(store, found)
    assert reader_of(found.source).read(uri) == name.encode()
