"""Every file below a folder, with its size and time: one after the other, never a whole store at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dn2.store.files import Location

_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")  # what drivers call it


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as a listing shows it.

    Attributes:
        path: relative to the root.
        size: bytes.
        modified: seconds since 1970 (UTC) when it was last written; None where the file system does not tell.
    """

    path: str
    size: int
    modified: float | None


def walk(location: Location, folder: str) -> Iterator[StoredFile]:
    """Yield the files below a folder of a place; an absent folder has none.

    A folder of this machine is read entry by entry; links to other folders are followed, but never back into a folder
    that leads here. In a bucket each folder of the first two levels is listed at once, with as few requests as can be.

    Raises:
        OSError: or whatever else the file system raises.
    """
    root = f"{location.path}/{folder}".rstrip("/")
    if location.is_local:
        yield from _local(root, folder, ())
    else:
        yield from _remote(location, root, levels=2)


def _local(full: str, folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[StoredFile]:
    try:
        here = Path(full).stat()
        if (here.st_dev, here.st_ino) in above:
            return
        entries = os.scandir(full)
    except (FileNotFoundError, NotADirectoryError):  # removed meanwhile
        return
    above = (*above, (here.st_dev, here.st_ino))
    with entries:
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                if entry.is_dir():
                    yield from _local(f"{full}/{entry.name}", path, above)
                else:
                    status = entry.stat(follow_symlinks=entry.is_file())
                    yield StoredFile(path, status.st_size, status.st_mtime)
            except FileNotFoundError:
                continue


def _remote(location: Location, full: str, levels: int) -> Iterator[StoredFile]:
    fs = location.fs
    if levels == 0:
        found = fs.find(full, detail=True, refresh=True).values()
    else:
        try:
            found = fs.ls(full, detail=True, refresh=True)
        except FileNotFoundError:
            return
    for entry in found:
        name = str(entry["name"]).rstrip("/")
        if name == full.rstrip("/"):  # an object that stands for the folder itself
            continue
        if entry.get("type") == "directory":
            yield from _remote(location, name, levels - 1) if levels else ()
        else:
            path = name.removeprefix(location.path).lstrip("/")
            yield StoredFile(path, int(entry.get("size") or 0), _time(entry))


def _time(entry: dict[str, Any]) -> float | None:
    for name in _TIMES:
        value = entry.get(name)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                continue
    return None
