"""Which kind of source a path or URL means."""

from __future__ import annotations

import os

from dn2.errors import ConfigError, Dn2Error, NotFoundError, SourceError
from dn2.sources.blobs import holds_images
from dn2.sources.folder import FolderSource
from dn2.sources.globbed import GlobSource
from dn2.sources.globs import Glob, joined_glob, split_glob
from dn2.sources.packs import Packs
from dn2.sources.parquet import ParquetSource
from dn2.sources.source import Source
from dn2.sources.tables import TableSource
from dn2.sources.tars import COMPRESSED, TarSource
from dn2.store.files import Location, kind_of, locate, translated

_FILES = (".csv", ".parquet", ".tar", *COMPRESSED)  # endings of files that are sources of another kind than a folder
_NOT_PLAIN = (
    "got a compressed tar, of which no image can be read by itself, expected a plain one: unpack it, or write a plain "
    ".tar"
)


def open_source(url: str | os.PathLike[str], *, split: str | None = None) -> Source:
    """Return the source at a folder, a file, a glob or an fsspec URL.

    Args:
        url: a file that ends in .tar holds images, one that ends in .csv or .parquet is a table; a folder may be called
            so, too. What is there under its literal name is no glob.
        split: only the rows of a table whose column `split` has this value.

    Raises:
        ConfigError: the URL's protocol is unknown, a file cannot be a source, or a split of something else than a
            table was asked for.
        NotFoundError: nothing is there.
        SourceError: it cannot be reached.
    """
    place = locate(url)
    cut = _glob_of(place)
    lower = place.uri.lower() if cut is None else cut[1].lower()
    if split is not None and not (lower.endswith((".csv", ".parquet")) and (cut is not None or _is_file(place))):
        raise ConfigError(
            f"source {place.uri}: got split {split!r}, expected a table that ends in .csv or .parquet: only tables "
            f"have splits"
        )
    return _file_or_folder(place, split) if cut is None else _below(*cut, split)


def reader_of(uri: str) -> Source:
    """Return the source of a dataset to read its images from. A table is not read again, and may be gone.

    Raises:
        NotFoundError: nothing is there.
        SourceError: it cannot be reached.
    """
    place = locate(uri)
    cut = _glob_of(place)
    if cut is not None:
        return _below(*cut, None)
    if not place.uri.lower().endswith((".csv", ".parquet")) or _kind(place) == "directory":
        return _file_or_folder(place, None)
    try:
        return _file_or_folder(place, None)
    except Dn2Error:
        return TableSource(place)


def tells_groups(uri: str) -> bool:
    """Return True if a source may know by itself which images belong together, by its name."""
    return uri.lower().endswith((".csv", ".parquet", ".tar"))


def _glob_of(place: Location) -> tuple[str, str] | None:
    """Return root and glob of what is a glob, and not there under its literal name."""
    cut = split_glob(place.uri)
    if cut is not None:
        locate(cut[0])  # which says if a bucket is missing
    return None if cut is None or _kind(place) is not None else cut


def _kind(place: Location) -> str | None:
    with translated(SourceError, f"source {place.uri}: cannot be reached"):
        return kind_of(place)


def _is_file(place: Location) -> bool:
    return _kind(place) == "file"


def _file_or_folder(place: Location, split: str | None) -> Source:
    lower = place.uri.lower()
    if not lower.endswith(_FILES) or not _is_file(place):
        return FolderSource.open(place.uri)
    if lower.endswith(COMPRESSED):
        raise ConfigError(f"source {place.uri}: {_NOT_PLAIN}")
    if lower.endswith(".tar"):
        return TarSource(Packs(place))
    if lower.endswith(".csv") or not holds_images(place):
        return TableSource(place, split=split)
    return ParquetSource(Packs(place), split=split)


def _below(root: str, text: str, split: str | None) -> Source:
    """Return the source of a glob."""
    glob, place = Glob(text), locate(root)
    if _kind(place) is None:
        raise NotFoundError(
            f"source {place.uri}: nothing is there: expected a folder or prefix to look for {text!r} in"
        )
    lower = text.lower()
    if lower.endswith(COMPRESSED):
        raise ConfigError(f"source {joined_glob(root, text)}: {_NOT_PLAIN}")
    if lower.endswith(".csv"):
        raise ConfigError(
            f"source {joined_glob(root, text)}: got a glob of tables, expected one table, or a glob of images, of .tar "
            f"files, or of .parquet files with image bytes"
        )
    if lower.endswith(".tar"):
        return TarSource(Packs(place, glob))
    if lower.endswith(".parquet"):
        return ParquetSource(Packs(place, glob), split=split)
    return GlobSource(place, glob)
