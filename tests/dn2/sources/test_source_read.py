from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dn2.errors import NotFoundError, SourceError
from dn2.sources.folder import FolderSource
from dn2.sources.source import VanishedError
from dn2.store.files import locate
from tests.dn2.images.listing import touch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    touch(tmp_path / "source", "a.png", "sub/b.png", content=b"x")
    return tmp_path / "source"


def test_vanished_file_is_told_from_all_other_faults(folder: Path):
    """The only fault of reading that is about the image."""
    source = FolderSource.open(folder)
    (folder / "a.png").unlink()
    with pytest.raises(VanishedError, match=r"^vanished since it was listed$"):
        source.read(f"{source.uri}/a.png")


def test_vanished_folder_below_the_source_is_vanished_files(folder: Path):
    source = FolderSource.open(folder)
    (folder / "sub" / "b.png").unlink()
    (folder / "sub").rmdir()
    with pytest.raises(VanishedError, match="vanished since it was listed"):
        source.read(f"{source.uri}/sub/b.png")


def fault(source: FolderSource, uri: str) -> str:
    """The message of a fault that may pass."""
    with pytest.raises(SourceError) as caught:
        source.read(uri)
    assert not isinstance(caught.value, VanishedError)
    return str(caught.value)


def test_vanished_source_is_a_fault_that_may_pass(folder: Path, tmp_path: Path):
    source = FolderSource.open(folder)
    folder.rename(tmp_path / "elsewhere")
    message = fault(source, f"{source.uri}/a.png")
    assert message.startswith(f"source {source.uri}: is empty or gone while it is read ({source.uri}/a.png not found)")
    assert message.endswith("mount it again, then run the same command")


def test_emptied_source_is_a_fault_that_may_pass(folder: Path, tmp_path: Path):
    """What a network drive looks like after it was unmounted."""
    source = FolderSource.open(folder)
    folder.rename(tmp_path / "elsewhere")
    folder.mkdir()
    assert "is empty or gone while it is read" in fault(source, f"{source.uri}/a.png")


def test_folder_in_place_of_a_file_is_a_fault(folder: Path):
    source = FolderSource.open(folder)
    (folder / "a.png").unlink()
    (folder / "a.png").mkdir()
    message = fault(source, f"{source.uri}/a.png")
    assert message.startswith(f"source {source.uri}: cannot read {source.uri}/a.png: ")
    assert "Is a directory" in message


def test_file_in_place_of_a_folder_is_a_fault(folder: Path):
    source = FolderSource.open(folder)
    (folder / "sub" / "b.png").unlink()
    (folder / "sub").rmdir()
    (folder / "sub").write_bytes(b"")
    assert "Not a directory" in fault(source, f"{source.uri}/sub/b.png")


def test_disk_that_fails_is_a_fault(folder: Path):
    """A real input/output error: the kernel refuses to read a process's unmapped memory."""
    source = FolderSource.open(folder)
    (folder / "c.png").symlink_to("/proc/self/mem")
    assert "Input/output error" in fault(source, f"{source.uri}/c.png")


def test_unreadable_file_is_a_fault(folder: Path, nobody: None):
    source = FolderSource(locate(folder))
    if os.getuid() != 0:
        (folder / "a.png").chmod(0)
    assert "Permission denied" in fault(source, f"{source.uri}/a.png")


def test_name_that_is_not_utf8_is_a_reject_that_says_what_to_do(folder: Path):
    Path(os.fsdecode(os.fsencode(folder) + b"/b\xff.png")).write_bytes(b"x")
    source = FolderSource.open(folder)
    (listed,) = [file for file in source.walk() if "\\xff" in file.uri]
    with pytest.raises(VanishedError, match="not found: its name is not valid UTF-8, rename it"):
        source.read(listed.uri)


def test_single_file_that_vanished_is_gone_itself(folder: Path):
    source = FolderSource.open(folder / "a.png")
    (folder / "a.png").unlink()
    with pytest.raises(VanishedError, match="vanished since it was listed"):
        source.read(source.uri)


def test_remote_file_and_remote_source_vanish_likewise():
    root = f"memory://{uuid.uuid4().hex}"
    fs = locate(root).fs
    fs.pipe({f"{root}/a.png": b"a", f"{root}/b.png": b"b"})
    source = FolderSource.open(root)
    fs.rm(f"{root}/a.png")
    with pytest.raises(VanishedError, match="vanished since it was listed"):
        source.read(f"{root}/a.png")
    fs.rm(root, recursive=True)
    assert "is empty or gone while it is read" in fault(source, f"{root}/b.png")


def test_many_threads_read_at_once(tmp_path: Path):
    contents = {f"{number}.png": bytes([number]) * 1000 for number in range(50)}
    for name, content in contents.items():
        touch(tmp_path, name, content=content)
    source = FolderSource.open(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.read, [f"{source.uri}/{name}" for name in contents] * 4))
    assert list(contents.values()) * 4 == found


def test_missing_source_is_not_found(tmp_path: Path):
    with pytest.raises(NotFoundError, match=f"source file://{tmp_path}/x: nothing is there"):
        FolderSource.open(tmp_path / "x")


def test_unreachable_source_is_a_source_error(monkeypatch: pytest.MonkeyPatch):
    """Nothing listens on port 1."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SourceError, match=r"source s3://bucket/x: cannot be reached: .*127\.0\.0\.1:1"):
        FolderSource.open("s3://bucket/x")
