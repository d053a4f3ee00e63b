"""A bounded folder on this machine for what is dear to fetch or to make again: remote banks, compiled networks."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from dn2.store.storage import Store

BANK_BYTES = 50 * 1024**3  # kept of remote banks; the least recently used go first


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
    name = hashlib.sha256(store.uri_of(path).encode()).hexdigest()[:32]
    target = cache_dir() / "banks" / name / Path(path).name
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
