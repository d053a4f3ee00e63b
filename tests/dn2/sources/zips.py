"""A new kind of source, which dn2 does not list: zip archives of images. It is all that such a kind costs."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

from dn2.sources.packs import MARK, PackSource
from dn2.sources.source import ListedFile, is_image


class ZipSource(PackSource):
    """The images in a zip archive, or in all that fit a glob."""

    words = "a .zip of images"
    noun = "zip"
    suffixes = (".zip",)

    @classmethod
    def path_of(cls, below: str) -> str:
        """Return the path of an image as if its archive were a folder."""
        return below.replace(MARK, "/", 1)

    def walk(self, *, without: str = "") -> Iterator[ListedFile]:
        """Yield every image, in the order of the archive; the other members are only counted."""
        self.ignored = 0
        for pack in self._packs.walk(without):
            with self._packs.listing(pack) as version, pack.open() as file, zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    if is_image(member.filename):
                        yield ListedFile(f"{pack.place.uri}{MARK}{member.filename}", version, member.file_size)
                    else:
                        self.ignored += 1
        self.ignored += self._packs.ignored

    def read(self, uri: str, version: str) -> bytes:
        """Return the bytes of an image."""
        pack, name = self._packs.find(uri)
        with self._packs.reading(uri, pack, version), pack.open() as file, zipfile.ZipFile(file) as archive:
            return archive.read(name)
