from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from dn2.errors import ConfigError, NotFoundError, SourceError, StoreError
from dn2.store.files import Locator, locate, read_file, relative_to, translated


def test_relative_path_becomes_an_absolute_file_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    location = locate("store")
    assert f"file://{tmp_path}/store" == location.uri
    assert f"{tmp_path}/store" == location.path
    assert location.is_local


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"file://{tmp_path}/store" == locate("~/store").uri


@pytest.mark.parametrize("text", ["{}/store", "{}/store/", "{}/./store", "{}/x/../store", "file://{}/store"])
def test_one_folder_has_one_uri(text: str, tmp_path: Path):
    assert f"file://{tmp_path}/store" == locate(text.format(tmp_path)).uri


def test_path_objects_are_taken(tmp_path: Path):
    assert f"file://{tmp_path}" == locate(tmp_path).uri


def test_local_is_another_word_for_file(tmp_path: Path):
    """fsspec knows both; only one of them may lead to atomic writes by another name."""
    assert locate(tmp_path) == locate(f"local://{tmp_path}")


@pytest.mark.parametrize("name", ["with space", "a::b", "a#b", "a%20b", "a?b=c", "quote'\"", "line\nbreak", "bäume"])
def test_hostile_folder_names_are_kept_as_they_are(name: str, tmp_path: Path):
    location = locate(tmp_path / name)
    assert f"{tmp_path}/{name}" == location.path
    assert location == locate(location.uri)


@pytest.mark.parametrize(
    "url",
    [
        "memory://store",
        "memory:///store/sub",
        "memory://",
        "s3://bucket",
        "s3://bucket/prefix/",
        "s3a://bucket/prefix",
        "http://127.0.0.1:1/pictures/",
        "simplecache::s3://bucket/prefix",
    ],
)
def test_uri_leads_to_the_same_place_again(url: str):
    """Tasks pass URIs on and open them again: no host and no outer protocol may get lost."""
    first = locate(url)
    again = locate(first.uri)
    assert (first.path, first.uri, type(first.fs)) == (again.path, again.uri, type(again.fs))
    assert not first.is_local


def test_slash_at_the_end_does_not_make_another_place():
    assert locate("s3://bucket/prefix").uri == locate("s3://bucket/prefix/").uri == "s3://bucket/prefix"


def test_empty_url_is_a_config_error():
    with pytest.raises(ConfigError, match="got an empty path or URL: expected a folder"):
        locate("")


def test_unknown_protocol_is_a_config_error():
    with pytest.raises(ConfigError, match="URL 'gopher://host/x' cannot be opened: Protocol not known: gopher"):
        locate("gopher://host/x")


def test_protocol_whose_package_is_missing_is_a_config_error():
    with pytest.raises(ConfigError, match="URL 'dropbox://x' cannot be opened"):
        locate("dropbox://x")


def test_home_of_nobody_is_a_config_error():
    with pytest.raises(ConfigError, match="path '~no-such-user/x': Could not determine home directory"):
        locate("~no-such-user/x")


def test_path_that_is_not_utf8_is_a_config_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="got bytes that are not UTF-8"):
        locate(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))


def test_password_in_a_url_is_refused_and_not_repeated():
    """URIs are written into every manifest and report."""
    with pytest.raises(ConfigError, match="URL of host: got a password") as caught:
        locate("sftp://user:hunter2@host/folder")
    assert "hunter2" not in str(caught.value)


def test_foreign_errors_become_ours_in_one_line():
    with pytest.raises(StoreError, match=r"^store: one line$") as caught, translated(StoreError, "store"):
        raise RuntimeError("one line\nand another")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_foreign_error_without_a_message_is_named():
    with pytest.raises(StoreError, match=r"^store: RuntimeError$"), translated(StoreError, "store"):
        raise RuntimeError


@pytest.mark.parametrize("error", [FileNotFoundError("x"), NotFoundError("x"), SourceError("x")])
def test_missing_files_and_own_errors_pass_untranslated(error: Exception):
    with pytest.raises(type(error)) as caught, translated(StoreError, "store"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("file", "written", "meant"),
    [
        ("file:///etc/dn2/sources.yaml", "photos", "file:///etc/dn2/photos"),
        ("file:///etc/dn2/sources.yaml", "./photos/", "file:///etc/dn2/photos"),
        ("file:///etc/dn2/sources.yaml", "../photos", "file:///etc/photos"),
        ("file:///etc/dn2/sources.yaml", ".", "file:///etc/dn2"),
        ("file:///sources.yaml", "photos", "file:///photos"),
        ("file:///etc/a b/s.yaml", "two\nlines", "file:///etc/a b/two\nlines"),
        ("s3://bucket/conf/sources.yaml", "photos", "s3://bucket/conf/photos"),
        ("s3://bucket/conf/sources.yaml", "../photos/", "s3://bucket/photos"),
        ("s3://bucket/sources.yaml", "./photos", "s3://bucket/photos"),
        ("s3://bucket/conf/sources.yaml", "../../../other/photos", "s3://bucket/other/photos"),
        ("memory://sources.yaml", "photos", "memory://photos"),
        ("simplecache::s3://bucket/conf/sources.yaml", "photos", "simplecache::s3://bucket/conf/photos"),
        ("s3://bucket/conf/sources.yaml", "/photos", "file:///photos"),
        ("s3://bucket/conf/sources.yaml", "~/photos", "file:///people/somebody/photos"),
        ("s3://bucket/conf/sources.yaml", "memory://photos", "memory://photos"),
        ("file:///etc/dn2/sources.yaml", "s3://bucket/photos/", "s3://bucket/photos"),
    ],
)
def test_place_written_in_a_file_is_taken_from_where_the_file_lies(
    file: str, written: str, meant: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", "/people/somebody")
    assert relative_to(file, written) == meant


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of each kind with a text and with bytes that are none."""
    url = f"memory://{uuid.uuid4().hex}" if request.param == "memory" else str(tmp_path)
    if request.param == "s3":
        url = f"{request.getfixturevalue('s3_bucket')}/{uuid.uuid4().hex}"
    place = locate(url)
    for name, content in (("text", "zwölf\n".encode()), ("bytes", b"\xff\xfe")):
        place.fs.pipe_file(f"{place.path}/{name}", content)
    return url


def test_small_file_is_read_from_anywhere(folder: str):
    assert read_file(f"{folder}/text", "list") == "zwölf\n"


def test_file_that_is_no_text_is_a_config_error(folder: str):
    with pytest.raises(ConfigError, match=r"^list: got bytes that are not UTF-8, expected text$"):
        read_file(f"{folder}/bytes", "list")


def test_file_that_is_not_there_is_not_found(folder: str):
    with pytest.raises(NotFoundError, match=r"^list: nothing is there$"):
        read_file(f"{folder}/none", "list")


def test_folder_is_no_file_to_read(tmp_path: Path):
    with pytest.raises(SourceError, match=r"^list: cannot be read: .*Is a directory"):
        read_file(tmp_path, "list")


@pytest.mark.parametrize(
    "url",
    [
        "a.png",
        "/x/../a b.png",
        "~/a.png",
        "file:///x//a.png",
        "local:///x/a::b.png",
        "memory://x/a.png",
        "memory://x/a.png/",
        "s3://bucket/a/b.png",
        "s3://bucket",
        "simplecache::memory://x/a.png",
    ],
)
def test_locator_finds_what_locate_finds(url: str):
    """The first time, and with a file system that it knows already."""
    locator = Locator()
    expected = locate(url)
    for _ in range(2):
        found = locator.locate(url)
        assert (found.path, found.uri, type(found.fs)) == (expected.path, expected.uri, type(expected.fs))


def test_locator_has_one_file_system_for_each_bucket():
    locator = Locator()
    systems = [locator.locate(url).fs for url in ("s3://one/a", "s3://one/b/c", "s3://two/a", "/a", "b")]
    ids = [id(fs) for fs in systems]  # equal settings make them equal, but not the same
    assert [ids.index(one) for one in ids] == [0, 0, 2, 3, 3]


def test_locator_refuses_what_locate_refuses():
    locator = Locator()
    for _ in range(2):
        for url in ("nope://x/a", "s3://", "ftp://me:secret@host/a"):
            with pytest.raises(ConfigError):
                locator.locate(url)
