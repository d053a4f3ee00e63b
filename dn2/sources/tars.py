"""Tar files as a source: their headers are listed as a stream, and each image is read by itself, where it lies."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, cast

from dn2.errors import ConfigError, Dn2Error
from dn2.sources.packs import MARK, PackSource
from dn2.sources.samples import TELLING, Samples, key_and_ending
from dn2.sources.source import ChangedError, ListedFile, Source, is_hidden, is_image
from dn2.sources.walking import printable

_PACKERS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BLOCK = 512  # bytes: a header, and what the contents are padded to
_HEADER = 16 * 2**20  # bytes: no header is larger, a long name included
_BEHIND = 2**16  # bytes behind the end mark that are looked at
_PLACE = re.compile(r"(.*)@([0-9]+)\+([0-9]+)", re.DOTALL)  # version of the tar, offset and size of the image


class CompressedTar(Source):
    """A tar that is refused: to read one image, all in front of it would have to be unpacked."""

    words = "a compressed tar"
    noun = "compressed tar"
    suffixes = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
    refused = "expected a plain one, whose images can be read one by one; unpack it, or write a plain .tar"


class TarSource(PackSource):
    """The images in a tar file, or in all that fit a glob."""

    words = "a .tar of images"
    noun = "tar"
    suffixes = (".tar",)
    tells = "members .cls and .json"

    @classmethod
    def path_of(cls, below: str) -> str:
        """Return the path of an image as if its tar were a folder."""
        return below.replace(MARK, "/", 1)

    def walk(self, *, without: str = "") -> Iterator[ListedFile]:
        """Yield every image, in the order of the tar, with what its sample tells; the other members are only counted.

        Hidden members, links, devices and sparse files are no images.

        Raises:
            ConfigError: a tar is compressed, damaged or cut off, or what it tells about its images cannot be.
            SourceError: a tar cannot be read, or changed meanwhile.
        """
        self.ignored = 0
        for pack in self._packs.walk(without):
            with self._packs.listing(pack) as version, pack.open() as file:
                yield from self._images(file, pack.place.uri, version)
        self.ignored += self._packs.ignored

    def _images(self, file: IO[bytes], uri: str, version: str) -> Iterator[ListedFile]:
        samples = Samples(uri)
        for member in _members(file, uri):
            name = _name(member)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse() or is_hidden(name):
                self.ignored += 1
                continue
            key, ending = key_and_ending(name)
            yield from samples.turn(key)
            if is_image(name):
                place = f"{version}@{member.offset_data}+{member.size}"
                yield from samples.add(ListedFile(f"{uri}{MARK}{name}", place, member.size))
            elif ending in TELLING:
                samples.tell(name, member.size, partial(_content, file, member))
            else:
                self.ignored += 1
        yield from samples.end()
        self.ignored += samples.ignored

    def read(self, uri: str, version: str) -> bytes:
        """Return the bytes of an image: one read of a range, whatever the size of the tar. Safe in several threads.

        Raises:
            VanishedError: the tar is gone, but others that fit the glob are still there.
            ChangedError: the tar is not the one that was listed.
            SourceError: it cannot be read, or the source is gone: a fault that may pass.
        """
        pack, _ = self._packs.find(uri)
        place = _PLACE.fullmatch(version)
        if place is None:
            raise ChangedError(pack.place.uri)
        with self._packs.reading(uri, pack, place[1]):
            return pack.read(int(place[2]), int(place[3]))

    def twice(self, uri: str) -> Dn2Error | None:
        """Return the error of two members with one name."""
        pack, name = self._packs.find(uri)
        return ConfigError(f"tar {pack.place.uri}: got two members named {name!r}, expected one; rename or delete one")


def _name(member: tarfile.TarInfo) -> str:
    """Return the path of a member as text, without "./" in front."""
    name = printable(member.name)
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _content(file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    return file.read(member.size)


def _members(file: IO[bytes], uri: str) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar; none is kept."""
    beginning = file.read(6)
    for magic, packer in _PACKERS.items():
        if beginning.startswith(magic):
            raise ConfigError(f"tar {uri}: got one that is compressed by {packer}, {CompressedTar.refused}")
    with _damage(uri):
        archive: Any = tarfile.open(fileobj=cast(IO[bytes], _Headers(file)), mode="r:", encoding="utf-8")  # noqa: SIM115
    last = -1
    while True:
        with _damage(uri):
            member: tarfile.TarInfo | None = archive.next()
            archive.members.clear()  # it would remember all of them
            if member is not None and (member.offset <= last or member.size < 0):
                raise tarfile.ReadError(f"a header at byte {member.offset} leads back")
        if member is None:
            break
        last = member.offset
        yield member
    file.seek(archive.offset)
    end = file.read(_BLOCK + _BEHIND)
    if end[:_BLOCK] != bytes(_BLOCK):
        raise ConfigError(
            f"tar {uri}: got neither header nor end mark at byte {archive.offset}: it is damaged or cut off; write it "
            f"again"
        )
    if any(end):
        raise ConfigError(
            f"tar {uri}: got more after its end mark at byte {archive.offset}: are these two tars in one file? Write "
            f"them as one, or as two files"
        )


@contextmanager
def _damage(uri: str) -> Iterator[None]:
    """Turn what `tarfile` raises about a file that is no good into one error."""
    try:
        yield
    except (tarfile.TarError, ValueError, EOFError, RecursionError, LookupError) as error:
        raise ConfigError(f"tar {uri}: is damaged, cut off or no tar: {error}; write it again") from error


class _Headers:
    """A file of which only small pieces are read, from within: a damaged length must not fill the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def seek(self, offset: int) -> int:
        if offset > self._size:
            raise tarfile.ReadError(f"got {self._size} bytes, expected more than {offset}")
        return self._file.seek(offset)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)
