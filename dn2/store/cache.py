"""A bounded folder on this machine for what is slow to fetch or to make again: banks, weights, compiled networks."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from dn2.errors import NotFoundError, SourceError
from dn2.store.files import locate, translated
from dn2.store.storage import Store

BANK_BYTES = 50 * 1024**3  # kept of remote banks, and of remote weights; the least recently used go first


def cache_dir() -> Path:
    """Return DN2_CACHE_DIR if set, else `dn2` below the user's cache folder (XDG_CACHE_HOME or ~/.cache)."""
    own = os.environ.get("DN2_CACHE_DIR")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dn2"


def local_copy(store: Store, path: str) -> Path:
    """Return a local path with the content of an immutable file of the store, fetched at most once.

    Raises:
        NotFoundError: there is no such file.
        StoreError: it cannot be read.
    """
    here = store.local(path)
    if here is not None:
        return here
    return _fetched(store, path, "banks", store.uri_of(path))


def local_file(url: str, what: str) -> Path:
    """Return a local path with the content of a file anywhere, fetched again only when it has changed.

    Args:
        url: path or URL of the file.
        what: it is, for messages.

    Raises:
        ConfigError: the URL's protocol is unknown.
        NotFoundError: there is no such file.
        SourceError: it cannot be reached.
        StoreError: it cannot be read.
    """
    place = locate(url)
    try:
        with translated(SourceError, f"{what}: cannot be reached"):
            is_file, identity = place.fs.isfile(place.path), "" if place.is_local else place.fs.ukey(place.path)
    except FileNotFoundError:
        is_file, identity = False, ""
    if not is_file:
        raise NotFoundError(f"{what}: no file is there")
    if place.is_local:
        return Path(place.path)
    folder, _, name = place.uri.rpartition("/")
    return _fetched(Store.open(folder), name, "weights", f"{place.uri}\0{identity}")


def _fetched(store: Store, path: str, kind: str, identity: str) -> Path:
    """Return the local copy of a file, which is named by its identity."""
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    target = cache_dir() / kind / name / Path(path).name
    if not target.exists():
        store.download(path, target)
        _evict(target.parent.parent, keep=target.parent)
    os.utime(target.parent)
    return target


def _evict(folder: Path, *, keep: Path) -> None:
    """Remove the least recently used entries until the folder is within bounds."""
    entries = []
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):  # another process evicts, or finishes its download, meanwhile
            entries.append((entry.stat().st_mtime, sum(file.stat().st_size for file in entry.iterdir()), entry))
    total = sum(size for _, size, _ in entries)
    for _, size, entry in sorted(entries):
        if total <= BANK_BYTES:
            return
        if entry != keep:
            shutil.rmtree(entry, ignore_errors=True)
            total -= size
