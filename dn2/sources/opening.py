"""Which kinds of sources there are, and of which one a path or URL is."""

from __future__ import annotations

import os

from dn2.errors import ConfigError, Dn2Error, NotFoundError, SourceError
from dn2.sources.folder import FolderSource
from dn2.sources.globbed import GlobSource
from dn2.sources.globs import Glob, split_glob
from dn2.sources.parquet import ParquetSource
from dn2.sources.source import Source
from dn2.sources.tables import TableSource
from dn2.sources.tars import CompressedTar, TarSource
from dn2.store.files import Location, kind_of, locate, translated

KINDS: tuple[type[Source], ...] = (  # of those with the same suffix, the first one that owns a file takes it
    FolderSource,
    GlobSource,
    TarSource,
    CompressedTar,
    ParquetSource,
    TableSource,
)


def source_words() -> str:
    """Return what a source can be, in one sentence for people."""
    kinds = [kind for kind in KINDS if not kind.refused]
    words = [f"{kind.words}, or a glob of them" if kind.takes_glob and kind.suffixes else kind.words for kind in kinds]
    sentence = f"{'; '.join(words[:-1])}; or {words[-1]}."
    return sentence[0].upper() + sentence[1:]


def kind_named(name: str) -> type[Source]:
    """Return of which kind something is by its name alone: the first one with its suffix, else a glob of images."""
    return next(iter(_named(name)), GlobSource)


def pack_suffixes() -> tuple[str, ...]:
    """Return how files end that hold many images, of which a glob is a source."""
    return tuple(suffix for kind in KINDS if kind.takes_glob for suffix in kind.suffixes)


def tells_groups(uri: str) -> bool:
    """Return True if a source may know by itself which images belong together, by its name."""
    return bool(kind_named(uri).tells)


def open_source(url: str | os.PathLike[str], *, split: str | None = None) -> Source:
    """Return the source at a folder, a file, a glob or an fsspec URL.

    Args:
        url: a folder may be called as the files of a kind are. What is there under its literal name is no glob.
        split: only the images of this part, of a kind that takes one.

    Raises:
        ConfigError: the URL's protocol is unknown, a file or glob cannot be a source, or a split of something that has
            none was asked for.
        NotFoundError: nothing is there.
        SourceError: it cannot be reached.
    """
    place = locate(url)
    cut = _glob_of(place)
    kind = _kind_of(place) if cut is None else kind_named(cut[1])
    _check(kind, place.uri, split, globbed=cut is not None)
    if kind is FolderSource:
        return FolderSource.open(place.uri)
    if cut is None:
        return kind(place, None, split)
    root, glob = locate(cut[0]), Glob(cut[1])
    if _there(root) is None:
        raise NotFoundError(
            f"source {root.uri}: nothing is there: expected a folder or prefix to look for {glob.text!r} in"
        )
    return kind(root, glob, split)


def reader_of(uri: str) -> Source:
    """Return the source of a dataset to read its images from. A table is not read again, and may be gone.

    Raises:
        NotFoundError: nothing is there.
        SourceError: it cannot be reached.
    """
    try:
        return open_source(uri)
    except Dn2Error:
        place = locate(uri)
        kind = next((kind for kind in _named(uri) if kind.may_be_gone), None)
        if kind is None or _glob_of(place) is not None or _there(place) == "directory":
            raise
        return kind(place)


def _named(name: str) -> list[type[Source]]:
    return [kind for kind in KINDS if name.lower().endswith(kind.suffixes)]


def _kind_of(place: Location) -> type[Source]:
    named = _named(place.uri)
    if not named or _there(place) != "file":
        return FolderSource
    return next((kind for kind in named if kind.owns(place)), FolderSource)


def _glob_of(place: Location) -> tuple[str, str] | None:
    """Return root and glob of what is a glob, and not there under its literal name."""
    cut = split_glob(place.uri)
    if cut is not None:
        locate(cut[0])  # which says if a bucket is missing
    return None if cut is None or _there(place) is not None else cut


def _there(place: Location) -> str | None:
    with translated(SourceError, f"source {place.uri}: cannot be reached"):
        return kind_of(place)


def _check(kind: type[Source], uri: str, split: str | None, *, globbed: bool) -> None:
    """Refuse what a kind does not take."""
    if split is not None and not kind.takes_split:
        others = [other for other in KINDS if other.takes_split]
        nouns = sorted({other.noun for other in others})
        suffixes = sorted({suffix for other in others for suffix in other.suffixes})
        raise ConfigError(
            f"source {uri}: got split {split!r}, expected a {' or '.join(nouns)} that ends in {' or '.join(suffixes)}: "
            f"only {'s and '.join(nouns)}s have splits"
        )
    if kind.refused:
        raise ConfigError(f"source {uri}: got {kind.words}, {kind.refused}")
    if globbed and not kind.takes_glob:
        packs = ", of ".join(f"{suffix} files" for suffix in pack_suffixes())
        raise ConfigError(
            f"source {uri}: got a glob of {kind.noun}s, expected one {kind.noun}, or a glob of images, of {packs}"
        )
