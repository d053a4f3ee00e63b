"""What changes when a file does, anywhere."""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Lock
from typing import IO, Any, cast

from dn2.store.files import Location

_AHEAD = 8 * 2**20  # bytes of a remote file that are fetched at once


def local_version(status: os.stat_result) -> str:
    """Return what changes when a file of this machine does."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def version_and_size(info: dict[str, Any]) -> tuple[str, int]:
    """Return what changes when a file does (an etag or checksum, else size and time), and its size, -1 if unknown."""
    size = int(-1 if info.get("size") is None else info["size"])
    for key in ("etag", "ETag", "md5Hash", "content_md5", "checksum", "CRC"):
        if info.get(key):
            return str(info[key]).strip('"'), size
    times = [
        str(info[key]) for key in ("mtime", "LastModified", "last_modified", "updated", "created") if info.get(key)
    ]
    return "-".join([str(info.get("size") or 0), *times[:1]]), size


class Pack:
    """A file that holds many images, of which each is read by itself. Several threads may use it at once.

    Attributes:
        place: where it lies.
    """

    def __init__(self, place: Location) -> None:
        self.place = place
        self._lock = Lock()
        self._looked_up = float("-inf")
        self._version = ""

    def version(self) -> str:
        """Return the version it has now.

        Raises:
            FileNotFoundError: it is gone.
        """
        if self.place.is_local:
            return local_version(os.stat(self.place.path))  # noqa: PTH116  (a Path interns every name)
        return version_and_size(self.place.fs.info(self.place.path))[0]

    def is_still(self, version: str) -> bool:
        """Return True if it has had this version until now: what was read before is of this version.

        Threads that ask while another one looks it up share the next look: a remote file is not looked up for every
        image.

        Raises:
            FileNotFoundError: it is gone.
        """
        asked = time.monotonic()
        with self._lock:
            if self._looked_up <= asked:
                began = time.monotonic()
                self._version = self.version()
                self._looked_up = began
            return self._version == version

    def open(self) -> IO[bytes]:
        """Return the file, to be read from its beginning in few requests.

        Raises:
            FileNotFoundError: it is gone.
        """
        settings: dict[str, Any] = {} if self.place.is_local else {"block_size": _AHEAD, "cache_type": "readahead"}
        file: IO[bytes] = self.place.fs.open(self.place.path, "rb", **settings)
        return file

    def read(self, start: int, size: int) -> bytes:
        """Return some of its bytes: fewer where it ends before.

        Raises:
            FileNotFoundError: it is gone.
        """
        if size <= 0:
            return b""
        if self.place.is_local:
            with Path(self.place.path).open("rb") as file:
                file.seek(start)
                return file.read(size)
        return cast(bytes, self.place.fs.cat_file(self.place.path, start=start, end=start + size))
