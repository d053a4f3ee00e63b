"""A glob as a source: the images below a root whose paths fit."""

from __future__ import annotations

from collections.abc import Iterator

from dn2.errors import Dn2Error, SourceError
from dn2.sources.folder import FolderSource
from dn2.sources.globs import Glob
from dn2.sources.source import ListedFile, Source, dataset_name, images_in_words, is_image, own_pictures
from dn2.sources.walking import walk
from dn2.store.files import Location, translated


class GlobSource(Source):
    """The images whose paths fit a glob; by default, all below its root."""

    words = "a quoted glob of images"
    noun = "glob"
    takes_glob = True

    def __init__(self, place: Location, glob: Glob | None = None, split: str | None = None) -> None:
        self._root, self._glob = place, glob or Glob("**")
        super().__init__(place, self._glob)
        self._files = FolderSource(place)

    @property
    def default_name(self) -> str:
        """Name for its dataset: the root's name, what the glob says in letters, and 8 hex digits of the URI."""
        return dataset_name(f"{self._root.path.rpartition('/')[2]} {self._glob.text}", self.uri)

    @property
    def expected(self) -> str:
        """What should fit the glob."""
        return (
            f"{images_in_words()} whose whole path below {self._root.uri} fits {self._glob.text!r}; "
            f"** stands for any number of folders"
        )

    def walk(self, *, without: str = "") -> Iterator[ListedFile]:
        """Yield every image that fits; other and hidden files that fit are only counted.

        Raises:
            SourceError: the files cannot be listed.
        """
        self.ignored = 0
        for uri, below, version, size in fitting(self._root, self._glob, self.uri, without):
            if version is not None and is_image(below):
                yield ListedFile(uri, version, size)
            else:
                self.ignored += 1

    def read(self, uri: str, version: str = "") -> bytes:
        """Return the bytes of a file, as a folder does.

        Raises:
            VanishedError: the file is gone, but the root is still there and has files.
            SourceError: it cannot be read: a fault that may pass.
        """
        return self._files.read(uri, version)

    def twice(self, uri: str) -> Dn2Error | None:
        """Return the error of two files with one URI."""
        return self._files.twice(uri)


def fitting(root: Location, glob: Glob | None, source: str, without: str) -> Iterator[tuple[str, str, str | None, int]]:
    """Yield URI, path below the root, version and size of each file that fits.

    Args:
        root: where to begin; or a file.
        glob: None: all fit.
        source: URI for messages.
        without: URI of the store, which is passed over.

    Raises:
        SourceError: the files cannot be listed.
    """
    own = own_pictures(root.uri, without)
    try:
        with translated(SourceError, f"source {source}: cannot be listed"):
            for below, version, size in walk(root, glob):
                uri = root.uri + below
                if (glob is None or glob.takes(below)) and not (own and uri.startswith(own)):
                    yield uri, below, version, size
    except FileNotFoundError as error:
        raise SourceError(f"source {source}: vanished while it was listed: {error}") from error
