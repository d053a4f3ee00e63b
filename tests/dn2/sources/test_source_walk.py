from __future__ import annotations

import os
import uuid
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dn2
from dn2.errors import EmptySourceError, SourceError
from dn2.sources.folder import FolderSource
from dn2.store.files import locate
from dn2.store.storage import Store
from tests.dn2.images.listing import live_uris, names, touch


def listed(url: str | Path) -> tuple[list[str], int]:
    """Sorted paths below a source, and the number of files ignored."""
    source = FolderSource.open(url)
    found = sorted(file.uri.removeprefix(source.uri).removeprefix("/") for file in source.walk())
    return found, source.ignored


def test_folders_below_are_walked(tmp_path: Path):
    touch(tmp_path, "a.png", "b/c.png", "b/d/e.jpg", "f/g/h/i.jpeg")
    assert listed(tmp_path) == (["a.png", "b/c.png", "b/d/e.jpg", "f/g/h/i.jpeg"], 0)


def test_suffixes_count_in_any_case(tmp_path: Path):
    names = ["a.PNG", "b.Jpg", "c.JPEG", "d.png", "e.webp", "f.TIF", "g.tiff", "h.bmp", "i.gif"]
    touch(tmp_path, *names)
    assert listed(tmp_path) == (names, 0)


def test_other_and_hidden_files_are_counted_hidden_folders_skipped(tmp_path: Path):
    touch(tmp_path, "a.png", "notes.txt", "png", "x.png.part", ".hidden.png", "Thumbs.db", ".git/b.png", "c/.d/e.png")
    assert listed(tmp_path) == (["a.png"], 5)


def test_folder_called_like_an_image_is_walked(tmp_path: Path):
    touch(tmp_path, "a.png/b.png")
    assert listed(tmp_path) == (["a.png/b.png"], 0)


def test_source_below_a_hidden_folder_is_listed(tmp_path: Path):
    touch(tmp_path / ".hidden", "a.png")
    assert listed(tmp_path / ".hidden") == (["a.png"], 0)


def test_single_file_is_a_source(tmp_path: Path):
    touch(tmp_path, "a.png", "b.png", content=b"x")
    found = dn2.ingest(tmp_path / "a.png", tmp_path / "store")
    assert found.images == 1
    assert live_uris(Store.open(tmp_path / "store"), found) == [f"file://{tmp_path}/a.png"]
    assert FolderSource.open(tmp_path / "a.png").read(f"file://{tmp_path}/a.png") == b"x"


def test_single_file_that_is_no_image_is_refused(tmp_path: Path):
    touch(tmp_path, "a.txt")
    with pytest.raises(EmptySourceError, match=r"a\.txt: got no image \(1 other files\)"):
        dn2.ingest(tmp_path / "a.txt", tmp_path / "store")


def test_link_loops_end(tmp_path: Path):
    touch(tmp_path / "source", "a.png", "b/c.png")
    (tmp_path / "source" / "b" / "up").symlink_to(tmp_path / "source")
    (tmp_path / "source" / "here").symlink_to(".")
    (tmp_path / "source" / "self.png").symlink_to("self.png")
    assert listed(tmp_path / "source") == (["a.png", "b/c.png"], 1)


def test_dangling_links_are_ignored(tmp_path: Path):
    touch(tmp_path / "source", "a.png")
    (tmp_path / "source" / "b.png").symlink_to(tmp_path / "nothing")
    assert listed(tmp_path / "source") == (["a.png"], 1)


def test_linked_files_and_folders_are_images_of_the_source(tmp_path: Path):
    touch(tmp_path, "elsewhere/x.png", "other.png")
    touch(tmp_path / "source", "a.png")
    (tmp_path / "source" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source" / "link.png").symlink_to(tmp_path / "other.png")
    assert listed(tmp_path / "source") == (["a.png", "folder/x.png", "link.png"], 0)


@pytest.mark.parametrize("made_first", ["real", "link"])
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_folder_that_is_linked_too_keeps_its_own_name(tmp_path: Path, names: tuple[str, str], made_first: str):
    """Which name an image gets must not depend on the order in which the disk lists its folders."""
    real, link = names
    source = tmp_path / "source"
    source.mkdir()
    if made_first == "link":
        (source / link).symlink_to(real)
    touch(source, f"{real}/x.png")
    if made_first == "real":
        (source / link).symlink_to(real)
    assert listed(source) == ([f"{real}/x.png"], 0)


def test_pipes_are_not_images(tmp_path: Path):
    """Reading one would wait for ever."""
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert listed(tmp_path) == (["a.png"], 1)


HOSTILE = [
    "with space.png",
    "hash#tag.png",
    "percent%20.png",
    "quote'\".png",
    "line\nbreak.png",
    "<script>alert(1)<",
    "a::b.png",
    "question?versionId=x.png",
    "star*[x].png",
    "back\\slash.png",
    "bäume-木-🌲.png",
    "e\u0301.png",
    "$HOME`id`.png",
    "-rf.png",
    "~.png",
    "file:",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_listed_and_read(name: str, tmp_path: Path):
    """As the name of a file, of a folder below and of the source itself."""
    source = tmp_path / name / "s" / name
    touch(source, f"{name}.png", f"{name}/b.png", content=name.encode())
    store = Store.open(tmp_path / "store")
    found = dn2.ingest(source, store)
    uris = live_uris(store, found)
    assert names(found, uris) == sorted([f"{name}.png", f"{name}/b.png"])
    assert [FolderSource.open(found.source).read(uri) for uri in uris] == [name.encode()] * 2
    assert dn2.ingest(found.source, store).parts == found.parts


def test_name_that_is_not_utf8_is_listed_readably(tmp_path: Path):
    touch(tmp_path, "a.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.png")).write_bytes(b"")
    store = Store.open(tmp_path / "store")
    found = dn2.ingest(tmp_path, store)
    assert names(found, live_uris(store, found)) == ["a.png", "b\\xff.png"]


@settings(deadline=None)
@given(
    given_names=st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
        .filter(lambda name: not name.startswith("."))
        .map(lambda name: f"{name}.png"),
        unique=True,
        min_size=1,
        max_size=5,
    )
)
def test_any_names_give_one_row_each(given_names: list[str], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("any")
    touch(folder, *given_names, content=b"x")
    store = Store.open(folder / "store")
    found = dn2.ingest(folder, store)
    uris = live_uris(store, found)
    assert sorted(given_names, key=str.encode) == sorted(names(found, uris), key=str.encode)
    assert {FolderSource.open(folder).read(uri) for uri in uris} == {b"x"}


def test_folder_that_cannot_be_listed_is_a_source_error(tmp_path: Path):
    """Its images would be taken for vanished."""
    (tmp_path / "source").mkdir()
    source = FolderSource.open(tmp_path / "source")
    (tmp_path / "source").rmdir()
    with pytest.raises(SourceError, match=f"source {source.uri}: vanished while it was listed"):
        list(source.walk())


def test_memory_source_is_listed_and_read():
    root = f"memory://{uuid.uuid4().hex}"
    locate(root).fs.pipe({f"{root}/a.png": b"a", f"{root}/sub/b.JPG": b"b", f"{root}/.h/c.png": b"", f"{root}/d": b""})
    assert listed(root) == (["a.png", "sub/b.JPG"], 2)
    assert FolderSource.open(root).read(f"{root}/sub/b.JPG") == b"b"
    assert listed(f"{root}/a.png") == ([""], 0)


def test_changed_file_of_a_memory_source_is_seen(tmp_path: Path):
    root = f"memory://{uuid.uuid4().hex}"
    for content in (b"a", b"b"):
        locate(root).fs.pipe(f"{root}/a.png", content)
        found = dn2.ingest(root, tmp_path / "store")
    assert found.changed == 1


def test_archive_behind_a_chain_of_protocols_is_a_source(tmp_path: Path):
    """The whole chain is the source's URI, so that another process finds the files again."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("p/a.png", b"a")
        archive.writestr("p/sub/b.png", b"b")
        archive.writestr("q/c.png", b"c")
    url = f"zip://p::file://{tmp_path}/a.zip"
    store = Store.open(tmp_path / "store")
    found = dn2.ingest(url, store)
    assert found.source == url
    uris = live_uris(store, found)
    assert names(found, uris) == ["a.png", "sub/b.png"]
    assert [FolderSource.open(found.source).read(uri) for uri in uris] == [b"a", b"b"]
