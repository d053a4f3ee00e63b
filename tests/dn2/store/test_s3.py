"""A real S3 server: source and store in a bucket."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import dn2
from dn2.errors import NotFoundError, SourceError
from dn2.sources.folder import FolderSource
from dn2.sources.source import VanishedError
from dn2.store.cache import cache_dir
from dn2.store.files import locate
from dn2.store.schemas import REPORT
from dn2.store.storage import Store
from dn2.store.tables import read_table

pytestmark = pytest.mark.s3


@pytest.fixture(autouse=True)
def parts_without_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """This server sends the whole file's checksum with every part of it, unlike S3 itself."""
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")


@pytest.fixture
def prefix(s3_bucket: str) -> str:
    """URL of an unused place in the bucket."""
    return f"{s3_bucket}/{uuid.uuid4().hex}"


def put(url: str, files: dict[str, bytes]) -> None:
    """Upload files below a URL, many at once."""
    place = locate(url)
    place.fs.pipe({f"{place.path}/{name}": content for name, content in files.items()})


def remove(url: str) -> None:
    place = locate(url)
    place.fs.rm_file(place.path)


def copies() -> set[Path]:
    """Bank files in this machine's cache."""
    folder = cache_dir() / "banks"
    return {path for path in folder.rglob("*") if path.is_file()} if folder.exists() else set()


def scores(source: str | Path, store: str | Path) -> tuple[dn2.Report, dict[str, tuple[float, list[str]]]]:
    """Train on a source and score it; the score and nearest neighbours of each image by its file's name."""
    bank = dn2.fit(dn2.embed(dn2.ingest(source, store), store), store, bank="parts")
    report = dn2.score(
        dn2.embed(dn2.ingest(source, store), store, bank=bank), store, bank=dn2.open_bank(store, "parts")
    )
    opened = Store.open(store)
    rows = read_table(opened, report.uri.removeprefix(f"{opened.uri}/") + "/part-00000.parquet", REPORT).to_pylist()
    names = [[uri.rpartition("/")[2] for uri in (row["uri"], *row["neighbor_uris"])] for row in rows]
    return report, {name[0]: (row["score"], name[1:]) for name, row in zip(names, rows, strict=True)}


def test_source_and_store_in_a_bucket_give_the_scores_of_local_folders(prefix: str, pictures: Path, tmp_path: Path):
    put(f"{prefix}/source", {path.name: path.read_bytes() for path in pictures.iterdir()})
    before = copies()
    remote, there = scores(f"{prefix}/source", f"{prefix}/store")
    fetched = copies() - before
    local, here = scores(pictures, tmp_path / "store")
    assert remote.uri.startswith(f"{prefix}/store/reports/parts/")
    assert (
        (remote.images, remote.scored, remote.rejected) == (local.images, local.scored, local.rejected) == (12, 12, 0)
    )
    assert {name: neighbors for name, (_, neighbors) in here.items()} == {
        name: neighbors for name, (_, neighbors) in there.items()
    }
    assert [here[name][0] for name in sorted(here)] == pytest.approx([there[name][0] for name in sorted(there)], 1e-5)
    assert [path.suffix for path in fetched] == [".npy"]
    for name in ("report.html", "summary.json"):
        assert Store.open(remote.uri).exists(name)


@pytest.fixture(scope="module")
def many(s3_bucket: str) -> Iterator[str]:
    """URL of a prefix with 1,005 images: more than a page of a listing holds."""
    url = f"{s3_bucket}/{uuid.uuid4().hex}"
    put(url, {f"{number:04d}.png": b"x" for number in range(1005)})
    yield url
    place = locate(url)
    place.fs.rm(place.path, recursive=True)


def test_listing_longer_than_a_page_is_whole(many: str, tmp_path: Path):
    assert sorted(file.uri for file in FolderSource.open(many).walk()) == [f"{many}/{n:04d}.png" for n in range(1005)]
    found = dn2.ingest(many, tmp_path / "store")
    assert (found.images, found.added) == (1005, 1005)
    assert len(Store.open(many).names("")) == 1005


def test_changes_are_seen_by_content(prefix: str, tmp_path: Path):
    put(prefix, {"a.png": b"1", "b.png": b"1", "c.png": b"1"})
    dn2.ingest(prefix, tmp_path)
    put(prefix, {"a.png": b"2", "d.png": b"1"})
    remove(f"{prefix}/c.png")
    found = dn2.ingest(f"{prefix}/", tmp_path)
    assert (found.images, found.added, found.changed, found.vanished) == (3, 1, 1, 1)
    assert dn2.ingest(prefix, tmp_path).parts == found.parts


def test_prefix_does_not_reach_into_its_neighbours(prefix: str):
    put(
        prefix,
        {"a/x.png": b"", "ab/y.png": b"", "a/sub/Z.PNG": b"", "a/n.txt": b"", "a/.h/x.png": b"", "a/.x.png": b""},
    )
    source = FolderSource.open(f"{prefix}/a")
    assert sorted(file.uri for file in source.walk()) == [f"{prefix}/a/sub/Z.PNG", f"{prefix}/a/x.png"]
    assert source.ignored == 3


def test_single_object_is_a_source(prefix: str):
    put(prefix, {"a.png": b"one", "a.png.png": b"two"})
    source = FolderSource.open(f"{prefix}/a.png")
    assert [file.uri for file in source.walk()] == [f"{prefix}/a.png"]
    assert source.read(f"{prefix}/a.png") == b"one"


@pytest.mark.parametrize(
    "name",
    ["with space.png", "hash#.png", "per%20cent.png", "a::b.png", "plus+.png", "ä木.png", "<b>'\"&.png", "*[x].png"],
)
def test_hostile_names_are_listed_and_read(prefix: str, name: str):
    put(prefix, {name: name.encode()})
    source = FolderSource.open(prefix)
    (listed,) = source.walk()
    assert listed.uri == f"{prefix}/{name}"
    assert source.read(listed.uri) == name.encode()


def test_vanished_object_is_told_from_a_vanished_prefix(prefix: str):
    put(prefix, {"a.png": b"", "b.png": b""})
    source = FolderSource.open(prefix)
    remove(f"{prefix}/a.png")
    with pytest.raises(VanishedError, match="vanished since it was listed"):
        source.read(f"{prefix}/a.png")
    remove(f"{prefix}/b.png")
    with pytest.raises(SourceError, match="is empty or gone while it is read") as caught:
        source.read(f"{prefix}/b.png")
    assert not isinstance(caught.value, VanishedError)


def test_missing_prefix_and_bucket_are_not_found(prefix: str):
    for url in (prefix, "s3://no-such-bucket", "s3://no-such-bucket/x"):
        with pytest.raises(NotFoundError, match=f"source {url}: nothing is there"):
            FolderSource.open(url)


def test_wrong_credentials_are_a_source_error(prefix: str, monkeypatch: pytest.MonkeyPatch):
    put(prefix, {"a.png": b""})
    source = FolderSource.open(prefix)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(SourceError, match=f"source {prefix}: cannot be reached"):
        FolderSource.open(prefix)
    assert source.read(f"{prefix}/a.png") == b""
