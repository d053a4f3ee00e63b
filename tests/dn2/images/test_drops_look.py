"""Looks at a real prefix, with what is remembered between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from dn2 import layout
from dn2.errors import NotFoundError, SchemaError, StoreError
from dn2.images.drops import look, mark_scored, remember
from dn2.records import Drop, Look, Report, SeenDrop
from dn2.store.files import locate
from dn2.store.storage import Store
from dn2.store.tables import producer
from tests.dn2.images.listing import touch


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """A prefix with two drops, of which one is marked."""
    touch(tmp_path / "inbox", "a/1.png", "a/READY", "b/1.png")
    return tmp_path / "inbox"


def seen(prefix: Path, store: Store, now: float, **settings: object) -> Look:
    """Look, and note what was seen."""
    found = look(prefix, store, bank="parts", now=now, **settings)
    remember(found, store)
    return found


def due(found: Look) -> list[str]:
    return [drop.uri.rpartition("/")[2] for drop in found.due]


def test_drops_that_stand_still_are_due_at_the_look_after_they_settled(inbox: Path, store: Store):
    assert due(seen(inbox, store, 0, settle_s=10)) == []
    touch(inbox, "b/2.png")
    assert due(seen(inbox, store, 9, settle_s=10)) == []
    assert due(seen(inbox, store, 11, settle_s=10)) == ["a"]
    assert due(seen(inbox, store, 19, settle_s=10)) == ["b"]
    assert due(seen(inbox, store, 20, settle_s=10)) == []


def test_marked_drop_is_due_at_once_and_again_until_it_is_scored(inbox: Path, store: Store):
    first = seen(inbox, store, 0, marker="READY", again_s=100)
    assert due(first) == ["a"]
    assert due(seen(inbox, store, 99, marker="READY", again_s=100)) == []
    assert due(seen(inbox, store, 100, marker="READY", again_s=100)) == ["a"]
    mark_scored(first.due[0].id, store, uri=first.due[0].uri, report=None)
    assert due(seen(inbox, store, 500, marker="READY", again_s=100)) == []
    touch(inbox, "a/late.png")
    assert due(seen(inbox, store, 501, marker="READY", again_s=100)) == ["a"]


def test_drop_that_holds_nothing_but_its_marker_is_never_due(inbox: Path, store: Store):
    touch(inbox, "empty/READY")
    found = seen(inbox, store, 0, marker="READY")
    assert [drop.uri.rpartition("/")[2] for drop in found.drops] == ["a", "b", "empty"]
    assert due(found) == ["a"]
    assert due(seen(inbox, store, 10_000, marker="READY")) == ["a"]


def test_whole_prefix_is_due_as_one_drop(inbox: Path, store: Store):
    seen(inbox, store, 0, unit="prefix", settle_s=1)
    (drop,) = seen(inbox, store, 1, unit="prefix", settle_s=1).due
    assert (drop.uri, drop.images) == (f"file://{inbox}", 2)


def test_look_tells_all_it_saw(inbox: Path, store: Store):
    touch(inbox, "loose.png")
    found = look(inbox, store, bank="parts", marker="READY", now=7.5)
    first, second = found.drops
    assert found.prefix == f"file://{inbox}"
    assert found.loose == 1
    assert found.due == (first,) == (Drop(first.id, f"file://{inbox}/a", "parts", 1, marked=True),)
    assert found.remembered == {first.uri: SeenDrop(first.id, 7.5, 7.5, times=1), second.uri: SeenDrop(second.id, 7.5)}


def test_look_that_dies_before_it_is_noted_is_repeated(inbox: Path, store: Store):
    """Whoever was told twice scores once; whoever was never told would never score."""
    first = look(inbox, store, bank="parts", marker="READY", now=0)
    assert store.names("") == []
    second = look(inbox, store, bank="parts", marker="READY", now=1)
    assert first.due == second.due != ()
    remember(second, store)
    assert look(inbox, store, bank="parts", marker="READY", now=2).due == ()


def test_process_that_is_killed_between_look_and_note_is_told_the_same_again(inbox: Path, store: Store):
    """SIGKILL: no handler runs."""
    code = """
import os, signal, sys
from dn2.images.drops import look
print(*(drop.id for drop in look(sys.argv[1], sys.argv[2], bank="parts", marker="READY").due), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", code, str(inbox), store.uri]
    told = [subprocess.run(command, capture_output=True, text=True, check=False).stdout.split() for _ in range(2)]
    assert told == [[drop.id for drop in look(inbox, store, bank="parts", marker="READY").due]] * 2


def test_hostile_names_are_remembered(tmp_path: Path, store: Store):
    names = ["two\nlines", "a|b", "<b>", os.fsdecode(b"\xff"), "ä木"]
    for name in names:
        touch(tmp_path / "inbox", f"{name}/{name}.png")
    first = seen(tmp_path / "inbox", store, 0, settle_s=1)
    again = seen(tmp_path / "inbox", store, 1, settle_s=1)
    assert sorted(due(again)) == sorted(["two\nlines", "a|b", "<b>", r"\xff", "ä木"])
    assert {state.since for state in again.remembered.values()} == {0}
    assert first.drops == again.drops


def test_banks_units_and_markers_are_remembered_apart(inbox: Path, store: Store):
    looks = [
        look(inbox, store, bank=bank, unit=unit, marker=marker, now=0)
        for bank, unit, marker in (
            ("parts", "folder", None),
            ("other", "folder", None),
            ("parts", "prefix", None),
            ("parts", "folder", "READY"),
        )
    ]
    for found in looks:
        remember(found, store)
    assert store.names("watches") == sorted(f"{found.watch}.json" for found in looks)
    assert len({found.watch for found in looks}) == 4


def test_prefix_written_otherwise_is_the_same(inbox: Path, store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(inbox.parent)
    seen(inbox, store, 0, settle_s=1)
    assert due(look("inbox/", store, bank="parts", now=1, settle_s=1)) == ["a", "b"]


def test_mark_names_the_report_by_its_place_in_the_store(store: Store):
    report = Report(store.uri_of("reports/parts/0123"), "parts", "v", "file:///in/a", 1, 1, 0, 0, 0, 1.0, "fixed", 0.1)
    for drop, told, place in (("0" * 32, report, "reports/parts/0123"), ("1" * 32, None, None)):
        mark_scored(drop, store, uri="file:///in/a", report=told)
        mark = json.loads(store.read(f"drops/{drop}.json"))
        assert mark.pop("producer") == producer()
        assert mark == {"schema": "dn2.drop", "schema_version": 1, "id": drop, "uri": "file:///in/a", "report": place}


@pytest.mark.parametrize(
    ("drops", "message"),
    [
        ([], r"got drops = \[\], expected an object"),
        ({"x": 5}, r"got x = 5, expected an object"),
        ({"x": None}, r"got x = None, expected an object"),
        ({"x": "id"}, r"got x = 'id', expected an object"),
        ({"x": {"id": "../x", "since": 1}}, r"id: got '../x', expected <identity>, such as 0123"),
        ({"x": {"since": 1}}, r"got id = .*: Field required"),
        ({"x": {"id": "1" * 32, "since": "then"}}, r"got since = 'then': Input should be a valid number"),
        ({"x": {"id": "1" * 32, "since": 1, "told": "then"}}, r"got told = 'then': Input should be a valid number"),
        (
            {"x": {"id": "1" * 32, "since": 1, "scored": "then"}},
            r"got scored = 'then': Input should be a valid boolean",
        ),
    ],
)
def test_damaged_memory_of_drops_is_named(inbox: Path, store: Store, drops: object, message: str):
    path = layout.watch(seen(inbox, store, 0).watch)
    document = json.loads(store.read(path))
    store.write(path, json.dumps({**document, "drops": drops}).encode())
    with pytest.raises(SchemaError, match=f"^{store.uri_of(path)}: {message}"):
        look(inbox, store, bank="parts")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got a damaged file, expected JSON"),
        (b'{"schema": "dn2.watch", "schema_ver', "got a damaged file, expected JSON"),
        (b"\xff", "got a damaged file, expected JSON"),
        (b"[]", r"got \[\], expected a JSON object"),
        (b'{"schema": "dn2.drop", "schema_version": 1}', "got schema dn2.drop version 1, expected dn2.watch version 1"),
        (b'{"schema": "dn2.watch", "schema_version": 2}', "got schema dn2.watch version 2, expected dn2.watch version"),
        (b'{"schema": "dn2.watch", "schema_version": 1}', "got dn2.watch without drops"),
    ],
)
def test_damaged_file_is_named(inbox: Path, store: Store, content: bytes, message: str):
    path = layout.watch(seen(inbox, store, 0).watch)
    store.write(path, content)
    with pytest.raises(SchemaError, match=f"^{store.uri_of(path)}: {message}"):
        look(inbox, store, bank="parts")


def test_missing_prefix_is_not_found_and_nothing_is_written(inbox: Path, store: Store):
    with pytest.raises(NotFoundError, match=f"source file://{inbox}x: nothing is there"):
        look(f"{inbox}x", store, bank="parts")
    assert store.names("") == []


def test_store_that_cannot_be_written_is_a_store_error(inbox: Path, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    found = look(inbox, tmp_path / "store", bank="parts", marker="READY")
    for write in (
        lambda: remember(found, tmp_path / "file" / "store"),
        lambda: mark_scored("0" * 32, tmp_path / "file" / "store", uri="x", report=None),
    ):
        with pytest.raises(StoreError, match=f"^store file://{tmp_path}/file/store: cannot write "):
            write()


@pytest.mark.s3
def test_prefix_and_store_in_a_bucket(s3_bucket: str):
    place = locate(f"{s3_bucket}/{uuid.uuid4().hex}")
    place.fs.pipe({f"{place.path}/inbox/{name}": b"" for name in ("a/1.png", "a/READY", "b/1.png")})
    inbox, store = f"{place.uri}/inbox", f"{place.uri}/store"
    for now, expected in ((0, ["a"]), (1, []), (100, ["a"])):
        found = look(inbox, store, bank="parts", marker="READY", again_s=100, now=now)
        assert due(found) == expected
        remember(found, store)
    mark_scored(found.due[0].id, store, uri=found.due[0].uri, report=None)
    assert due(look(inbox, store, bank="parts", marker="READY", again_s=100, now=200)) == []
