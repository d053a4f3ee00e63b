"""Packs: files that hold many images, of which each is read by itself."""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dn2.sources.versions import Pack, local_version
from dn2.store.files import locate


def test_pieces_of_a_file_and_its_version(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"0123456789")
    pack = Pack(locate(tmp_path / "a"))
    assert (pack.read(2, 3), pack.read(8, 5), pack.read(20, 5), pack.read(3, 0)) == (b"234", b"89", b"", b"")
    assert pack.version() == local_version((tmp_path / "a").stat())
    with pack.open() as file:
        assert file.read() == b"0123456789"


def test_other_version_is_seen_at_once_and_the_old_one_is_not_believed_again(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"1")
    pack = Pack(locate(tmp_path / "a"))
    version = pack.version()
    assert pack.is_still(version)
    os.utime(tmp_path / "a", ns=(1, 1))
    assert not pack.is_still(version)
    (tmp_path / "a").unlink()
    with pytest.raises(FileNotFoundError):
        pack.is_still(version)
    with pytest.raises(FileNotFoundError):
        pack.read(0, 1)


def test_many_threads_share_looks_at_a_remote_file():
    """Every answer comes from a look that began after the question."""
    url = f"memory://{uuid.uuid4().hex}/a"
    place = locate(url)
    place.fs.pipe(url, b"1")
    pack = Pack(place)
    version = pack.version()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: pack.is_still(version), range(200)))
        place.fs.pipe(url, b"22")
        assert not any(pool.map(lambda _: pack.is_still(version), range(200)))


def test_pieces_of_a_remote_file():
    url = f"memory://{uuid.uuid4().hex}/a"
    place = locate(url)
    place.fs.pipe(url, b"0123456789")
    assert (Pack(place).read(2, 3), Pack(place).read(3, 0)) == (b"234", b"")
