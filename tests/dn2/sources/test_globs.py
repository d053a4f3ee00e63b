"""Globs: what they fit, told by an oracle; and globs as sources."""

from __future__ import annotations

import fnmatch
import os
import uuid
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dn2
from dn2.errors import ConfigError, EmptySourceError, NotFoundError, SourceError
from dn2.sources.globs import Glob, escaped, joined_glob, root_of, split_glob
from dn2.sources.opening import open_source, reader_of
from dn2.sources.source import VanishedError
from dn2.store.files import locate
from dn2.store.storage import Store
from tests.dn2.images.listing import live_uris, part_rows, touch


def listed(url: str | Path) -> tuple[list[str], int]:
    """Sorted paths of the images below the root of a glob, and how many files were ignored."""
    source = open_source(url)
    found = sorted(file.uri.removeprefix(root_of(source.uri)).strip("/") for file in source.walk())
    return found, source.ignored


@pytest.mark.parametrize(
    ("uri", "cut"),
    [
        ("file:///photos/2026-*/**/*.png", ("file:///photos", "2026-*/**/*.png")),
        ("file:///*.png", ("file:///", "*.png")),
        ("file:///photos/a.png", None),
        ("file:///a[1/b.png", None),
        ("file:///a]1[/b.png", None),
        ("file:///a[1]/b.png", ("file:///", "a[1]/b.png")),
        ("s3://bucket/line-?/[ab]*", ("s3://bucket", "line-?/[ab]*")),
        ("s3://bucket/p/**", ("s3://bucket/p", "**")),
        ("s3://b?cket/x", ("s3://", "b?cket/x")),
        ("memory://*.png", ("memory://", "*.png")),
        ("zip://p/*.png::file:///x/a.zip", ("zip://p::file:///x/a.zip", "*.png")),
        ("zip://*.png::file:///x/a.zip", ("zip://::file:///x/a.zip", "*.png")),
        ("zip://p::file:///x/*.zip", None),
        ("simplecache::s3://bucket/*.png", ("simplecache::s3://bucket", "*.png")),
    ],
)
def test_root_ends_in_front_of_the_first_name_with_a_magic_character(uri: str, cut: tuple[str, str] | None):
    assert split_glob(uri) == cut
    assert root_of(uri) == (uri if cut is None else cut[0])
    assert cut is None or joined_glob(*cut) == uri


@pytest.mark.parametrize(
    ("glob", "path", "fits"),
    [
        ("*.png", "a.png", True),
        ("*.png", "a/b.png", False),
        ("*.png", "a.PNG", False),
        ("*/*.png", "a/b.png", True),
        ("*/*.png", "b.png", False),
        ("?.png", "ab.png", False),
        ("[ab]?.png", "b1.png", True),
        ("[!ab]*", "b1.png", False),
        ("[a-c]/[0-9]*", "b/1/x", False),
        ("**/*.png", "a.png", True),
        ("**/*.png", "a/b/c.png", True),
        ("a/**/b/*.png", "a/b/x.png", True),
        ("a/**/b/*.png", "a/x/b/b/x.png", True),
        ("a/**/b/*.png", "a/x.png", False),
        ("a/**", "a/b/c.png", True),
        ("a/**", "b/a/c.png", False),
        ("**", "a/b/c", True),
        ("2026-**.png", "2026-x.png", True),
        ("2026-**.png", "2026-x/y.png", False),
        ("a//*.png", "a/b.png", True),
        ("[[]x]*", "[x].png", True),
        ("*", "line\nbreak", True),
    ],
)
def test_what_fits(glob: str, path: str, fits: bool):
    assert Glob(glob).takes(path) == fits


def obvious(parts: list[str], names: list[str]) -> bool:
    """Try everything."""
    if not parts or not names:
        return not parts and not names
    if parts[0] == "**":
        return len(parts) == 1 or obvious(parts[1:], names) or obvious(parts, names[1:])
    return fnmatch.fnmatchcase(names[0], parts[0]) and obvious(parts[1:], names[1:])


PARTS = st.lists(st.sampled_from(["*", "**", "a", "b", "?", "[ab]", "a*", "*b"]), min_size=1, max_size=6)
NAMES = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=6)


@settings(deadline=None)
@given(PARTS, NAMES)
def test_matching_is_that_of_trying_everything(parts: list[str], names: list[str]):
    glob = Glob("/".join(parts))
    path = "/".join(names)
    assert glob.takes(path) == obvious(parts, names)
    if glob.takes(path):
        assert path.startswith(glob.beginning)
        assert all(glob.enters("/".join(names[:depth])) for depth in range(1, len(names)))


def test_folders_below_which_nothing_fits_are_not_entered():
    assert not Glob("2026-*/x.png").enters("2025-01")
    assert not Glob("2026-*/x.png").enters("2026-01/sub")
    assert Glob("2026-*/**/x.png").enters("2026-01/sub/sub")


def test_hostile_glob_ends():
    """With backtracking it would outlast the universe."""
    assert not Glob("**/a*/" * 100 + "b").takes("a/" * 200 + "c")
    with pytest.raises(ConfigError, match=r"glob 'xxx.*: got 1001 characters, expected at most 1000"):
        Glob("x" * 1001)


@pytest.mark.parametrize("text", ["a[1]", "*?", "[", "a]b", "bucket/[x]/y"])
def test_escaped_text_fits_itself_alone(text: str):
    assert Glob(escaped(text)).takes(text)
    assert not Glob(escaped(text)).takes(text + "x")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    touch(
        tmp_path / "photos",
        *("2026-01/a.png", "2026-01/deep/er/b.png", "2026-02/c.jpg", "2026-02/notes.txt", "2025-12/d.png", "2026.png"),
        *("2026-01/.hidden.png", "2026-01/.h/x.png"),
        content=b"x",
    )
    return tmp_path / "photos"


def test_only_what_fits_is_listed_and_only_what_fits_is_counted(photos: Path):
    assert listed(f"{photos}/2026-*/**/*.png") == (["2026-01/a.png", "2026-01/deep/er/b.png"], 1)
    assert listed(f"{photos}/2026-*/*") == (["2026-01/a.png", "2026-02/c.jpg"], 2)
    assert listed(f"{photos}/202[!6]-*/*") == (["2025-12/d.png"], 0)
    assert listed(f"{photos}/*.png") == (["2026.png"], 0)
    assert listed(f"{photos}/**") == (listed(f"{photos}/**/*.*g")[0], 2)


def test_unreadable_folder_that_cannot_hold_what_fits_is_not_looked_into(photos: Path):
    """A folder that is removed while it would be listed is a fault: here none arises."""
    (photos / "2025-12" / "loop").symlink_to(photos / "2025-12")
    (photos / "2026-03").symlink_to(photos / "2025-12")
    assert listed(f"{photos}/2026-0[13]/*.png") == (["2026-01/a.png", "2026-03/d.png"], 1)


def test_source_is_named_by_root_and_glob_and_is_the_same_dataset_again(photos: Path, tmp_path: Path):
    store = Store.open(tmp_path / "store")
    found = dn2.ingest(f"{photos}/2026-*/**/*.png", store)
    assert found.source == f"file://{photos}/2026-*/**/*.png"
    assert found.name.startswith("photos-2026-png-")
    assert live_uris(store, found) == [f"file://{photos}/2026-01/a.png", f"file://{photos}/2026-01/deep/er/b.png"]
    assert dn2.ingest(found.source, store).parts == found.parts
    assert reader_of(found.source).read(live_uris(store, found)[0], "") == b"x"
    touch(photos, "2026-04/new.png")
    assert dn2.ingest(found.source, store).added == 1
    named = dn2.ingest(f"{photos}/*.png", store, dataset="mine")
    assert (named.name, named.images) == ("mine", 1)


def test_images_have_the_ids_that_they_have_in_a_folder(photos: Path, tmp_path: Path):
    store = Store.open(tmp_path / "store")
    assert part_rows(store, dn2.ingest(f"{photos}/**", store)) == part_rows(store, dn2.ingest(photos, store))


def test_path_that_exists_is_taken_as_it_is_written(tmp_path: Path):
    touch(tmp_path, "a[1]/x.png", "a1/y.png", "z*.png", "zz.png")
    assert [file.uri for file in open_source(tmp_path / "a[1]").walk()] == [f"file://{tmp_path}/a[1]/x.png"]
    assert [file.uri for file in open_source(tmp_path / "z*.png").walk()] == [f"file://{tmp_path}/z*.png"]
    assert reader_of(f"file://{tmp_path}/a[1]").read(f"file://{tmp_path}/a[1]/x.png", "") == b""
    assert listed(tmp_path / "a[1]*" / "*") == (["a1/y.png"], 0)


def test_relative_glob_begins_in_the_working_directory(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(photos.parent)
    assert open_source("photos/*.png").uri == f"file://{photos}/*.png"
    assert open_source("*/*.png").uri == f"file://{photos.parent}/*/*.png"


def test_missing_root_is_not_found(tmp_path: Path):
    with pytest.raises(NotFoundError, match=rf"file://{tmp_path}/none: nothing is there: .* to look for '\*.png'"):
        dn2.ingest(f"{tmp_path}/none/*.png", tmp_path / "store")
    touch(tmp_path, "file")
    with pytest.raises(NotFoundError, match="nothing is there"):
        open_source(f"{tmp_path}/file/x/*.png")


def test_glob_that_fits_no_image_is_an_error_that_names_it(photos: Path, tmp_path: Path):
    with pytest.raises(EmptySourceError) as caught:
        dn2.ingest(f"{photos}/2026-*", tmp_path / "store")
    assert str(caught.value).startswith(f"source file://{photos}/2026-*: got no image (0 other files), expected files ")
    assert str(caught.value).endswith(
        f"whose whole path below file://{photos} fits '2026-*'; ** stands for any number of folders"
    )
    with pytest.raises(EmptySourceError, match=r"got no image \(1 other files\)"):
        dn2.ingest(f"{photos}/**/*.txt", tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://b?cket/x/*.png", "URL 's3://': got no bucket"),
        ("s3://[ab]/x", r"URL 's3://\[ab\]/x' cannot be opened"),
        ("nope://x/*.png", "URL 'nope://x/\\*.png' cannot be opened"),
        ("{folder}/*.csv", r"\*\.csv: got a glob of tables, expected one table, or a glob of images, of .tar files"),
        ("{folder}/*.tar.gz", r"\*\.tar\.gz: got a compressed tar, expected a plain one, whose images"),
    ],
)
def test_glob_that_cannot_work(url: str, message: str, photos: Path):
    with pytest.raises(ConfigError, match=message):
        open_source(url.format(folder=photos))


def test_glob_has_no_splits(photos: Path):
    with pytest.raises(ConfigError, match=r"got split 'test', expected a table .*: only tables have splits"):
        open_source(f"{photos}/*.png", split="test")


def test_pattern_is_compared_with_the_path_below_the_root(photos: Path, tmp_path: Path):
    found = dn2.ingest(f"{photos}/2026-*/**", tmp_path / "store", pattern="{group_id}/**")
    assert (found.images, found.ungrouped) == (3, 0)
    with pytest.raises(ConfigError, match="fits no image there, expected one that fits paths such as '2026-0"):
        dn2.ingest(f"{photos}/2026-*/**", tmp_path / "store", pattern="photos/{group_id}/*")


def test_store_below_the_root_is_passed_over(photos: Path):
    touch(photos, "store/reports/x.png")
    source = open_source(f"{photos}/**")
    assert len(list(source.walk())) == 6
    assert len(list(source.walk(without=f"file://{photos}/store"))) == 5


def test_pipes_and_dangling_links_that_fit_are_counted(photos: Path):
    os.mkfifo(photos / "2026-01" / "p.png")
    (photos / "2026-01" / "q.png").symlink_to("nothing")
    os.mkfifo(photos / "2025-12" / "p.png")
    assert listed(f"{photos}/2026-01/*.png") == (["a.png"], 3)


def test_vanished_file_is_told_from_a_vanished_root(photos: Path, tmp_path: Path):
    source = open_source(f"{photos}/2026-*/*.png")
    (file,) = source.walk()
    (photos / "2026-01" / "a.png").unlink()
    with pytest.raises(VanishedError, match="vanished since it was listed"):
        source.read(file.uri, file.version)
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=f"source file://{photos}: is empty or gone while it is read"):
        source.read(file.uri, file.version)


def test_glob_in_memory(tmp_path: Path):
    root = f"memory://{uuid.uuid4().hex}"
    locate(root).fs.pipe({f"{root}/{name}": b"x" for name in ("a1.png", "a2/b.png", "a2/c/d.png", "b1.png", "a3.txt")})
    assert listed(f"{root}/a?*") == (["a1.png"], 1)
    assert listed(f"{root}/a*/**/*.png") == (["a2/b.png", "a2/c/d.png"], 0)
    assert dn2.ingest(f"{root}/**", tmp_path / "store").images == 4


def test_glob_in_an_archive(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("p/a.png", "p/sub/b.png", "q/c.png"):
            archive.writestr(name, name)
    source = open_source(f"zip://p/**::file://{tmp_path}/a.zip")
    assert source.uri == f"zip://p/**::file://{tmp_path}/a.zip"
    assert [reader_of(source.uri).read(file.uri, file.version) for file in source.walk()] == [
        b"p/a.png",
        b"p/sub/b.png",
    ]


@pytest.mark.s3
def test_glob_in_a_bucket_asks_only_for_names_that_may_fit(s3_bucket: str, monkeypatch: pytest.MonkeyPatch):
    root = f"{s3_bucket}/{uuid.uuid4().hex}"
    place = locate(root)
    names = ("line-1/a1.png", "line-2/b1.JPG", "line-2/c1.png", "line-2/a/x.png", "line-22/a.png", "other/a.png")
    place.fs.pipe({f"{place.path}/{name}": b"x" for name in (*names, "line-1/a.txt", "line-1/[ab]*")})
    asked: list[str] = []
    real = type(place.fs).call_s3

    def call(fs: object, method: str, **request: str) -> object:
        asked.append(request.get("Prefix", ""))
        return real(fs, method, **request)

    monkeypatch.setattr(type(place.fs), "call_s3", call)
    assert listed(f"{root}/line-?/[ab]*") == (["line-1/a1.png", "line-2/b1.JPG"], 1)
    assert asked == [f"{place.path.partition('/')[2]}/line-"]
