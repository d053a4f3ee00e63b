"""Which drops lie below a prefix, and what each of them is called."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from dn2.errors import NotFoundError, SourceError
from dn2.images.drops import Unit, find_drops
from dn2.progress import Advance, listening
from dn2.records import Drop
from dn2.sources.folder import FolderSource
from dn2.store.files import locate
from tests.dn2.images.listing import touch

HOSTILE = ["two\nlines", "a|b", "<b>bold", "{{ x }}", "100%", "ä木", "a b", "'\"", "a#b?c"]


def only(prefix: str | Path, *, unit: Unit = "folder", marker: str | None = None, bank: str = "default") -> Drop:
    """The one drop below a prefix."""
    (drop,), _ = find_drops(prefix, unit=unit, marker=marker, bank=bank)
    return drop


def described(drops: tuple[Drop, ...]) -> list[tuple[str, int, bool]]:
    """Name, images and mark of each drop."""
    return [(drop.uri.rpartition("/")[2], drop.images, drop.marked) for drop in drops]


def test_each_folder_is_a_drop_with_all_images_below_it(tmp_path: Path):
    touch(tmp_path, "b/1.png", "a/1.png", "a/deep/2.JPG", "a/deep/er/3.jpeg", "a/notes.txt", "a/.hidden.png")
    drops, loose = find_drops(tmp_path)
    assert described(drops) == [("a", 3, False), ("b", 1, False)]
    assert [drop.uri for drop in drops] == [f"file://{tmp_path}/a", f"file://{tmp_path}/b"]
    assert loose == 0


def test_whole_prefix_is_one_drop(tmp_path: Path):
    touch(tmp_path, "1.png", "a/2.png", "a/b/3.png", "n.txt")
    drops, loose = find_drops(tmp_path, unit="prefix")
    assert [(drop.uri, drop.images, drop.marked) for drop in drops] == [(f"file://{tmp_path}", 3, False)]
    assert loose == 0


def test_images_beside_the_folders_are_counted_and_in_no_drop(tmp_path: Path):
    touch(tmp_path, "1.png", "2.jpg", "n.txt", "READY", "a/3.png")
    drops, loose = find_drops(tmp_path, marker="READY")
    assert described(drops) == [("a", 1, False)]
    assert loose == 2


def test_prefix_without_anything_has_no_drop_in_folders_and_an_empty_one_as_a_whole(tmp_path: Path):
    (tmp_path / "a").mkdir()
    assert find_drops(tmp_path) == ((), 0)
    drops, _ = find_drops(tmp_path, unit="prefix")
    assert [(drop.uri, drop.images) for drop in drops] == [(f"file://{tmp_path}", 0)]


def test_drop_names_its_bank(tmp_path: Path):
    touch(tmp_path, "a/1.png")
    assert only(tmp_path, bank="parts").bank == "parts"


@pytest.mark.parametrize("marker", ["READY", ".ready", "ready.jpg", "done.PNG", "two\nlines", "<b>|"])
def test_marker_counts_directly_in_the_drop_only(tmp_path: Path, marker: str):
    touch(tmp_path, marker, "a/1.png", f"a/{marker}", "b/1.png", f"b/deep/{marker}", f"c/{marker}", f"d/{marker}x")
    drops, loose = find_drops(tmp_path, marker=marker)
    assert described(drops) == [("a", 1, True), ("b", 1, False), ("c", 0, True)]
    assert loose == 0


@pytest.mark.parametrize("marker", ["READY", ".ready", "ready.jpg"])
def test_marker_of_a_whole_prefix_lies_in_the_prefix(tmp_path: Path, marker: str):
    touch(tmp_path, "a/1.png", f"a/{marker}")
    inside = only(tmp_path, unit="prefix", marker=marker)
    assert (inside.images, inside.marked) == (1, False)
    touch(tmp_path, marker)
    assert only(tmp_path, unit="prefix", marker=marker) == replace(inside, marked=True)


def test_file_named_like_a_marker_is_an_image_where_there_is_no_marker(tmp_path: Path):
    touch(tmp_path, "a/1.png", "a/ready.jpg", "a/READY")
    assert described(find_drops(tmp_path)[0]) == [("a", 2, False)]


def test_marker_in_a_hidden_folder_makes_no_drop(tmp_path: Path):
    touch(tmp_path, ".trash/READY", ".trash/1.png", "a/READY")
    assert described(find_drops(tmp_path, marker="READY")[0]) == [("a", 0, True)]


@pytest.mark.parametrize("marker", ["READY", ".ready", "ready.jpg"])
@pytest.mark.parametrize("unit", ["folder", "prefix"])
def test_marker_is_no_part_of_the_identity(tmp_path: Path, marker: str, unit: Unit):
    touch(tmp_path, "a/1.png")
    before = only(tmp_path, unit=unit, marker=marker)
    touch(tmp_path, f"a/{marker}", f"a/deep/{marker}", marker)
    assert only(tmp_path, unit=unit, marker=marker) == replace(before, marked=True)


def test_same_files_give_the_same_identity(tmp_path: Path):
    touch(tmp_path, "a/1.png", "a/2.png")
    assert only(tmp_path) == only(f"{tmp_path}/") == only(f"file://{tmp_path}")


def test_identity_changes_with_every_change_of_a_file_and_comes_back_with_it(tmp_path: Path):
    touch(tmp_path, "a/1.png", "a/2.png")
    first = only(tmp_path).id
    touch(tmp_path, "a/3.png")
    more = only(tmp_path).id
    (tmp_path / "a/3.png").rename(tmp_path / "a/4.png")
    renamed = only(tmp_path).id
    (tmp_path / "a/4.png").unlink()
    assert only(tmp_path).id == first
    then = (tmp_path / "a/2.png").stat().st_mtime_ns
    touch(tmp_path, "a/2.png", content=b"longer")
    os.utime(tmp_path / "a/2.png", ns=(then, then))
    longer = only(tmp_path).id
    touch(tmp_path, "a/2.png")
    os.utime(tmp_path / "a/2.png", ns=(then + 1, then + 1))
    later = only(tmp_path).id
    (tmp_path / "a/2.png").unlink()
    fewer = only(tmp_path).id
    assert len({first, more, renamed, longer, later, fewer}) == 6


def test_identity_tells_banks_and_places_apart(tmp_path: Path):
    touch(tmp_path, "x/a/1.png")
    ids = [only(tmp_path / "x").id, only(tmp_path / "x", bank="other").id, only(tmp_path).id]
    (tmp_path / "x/a").rename(tmp_path / "x/b")
    assert len({*ids, only(tmp_path / "x").id}) == 4


def test_other_files_and_other_drops_do_not_change_an_identity(tmp_path: Path):
    touch(tmp_path, "a/1.png")
    before = only(tmp_path)
    touch(tmp_path, "a/notes.txt", "a/.part.png", "b/1.png", "loose.png")
    assert before in find_drops(tmp_path)[0]


def test_order_of_the_listing_does_not_change_an_identity():
    """A file system in memory lists its files in the order in which they came."""
    place = locate(f"memory://{uuid.uuid4().hex}")
    for name in ("a/1.png", "a/2.png", "a/3.png"):
        place.fs.pipe_file(f"{place.path}/{name}", b"")
    before, listed = only(place.uri), [file.uri for file in FolderSource.open(place.uri).walk()]
    place.fs.store[f"{place.path}/a/1.png"] = place.fs.store.pop(f"{place.path}/a/1.png")  # goes to the end
    assert [file.uri for file in FolderSource.open(place.uri).walk()] == [*listed[1:], listed[0]]
    assert only(place.uri) == before


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_of_drops_and_images_are_kept_as_they_are(tmp_path: Path, name: str):
    touch(tmp_path, f"{name}/{name}.png")
    before = only(tmp_path)
    assert (before.uri, before.images) == (f"file://{tmp_path}/{name}", 1)
    touch(tmp_path, f"{name}/{name}.png", content=b"changed")
    assert only(tmp_path).id != before.id


def test_names_that_are_not_utf8_are_written_with_their_bytes(tmp_path: Path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/drop\xff")
    touch(Path(folder), os.fsdecode(b"\xfe.png"), "b.png")
    assert (only(tmp_path).uri, only(tmp_path).images) == (rf"file://{tmp_path}/drop\xff", 2)


def test_every_file_is_a_step_forward(tmp_path: Path):
    touch(tmp_path, "a/1.png", "a/2.png", "READY", "loose.png", "n.txt")
    steps: list[Advance] = []
    with listening(steps.append):
        find_drops(tmp_path, marker="READY")
    assert steps == [Advance("watch", 1)] * 4


def test_missing_prefix_is_not_found(tmp_path: Path):
    with pytest.raises(NotFoundError, match=f"source file://{tmp_path}/none: nothing is there"):
        find_drops(tmp_path / "none")


@pytest.fixture
def prefix(s3_bucket: str) -> str:
    return f"{s3_bucket}/{uuid.uuid4().hex}"


def put(url: str, *names: str, content: bytes = b"") -> None:
    place = locate(url)
    place.fs.pipe({f"{place.path}/{name}": content for name in names})


@pytest.mark.s3
def test_drops_in_a_bucket(prefix: str):
    put(prefix, "a/1.png", "a/deep/2.png", "a/.ready", "b/1.png", "b/deep/.ready", "loose.png", ".ready", "c/.ready")
    put(prefix, ".trash/1.png", ".trash/.ready", *(f"d|<b>\n/{name}" for name in ("1.png", ".ready")))
    drops, loose = find_drops(prefix, marker=".ready", bank="parts")
    assert described(drops) == [("a", 2, True), ("b", 1, False), ("c", 0, True), ("d|<b>\n", 1, True)]
    assert [drop.uri for drop in drops[:2]] == [f"{prefix}/a", f"{prefix}/b"]
    assert loose == 1


@pytest.mark.s3
def test_identity_in_a_bucket_changes_with_the_content(prefix: str):
    put(prefix, "a/1.png", content=b"one")
    before = only(prefix)
    put(prefix, "a/1.png", content=b"two")
    assert only(prefix).id != before.id
    put(prefix, "a/1.png", content=b"one")
    assert only(prefix) == before


@pytest.mark.s3
def test_missing_prefix_in_a_bucket_is_not_found(prefix: str):
    put(f"{prefix}/there", "a.png")
    for url in (f"{prefix}/none", f"{prefix}/the", "s3://no-such-bucket/x"):
        with pytest.raises(NotFoundError, match=f"source {url}: nothing is there"):
            find_drops(url)


@pytest.mark.s3
def test_bucket_that_refuses_is_a_source_error(prefix: str, monkeypatch: pytest.MonkeyPatch):
    put(prefix, "a/1.png")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(SourceError, match=f"source {prefix}: cannot be reached"):
        find_drops(prefix)
