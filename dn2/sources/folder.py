"""A folder or prefix as a source: every image below it, listed as a stream, read file by file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import cast

from dn2.errors import Dn2Error, NotFoundError, SourceError
from dn2.sources.globs import Glob, escaped, joined_glob
from dn2.sources.source import ListedFile, Source, VanishedError, dataset_name, images_in_words, is_image, own_pictures
from dn2.sources.walking import walk
from dn2.store.files import Location, locate, translated


class FolderSource(Source):
    """A folder or prefix of images, or a single one."""

    words = "a folder or fsspec URL with images, or one image"
    noun = "folder"

    def __init__(self, place: Location, glob: Glob | None = None, split: str | None = None) -> None:
        super().__init__(place)
        self._location = place
        self._packs: set[str] = set()

    @classmethod
    def open(cls, url: str | os.PathLike[str]) -> FolderSource:
        """Return the source at a folder, an image file or an fsspec URL.

        Raises:
            ConfigError: the URL's protocol is unknown.
            NotFoundError: nothing is there.
            SourceError: it cannot be reached.
        """
        place = locate(url)
        try:
            with translated(SourceError, f"source {place.uri}: cannot be reached"):
                there = bool(place.fs.exists(place.path))
        except FileNotFoundError:
            there = False
        if not there:
            raise NotFoundError(f"source {place.uri}: nothing is there: expected a folder or prefix with images")
        return cls(place)

    @property
    def default_name(self) -> str:
        """Name for its dataset: the last part of the path, and 8 hex digits of the whole URI."""
        return dataset_name(PurePosixPath(self._location.path).name, self.uri)

    @property
    def expected(self) -> str:
        """What it should hold; and how to give the packs that it holds instead."""
        words = f"{images_in_words()} in it or below it"
        packs = sorted(self._packs)
        if not packs:
            return words
        globs = (repr(joined_glob(escaped(self.uri), f"**/*{suffix}")) for suffix in packs)
        return f"{words}; images in {' and '.join(packs)} files are given as {' or '.join(globs)}"

    def walk(self, *, also: str | None = None, without: str = "") -> Iterator[ListedFile]:
        """Yield every image below the source, in no fixed order; other and hidden files are only counted.

        Args:
            also: name of files that are yielded too, though they are no images: a marker.
            without: URI of the store: if it lies in this source, its files are neither yielded nor counted.

        Raises:
            SourceError: the source cannot be listed.
        """
        from dn2.sources.opening import pack_suffixes  # it lists this kind, too

        packs = pack_suffixes()
        self.ignored, own = 0, own_pictures(self.uri, without)
        try:
            with translated(SourceError, f"source {self.uri}: cannot be listed"):
                for below, version, size in walk(self._location):
                    uri = self.uri + below
                    if own and uri.startswith(own):
                        continue
                    name = uri.rpartition("/")[2]
                    if version is not None and (is_image(below or name) or name == also):
                        yield ListedFile(uri, version, size)
                    else:
                        self.ignored += 1
                        self._packs.update(suffix for suffix in packs if name.lower().endswith(suffix))
        except FileNotFoundError as error:
            raise SourceError(f"source {self.uri}: vanished while it was listed: {error}") from error

    def read(self, uri: str, version: str = "") -> bytes:
        """Return the bytes of a file below the source. That it changed is seen by its size, not by its version.

        Raises:
            VanishedError: the file is gone, but the source is still there and has files.
            SourceError: the file or the source cannot be read: a fault that may pass.
        """
        path = self._location.path + uri.removeprefix(self.uri)
        try:
            with translated(SourceError, f"source {self.uri}: cannot read {uri}"):
                if self.is_local:
                    return Path(path).read_bytes()
                return cast(bytes, self._location.fs.cat_file(path))
        except FileNotFoundError as error:
            self.check_alive(uri)
            if "\\x" in uri:
                raise VanishedError("not found: its name is not valid UTF-8, rename it") from error
            raise VanishedError("vanished since it was listed") from error

    def check_alive(self, uri: str) -> None:
        """Tell a vanished file from a vanished source, such as a network drive that is not mounted.

        Args:
            uri: of the file that was not found.

        Raises:
            SourceError: the source is gone, empty or out of reach.
        """
        root = self._location.path
        try:
            with translated(SourceError, f"source {self.uri}: cannot be reached"):
                if self.is_local and Path(root).is_dir():
                    alive = any(Path(root).iterdir())
                else:
                    alive = uri == self.uri or bool(self._location.fs.exists(root))
        except FileNotFoundError:
            alive = False
        if not alive:
            raise SourceError(
                f"source {self.uri}: is empty or gone while it is read ({uri} not found): "
                f"if it lies on a network drive, mount it again, then run the same command"
            )

    def twice(self, uri: str) -> Dn2Error | None:
        """Return the error of two files with one URI."""
        return SourceError(
            f"source {self.uri}: got two images with the URI {uri}: names that are not UTF-8 are written like names "
            f"that other images have; rename them"
        )
