"""What a source of images is: something that lists them as a stream, and reads them one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from dn2.config import fingerprint
from dn2.errors import Dn2Error, SourceError

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


class Source(Protocol):
    """Where the images of a dataset come from. Each kind is a file of its own; `dn2.sources.opening` knows them all.

    Attributes:
        uri: its absolute URI.
        ignored: files seen by the last listing that are no images.
        takes_pattern: whether paths may say what is known about the images; else the source itself tells.
    """

    uri: str
    ignored: int
    takes_pattern: bool

    @property
    def is_local(self) -> bool:
        """True if all that is read lies on this machine."""

    @property
    def default_name(self) -> str:
        """Name for its dataset: words that tell people which one it is, and 8 hex digits of its identity."""

    @property
    def expected(self) -> str:
        """What it should hold, for the message that it holds no image."""

    def walk(self, *, without: str = "") -> Iterator[ListedFile]:
        """Yield every image, in no fixed order, in memory that does not grow with their number.

        Args:
            without: URI of the store: if it lies in this source, its files are neither yielded nor counted.

        Raises:
            ConfigError: the source is damaged, or says what cannot be.
            SourceError: it cannot be listed.
        """

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
