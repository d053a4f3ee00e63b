"""Packs: files that hold many images, one or all that fit a glob."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from dn2.errors import ConfigError, SourceError
from dn2.sources.folder import FolderSource
from dn2.sources.globbed import fitting
from dn2.sources.globs import Glob, joined_glob
from dn2.sources.source import ChangedError, Source, VanishedError, dataset_name, images_in_words, is_hidden
from dn2.sources.versions import Pack
from dn2.store.files import Location, translated

MARK = "#"  # between the URI of a pack and what names an image in it


class Packs:
    """The packs of a source: one file, or those below a root that fit a glob.

    Attributes:
        uri: of the only pack; or of the root, and the glob.
        name: words for people.
        ignored: files that fit the glob and are no packs, in the last listing.
    """

    def __init__(self, root: Location, glob: Glob | None = None) -> None:
        self._root, self._glob = root, glob
        self._files = FolderSource(root)
        self._known: dict[str, Pack] = {}
        self._lock = Lock()
        self.uri = root.uri if glob is None else joined_glob(root.uri, glob.text)
        last = root.path.rpartition("/")[2]
        self.name = last if glob is None else f"{last} {glob.text}"
        self.ignored = 0

    @property
    def where(self) -> str:
        """Where images should be, for messages."""
        return "in it" if self._glob is None else f"in files whose whole path below {self._root.uri} fits it"

    def walk(self, without: str) -> Iterator[Pack]:
        """Yield every pack, in no fixed order; hidden files that fit are only counted.

        Args:
            without: URI of the store, whose files are passed over.

        Raises:
            ConfigError: the path of a pack has a `#` in it.
            SourceError: they cannot be listed.
        """
        self.ignored = 0
        for uri, below, version, _ in fitting(self._root, self._glob, self.uri, without):
            if version is None or is_hidden(below):
                self.ignored += 1
                continue
            if MARK in below:
                raise ConfigError(
                    f"source {self.uri}: got {uri} with a {MARK} below the root of the glob, which divides a file from "
                    f"its images; rename it"
                )
            yield self._pack(below)

    def _pack(self, below: str) -> Pack:
        with self._lock:
            if below not in self._known:
                place = Location(self._root.fs, self._root.path + below, self._root.uri + below)
                self._known[below] = Pack(place)
            return self._known[below]

    def find(self, uri: str) -> tuple[Pack, str]:
        """Return the pack in which an image lies, and what names it there.

        Raises:
            ChangedError: the URI is that of no image in one of these packs.
        """
        below, mark, name = uri.removeprefix(self._root.uri).partition(MARK)
        if not mark or not uri.startswith(self._root.uri):
            raise ChangedError(self.uri)
        return self._pack(below), name

    @contextmanager
    def listing(self, pack: Pack) -> Iterator[str]:
        """Guard a block that lists what is in a pack, and yield the pack's version.

        Raises:
            SourceError: the pack cannot be read, or changed or vanished meanwhile.
        """
        uri = pack.place.uri
        try:
            with translated(SourceError, f"source {self.uri}: cannot read {uri}"):
                version = pack.version()
                yield version
                if pack.version() != version:
                    raise SourceError(f"source {self.uri}: {uri} changed while it was listed; run the command again")
        except FileNotFoundError as error:
            raise SourceError(f"source {self.uri}: {uri} vanished while it was listed") from error

    @contextmanager
    def reading(self, uri: str, pack: Pack, version: str, *, at_end: bool = True) -> Iterator[None]:
        """Guard a block that reads an image: what it returns is of the pack's version that was listed.

        Args:
            uri: of the image.
            pack: in which it lies.
            version: of the pack, as it was listed.
            at_end: False if the block itself compares versions when it has read something.

        Raises:
            VanishedError: the pack is gone, but others are still there.
            ChangedError: the pack has another version.
            SourceError: it cannot be read, or the whole source is gone: a fault that may pass.
        """
        try:
            with translated(SourceError, f"source {self.uri}: cannot read {uri}"):
                try:
                    yield
                except FileNotFoundError:
                    raise
                except Exception:  # whatever bytes of another version made a reader raise: see if they are
                    if not pack.is_still(version):
                        raise ChangedError(pack.place.uri) from None
                    raise
                if at_end and not pack.is_still(version):
                    raise ChangedError(pack.place.uri)
        except FileNotFoundError as error:
            self._files.check_alive(uri)
            raise VanishedError("vanished since it was listed") from error


class PackSource(Source):
    """Images in packs: what the kinds of them share."""

    takes_glob = True

    def __init__(self, place: Location, glob: Glob | None = None, split: str | None = None) -> None:
        super().__init__(place, glob)
        self._packs = Packs(place, glob)

    @property
    def default_name(self) -> str:
        """Name for its dataset: the file's name, or what the glob says in letters, and 8 hex digits of the URI."""
        return dataset_name(self._packs.name, self.uri)

    @property
    def expected(self) -> str:
        """What it should hold."""
        return f"{images_in_words()} {self._packs.where}"
