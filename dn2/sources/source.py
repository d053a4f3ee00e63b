"""What a source of images is: something that lists them as a stream, and reads them one by one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from dn2.checks import fingerprint
from dn2.errors import Dn2Error, SourceError
from dn2.sources.globs import Glob, joined_glob
from dn2.store.files import Location

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
ABSENT = "absent"  # version of a file that a table lists and that is not there


class NoBytesError(SourceError):
    """The bytes of one image cannot be had, while its source is there: the message is the reason of its reject row."""


class VanishedError(NoBytesError):
    """A listed file is gone, while its source is still there."""


class ChangedError(NoBytesError):
    """The file that holds an image is not the one that was listed."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"changed since it was listed: {uri} is another file now; run the command again")


@dataclass(frozen=True, slots=True)
class ListedFile:
    r"""One image as a listing shows it.

    Attributes:
        uri: absolute URI; bytes of a name that are not UTF-8 appear as \xNN.
        version: etag where the source has one, else size and modification time; ABSENT where there is no such file.
            Of an image in a larger file, the version of that one, and where the image lies in it.
        size: bytes; -1 where the source does not tell.
        group_id: the set it belongs to, where the source knows it.
        label: what the source knows about it.
    """

    uri: str
    version: str
    size: int
    group_id: str | None = None
    label: str | None = None


class Source(ABC):
    """Where the images of a dataset come from. Each kind is a class in a file of its own; `opening` lists them.

    Attributes:
        uri: its absolute URI: that of the place, or of a glob's root and the glob.
        ignored: files seen by the last listing that are no images.
        words: what such a source is, in one phrase for people.
        noun: the same in short, such that an s makes it plural.
        suffixes: how the names of its files end, in small letters; none: it takes what no other kind does.
        refused: of a kind that cannot be a source: why, and what to do.
        tells: what in it says which group and label an image has; nothing if nothing does.
        takes_pattern: whether paths may say so, too.
        takes_split: whether a part of its images can be asked for.
        takes_glob: whether all that fits a glob can be one source.
        may_be_gone: whether its images can be read without it.
    """

    words: str
    noun: str
    suffixes: tuple[str, ...] = ()
    refused: str = ""
    tells: str = ""
    takes_pattern: bool = True
    takes_split: bool = False
    takes_glob: bool = False
    may_be_gone: bool = False

    @classmethod
    def owns(cls, place: Location) -> bool:
        """Return True if a file with such a suffix is of this kind: the kinds that share one are asked in their order.

        Raises:
            Dn2Error: it is of none of them, or cannot be read.
        """
        return True

    @classmethod
    def path_of(cls, below: str) -> str:
        """Return the path that a pattern is compared with, of what an image's URI says behind the root of a glob."""
        return below

    def __init__(self, place: Location, glob: Glob | None = None, split: str | None = None) -> None:
        self.uri = place.uri if glob is None else joined_glob(place.uri, glob.text)
        self.ignored = 0

    @property
    def is_local(self) -> bool:
        """True if all that is read lies on this machine."""
        return self.uri.startswith("file://")

    @property
    @abstractmethod
    def default_name(self) -> str:
        """Name for its dataset: words that tell people which one it is, and 8 hex digits of its identity."""

    @property
    @abstractmethod
    def expected(self) -> str:
        """What it should hold, for the message that it holds no image."""

    @abstractmethod
    def walk(self, *, without: str = "") -> Iterator[ListedFile]:
        """Yield every image, in no fixed order, in memory that does not grow with their number.

        Args:
            without: URI of the store: if it lies in this source, its files are neither yielded nor counted.

        Raises:
            ConfigError: the source is damaged, or says what cannot be.
            SourceError: it cannot be listed.
        """

    @abstractmethod
    def read(self, uri: str, version: str) -> bytes:
        """Return the bytes of an image. Safe to call from several threads.

        Args:
            uri: as it was listed.
            version: as it was listed.

        Raises:
            NoBytesError: they cannot be had, but the source is there: a reject.
            SourceError: a fault that may pass.
        """

    def twice(self, uri: str) -> Dn2Error | None:
        """Return what is wrong if a URI was listed twice; None if that is one image."""
        return None


def is_hidden(below: str) -> bool:
    """Return True if a name in a path begins with a dot.

    Args:
        below: path below a source.
    """
    return below.startswith(".") or "/." in below


def is_image(below: str) -> bool:
    """Return True if a path is that of an image: by its ending, in capitals or not, and not hidden."""
    return below.lower().endswith(SUFFIXES) and not is_hidden(below)


def images_in_words() -> str:
    """Return what files of images are called, for messages."""
    return f"files named {', '.join('*' + suffix for suffix in SUFFIXES)}"


def own_pictures(source: str, store: str) -> str:
    """Return where a store would put pictures into a source; nothing if it lies elsewhere or around it.

    Args:
        source: URI of the folder or prefix.
        store: URI of the store.
    """
    if store == source:
        return f"{store}/reports/"
    return f"{store}/" if store.startswith(f"{source}/") else ""


def dataset_name(words: str, identity: object) -> str:
    """Return a name for a dataset: words that tell people which one it is, and 8 hex digits of what it is."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-").lower()[:40] or "root"
    return f"{slug}-{fingerprint(identity, length=8)}"
