"""Tar files as sources: listed by their headers, read where the bytes lie."""

from __future__ import annotations

import gc
import gzip
import os
import tarfile
import tracemalloc
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dn2
from dn2.errors import ConfigError, EmptySourceError, NotFoundError, SourceError
from dn2.sources.opening import open_source, reader_of
from dn2.sources.source import ChangedError, ListedFile, VanishedError
from dn2.store.files import locate
from dn2.store.storage import Store
from tests.dn2.images.listing import live_uris, part_rows, touch
from tests.dn2.sources.packing import tar_bytes, write_tar


def listed(url: str | Path) -> list[ListedFile]:
    return sorted(open_source(url).walk(), key=lambda file: file.uri)


def names(url: str | Path) -> list[str]:
    return [file.uri.partition("#")[2] for file in listed(url)]


def contents(url: str | Path) -> dict[str, bytes]:
    """What is read of each image, by its name."""
    source = open_source(url)
    return {file.uri.partition("#")[2]: reader_of(source.uri).read(file.uri, file.version) for file in source.walk()}


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_members_with_the_suffix_of_images_are_images(tmp_path: Path):
    tar = write_tar(
        tmp_path / "a.tar",
        *[
            (name, name.encode())
            for name in ("a.png", "sub/b.JPG", "./c.webp", "d.tiff", "x.txt", ".h.png", ".h/x.png")
        ],
        *(member("folder", tarfile.DIRTYPE), member("l.png", tarfile.SYMTYPE, "a.png")),
        *(member("h.png", tarfile.LNKTYPE, "a.png"), member("f.png", tarfile.FIFOTYPE)),
    )
    source = open_source(tar)
    assert [file.uri for file in sorted(source.walk(), key=lambda file: file.uri)] == [
        f"file://{tar}#{name}" for name in ("a.png", "c.webp", "d.tiff", "sub/b.JPG")
    ]
    assert source.ignored == 6
    assert contents(tar) == {"a.png": b"a.png", "c.webp": b"./c.webp", "d.tiff": b"d.tiff", "sub/b.JPG": b"sub/b.JPG"}


def test_version_says_where_the_bytes_lie(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", ("a.png", b"12345"), ("b.png", b"678"))
    status = tar.stat()
    assert [(file.version, file.size) for file in listed(tar)] == [
        (f"{status.st_size}-{status.st_mtime_ns}@512+5", 5),
        (f"{status.st_size}-{status.st_mtime_ns}@1536+3", 3),
    ]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_with_long_and_odd_names(form: int, tmp_path: Path):
    long = ["x" * 80 + "/" + "y" * 90 + ".png", "bäume-木.png", "hash#tag#.png", "line\nbreak.png", " .png", "a::b.png"]
    for name in long:
        touch(tmp_path / "in", name, content=name.encode())
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        tar.add(tmp_path / "in", arcname=".")
    found = dn2.ingest(tmp_path / "a.tar", tmp_path / "store")
    assert found.images == len(long)
    assert contents(tmp_path / "a.tar") == {name: name.encode() for name in long}


def test_name_that_is_not_utf8_is_read_all_the_same(tmp_path: Path):
    write_tar(tmp_path / "a.tar", ("b\udcff.png", b"x"))
    store = Store.open(tmp_path / "store")
    found = dn2.ingest(tmp_path / "a.tar", store)
    assert live_uris(store, found) == [f"file://{tmp_path}/a.tar#b\\xff.png"]
    assert contents(tmp_path / "a.tar") == {"b\\xff.png": b"x"}


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.dictionaries(NAMES.filter(lambda name: name[0] != "."), st.binary(max_size=2000), min_size=1, max_size=6)
)
def test_any_names_and_contents_come_back(images: dict[str, bytes], tmp_path: Path):
    tar = write_tar(tmp_path / "any.tar", *((f"{name}.png", content) for name, content in images.items()))
    assert contents(tar) == {f"{name}.png": content for name, content in images.items()}


def test_dataset_is_named_by_the_file_and_its_uri(tmp_path: Path):
    found = [dn2.ingest(write_tar(tmp_path / one / "Train.tar", ("a.png", b"")), tmp_path / "store") for one in "ab"]
    assert [one.name[:10] for one in found] == ["train-tar-"] * 2
    assert found[0].name != found[1].name
    assert dn2.ingest(tmp_path / "a" / "Train.tar", tmp_path / "store", dataset="mine").name == "mine"


def test_folder_that_is_called_like_a_tar_is_a_folder(tmp_path: Path):
    touch(tmp_path / "a.tar", "x.png", "#y.png")
    found = dn2.ingest(tmp_path / "a.tar", tmp_path / "store", pattern="{label}.png")
    assert (found.images, found.ungrouped) == (2, 0)


def test_missing_tar_is_not_found(tmp_path: Path):
    with pytest.raises(NotFoundError, match=f"source file://{tmp_path}/a.tar: nothing is there"):
        open_source(tmp_path / "a.tar")


def test_tar_without_images_is_an_error(tmp_path: Path):
    write_tar(tmp_path / "a.tar", ("a.txt", b""), ("b.cls", b"x"))
    with pytest.raises(EmptySourceError, match=r"got no image \(2 other files\), expected files named .* in it$"):
        dn2.ingest(tmp_path / "a.tar", tmp_path / "store")
    write_tar(tmp_path / "b.tar")
    with pytest.raises(EmptySourceError, match=r"got no image \(0 other files\)"):
        dn2.ingest(tmp_path / "b.tar", tmp_path / "store")


def test_split_of_a_tar_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="only tables have splits"):
        open_source(write_tar(tmp_path / "a.tar", ("a.png", b"")), split="x")


def damaged(tar: bytes, at: int, new: bytes) -> bytes:
    return tar[:at] + new + tar[at + len(new) :]


TWO = tar_bytes([("a.png", b"1" * 700), ("b.png", b"2" * 700)])  # headers at 0 and 1536, end mark at 3072


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged, cut off or no tar: empty file"),
        (b"not a tar at all", "is damaged, cut off or no tar: truncated header"),
        (b"x" * 5000, "is damaged, cut off or no tar: "),
        (TWO[:700], "is damaged, cut off or no tar: got [0-9]+ bytes, expected more than"),
        (TWO[:1536], "got neither header nor end mark at byte 1536: it is damaged or cut off"),
        (TWO[:2000], "got neither header nor end mark at byte 1536: it is damaged or cut off"),
        (TWO[:2500], "is damaged, cut off or no tar: got [0-9]+ bytes, expected more than"),
        (TWO[:3072], "got neither header nor end mark at byte 3072"),
        (damaged(TWO, 1540, b"\xff"), "got neither header nor end mark at byte 1536"),
        (damaged(TWO, 1536 + 124, b"zzzzzzz"), "got neither header nor end mark at byte 1536"),
        (TWO + TWO, "got more after its end mark at byte 3072: are these two tars"),
        (TWO[:3584] + b"x" * 100, "got more after its end mark at byte 3072"),
        (gzip.compress(TWO), "got one that is compressed by gzip, expected a plain one, whose images"),
        (b"BZh91AY&SY", ".*compressed by bzip2"),
        (b"\xfd7zXZ\0\0", ".*compressed by xz"),
        (b"\x28\xb5\x2f\xfd\0\0", ".*compressed by zstd"),
    ],
)
def test_file_that_is_no_whole_plain_tar(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ConfigError, match=f"^tar file://{tmp_path}/a.tar: {message}"):
        dn2.ingest(tmp_path / "a.tar", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def with_size(size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header whose length is these 12 bytes."""
    info = member("x.png", kind)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    return bytes(header)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [b"\xff" * 10 + b"\xfc\x00", b"\x80" + b"\x00" * 5 + b"\xff" * 6])
def test_length_that_leads_back_or_fills_the_memory_is_damage(kind: bytes, size: bytes, tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(TWO[:1536] + with_size(size, kind) + TWO[1536:])
    with pytest.raises(ConfigError, match=r"a\.tar: (is damaged, cut off or no tar|got neither header)"):
        listed(tmp_path / "a.tar")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(TWO) - 1), value=st.integers(0, 255), cut=st.booleans())
def test_any_damage_is_one_error_or_harmless(at: int, value: int, cut: bool, tmp_path: Path):
    path = tmp_path / "any.tar"
    path.write_bytes(TWO[:at] if cut else damaged(TWO, at, bytes([value])))
    try:
        found = listed(path)
    except ConfigError:
        return
    for file in found:
        assert len(open_source(path).read(file.uri, file.version)) == file.size


@pytest.mark.parametrize("name", ["a.tar.gz", "A.TGZ", "a.tar.bz2", "a.tar.xz", "a.tar.zst"])
def test_compressed_tar_is_refused_by_its_name(name: str, tmp_path: Path):
    touch(tmp_path, name)
    with pytest.raises(ConfigError, match=rf"{name}: got a compressed tar, .*; unpack it, or write a plain \.tar"):
        open_source(tmp_path / name)


def test_two_members_of_one_name_are_refused(tmp_path: Path):
    write_tar(tmp_path / "a.tar", ("a.png", b"1"), ("b.png", b"2"), ("./a.png", b"3"))
    with pytest.raises(ConfigError, match=r"^tar file:.*a\.tar: got two members named 'a\.png', expected one"):
        dn2.ingest(tmp_path / "a.tar", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_glob_of_tars_is_one_source(tmp_path: Path):
    write_tar(tmp_path / "s" / "train-0.tar", ("a/x.png", b"0"))
    write_tar(tmp_path / "s" / "train-1.tar", ("a/x.png", b"1"))
    write_tar(tmp_path / "s" / "deep" / "train-2.tar", ("a/x.png", b"2"))
    write_tar(tmp_path / "s" / ".train-3.tar", ("a/x.png", b"3"))
    touch(tmp_path / "s", "train-4.tar/x.png")
    store = Store.open(tmp_path / "store")
    found = dn2.ingest(f"{tmp_path}/s/train-*.tar", store, pattern="{group_id}/{label}/*")
    assert (found.images, found.ungrouped, found.source) == (2, 0, f"file://{tmp_path}/s/train-*.tar")
    assert found.name.startswith("s-train-tar-")
    rows = {row["uri"]: row["version"] for row in part_rows(store, found)}
    assert list(rows) == [f"file://{tmp_path}/s/train-{number}.tar#a/x.png" for number in range(2)]
    assert [reader_of(found.source).read(*row) for row in rows.items()] == [b"0", b"1"]
    assert len(listed(f"{tmp_path}/s/**/*.tar")) == 3
    assert open_source(f"{tmp_path}/s/**/*.tar").ignored == 0


def test_tar_below_a_glob_with_a_hash_in_its_path_is_refused(tmp_path: Path):
    """Where its path ends could not be known."""
    write_tar(tmp_path / "x#1" / "a#.tar", ("a.png", b"1"))
    with pytest.raises(ConfigError, match=r"a#\.tar with a # below the root of the glob, .*; rename it"):
        listed(tmp_path / "x#1" / "*.tar")
    (file,) = listed(tmp_path / "x#1" / "a#.tar")
    assert open_source(tmp_path / "x#1" / "a#.tar").read(file.uri, file.version) == b"1"


def test_changed_tar_is_a_reject_and_never_other_bytes(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", ("a.png", b"old"), ("b.png", b"old"))
    source = open_source(tar)
    files = list(source.walk())
    assert source.read(files[0].uri, files[0].version) == b"old"
    status = tar.stat()
    write_tar(tar, ("a.png", b"new"), ("b.png", b"new"))
    os.utime(tar, ns=(1, status.st_mtime_ns + 1))
    for reader in (source, reader_of(source.uri)):
        for file in files:
            with pytest.raises(ChangedError, match=f"^changed since it was listed: file://{tar} is another file now"):
                reader.read(file.uri, file.version)
    tar.write_bytes(b"")
    with pytest.raises(ChangedError):
        source.read(files[1].uri, files[1].version)


def test_folder_that_became_a_tar_is_a_reject(tmp_path: Path):
    touch(tmp_path / "a.tar", "x.png")
    (file,) = open_source(tmp_path / "a.tar").walk()
    (tmp_path / "a.tar" / "x.png").unlink()
    (tmp_path / "a.tar").rmdir()
    write_tar(tmp_path / "a.tar", ("x.png", b"1"))
    with pytest.raises(ChangedError):
        reader_of(f"file://{tmp_path}/a.tar").read(file.uri, file.version)


def test_changed_tar_in_a_long_process_in_memory():
    """The version is looked up after each read, not once."""
    url = f"memory://{uuid.uuid4().hex}/a.tar"
    fs = locate(url).fs
    fs.pipe(url, tar_bytes([("a.png", b"old")]))
    source = open_source(url)
    (file,) = source.walk()
    assert [source.read(file.uri, file.version) for _ in range(3)] == [b"old"] * 3
    fs.pipe(url, tar_bytes([("a.png", b"new")]))
    with pytest.raises(ChangedError):
        source.read(file.uri, file.version)


def test_tar_that_is_written_while_it_is_listed_is_a_fault(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", *((f"{number}.png", b"x") for number in range(50)))
    files = open_source(tar).walk()
    next(files)
    os.utime(tar, ns=(1, 1))
    with pytest.raises(SourceError, match=f"{tar} changed while it was listed; run the command again") as caught:
        list(files)
    assert not isinstance(caught.value, ChangedError)


def test_vanished_tar_is_a_reject_among_others_and_a_fault_alone(tmp_path: Path):
    tars = [write_tar(tmp_path / "s" / f"{number}.tar", ("a.png", b"1")) for number in range(2)]
    many, one = open_source(f"{tmp_path}/s/*.tar"), open_source(tars[0])
    files = sorted(many.walk(), key=lambda file: file.uri)
    tars[0].unlink()
    with pytest.raises(VanishedError, match=r"^vanished since it was listed$"):
        many.read(files[0].uri, files[0].version)
    with pytest.raises(SourceError, match="is empty or gone while it is read") as caught:
        one.read(files[0].uri, files[0].version)
    assert not isinstance(caught.value, VanishedError)
    with pytest.raises(NotFoundError, match="nothing is there"):
        reader_of(f"file://{tars[0]}")


def test_rejects_of_a_changed_tar_are_mended_by_the_next_run(tmp_path: Path, pictures: Path):
    images = [(path.name, path.read_bytes()) for path in sorted(pictures.iterdir())]
    tar = write_tar(tmp_path / "a.tar", *images)
    store = tmp_path / "store"
    found = dn2.ingest(tar, store)
    write_tar(tar, *images[1:], images[0])
    os.utime(tar, ns=(1, 1))
    assert dn2.embed(found, store).rejected == 12
    again = dn2.ingest(tar, store)
    assert (again.images, again.changed) == (12, 12)
    done = dn2.embed(again, store)
    assert (done.embedded, done.rejected) == (12, 0)


def test_many_threads_read_at_once(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", *((f"{number:03d}.png", bytes([number]) * 3000) for number in range(200)))
    source = open_source(tar)
    files = list(source.walk()) * 3
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda file: source.read(file.uri, file.version), files))
    assert found == [bytes([number]) * 3000 for number in range(200)] * 3


def peak(tar: Path) -> float:
    """Python's memory while a tar is listed, in MB above what was there before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        assert sum(file.size == 1 for file in open_source(tar).walk()) > 1000
        return (tracemalloc.get_traced_memory()[1] - before) / 1e6
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_members(tmp_path: Path):
    small, large = (
        write_tar(tmp_path / f"{count}.tar", *((f"one.{number:06d}.png", b"x") for number in range(count)))
        for count in (3_000, 12_000)
    )
    first, second = peak(small), peak(large)
    assert first < 5
    assert second < 1.2 * first + 0.1


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every call to the bucket. The server sends the whole file's checksum with a part of it, unlike S3 itself."""
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    calls: list[dict[str, Any]] = []
    from s3fs import S3FileSystem

    real = S3FileSystem._call_s3

    async def call(fs: Any, method: str, *args: Any, **request: Any) -> Any:
        calls.append({"method": method, **request})
        return await real(fs, method, *args, **request)

    monkeypatch.setattr(S3FileSystem, "_call_s3", call)
    return calls


@pytest.mark.s3
def test_image_of_a_tar_in_a_bucket_is_one_read_of_a_range(s3_bucket: str, ranges: list[dict[str, Any]]):
    root = f"{s3_bucket}/{uuid.uuid4().hex}"
    fs = locate(root).fs
    fs.pipe_file(f"{root}/a.tar", tar_bytes([("a.png", b"1" * 2000), ("sub/b.png", b"2" * 2000)]))
    files = listed(f"{root}/a.tar")
    assert [file.uri for file in files] == [f"{root}/a.tar#a.png", f"{root}/a.tar#sub/b.png"]
    source = reader_of(f"{root}/a.tar")
    ranges.clear()
    assert source.read(files[1].uri, files[1].version) == b"2" * 2000
    assert [one["Range"] for one in ranges if one["method"] == "get_object"] == ["bytes=3072-5071"]
    assert [one["method"] for one in ranges if one["method"] != "get_object"] == ["head_object"]
    fs.pipe_file(f"{root}/a.tar", tar_bytes([("a.png", b"3" * 2000), ("sub/b.png", b"4" * 2000)]))
    with pytest.raises(ChangedError):
        source.read(files[0].uri, files[0].version)
    fs.pipe_file(f"{root}/a.tar", b"short")
    with pytest.raises(ChangedError):
        source.read(files[1].uri, files[1].version)
    fs.rm_file(f"{root}/a.tar")
    with pytest.raises(SourceError, match="is empty or gone while it is read"):
        source.read(files[0].uri, files[0].version)
