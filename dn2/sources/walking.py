"""Every file below a folder or prefix, as a stream: nothing is held but the names of folders still to be searched."""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dn2.sources.globs import Glob
from dn2.sources.versions import local_version, version_and_size
from dn2.store.files import Location

Found = tuple[str, str | None, int]  # path below the root, version (None: no regular file), size


def walk(root: Location, glob: Glob | None = None) -> Iterator[Found]:
    """Yield every file below a root, in no fixed order; a root that is a file is yielded with an empty path.

    Hidden folders of this machine are not entered, links to folders are, each folder once. On S3 one page of 1,000
    names is held.

    Args:
        root: where to begin.
        glob: folders below which nothing fits are passed over; files that do not fit may be yielded all the same.
    """
    if root.is_local:
        yield from _walk_folder(root.path, glob)
    elif "s3" in _protocols(root.fs):
        yield from _walk_s3(root, glob)
    else:
        yield from _walk_any(root, glob)


def _walk_folder(root: str, glob: Glob | None) -> Iterator[Found]:
    if Path(root).is_file():
        yield "", *_told(Path(root).stat())
        return
    folders = [root]
    links: list[str] = []  # walked last and by name, so that what a folder is called does not depend on chance
    seen = set()  # folders by device and inode: a link back up must not walk for ever
    while folders or links:
        folder = folders.pop() if folders else heapq.heappop(links)
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                below = entry.path.removeprefix(root)
                try:
                    status = entry.stat()
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ELOOP):
                        raise
                    yield printable(below), None, -1  # a link to nothing or to itself, or removed since
                    continue
                if not stat.S_ISDIR(status.st_mode):
                    yield printable(below), *_told(status)
                elif not entry.name.startswith(".") and (glob is None or glob.enters(printable(below))):
                    if entry.is_symlink():
                        heapq.heappush(links, entry.path)
                    else:
                        folders.append(entry.path)


def _told(status: os.stat_result) -> tuple[str | None, int]:
    if not stat.S_ISREG(status.st_mode):
        return None, -1  # a pipe or device: reading it may wait for ever
    return local_version(status), status.st_size


def _walk_s3(root: Location, glob: Glob | None) -> Iterator[Found]:
    bucket, _, prefix = root.path.partition("/")
    single = bool(prefix) and root.fs.isfile(root.path)
    prefix = prefix if single or not prefix else f"{prefix}/"
    request = {"Bucket": bucket, "Prefix": prefix + (glob.beginning if glob is not None and not single else "")}
    while True:
        page = root.fs.call_s3("list_objects_v2", **request)
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):
                below = f"{bucket}/{item['Key']}".removeprefix(root.path)
                yield below, item["ETag"].strip('"'), int(item["Size"])
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _walk_any(root: Location, glob: Glob | None) -> Iterator[Found]:
    fs = root.fs
    if fs.isfile(root.path):
        folders: Any = [(None, {}, {"": fs.info(root.path)})]
    else:
        folders = fs.walk(root.path, detail=True, on_error="raise")
    for _, below, files in folders:
        for info in files.values():
            yield info["name"].removeprefix(root.path), *version_and_size(info)
        for name, info in list(below.items()):
            if glob is not None and not glob.enters(info["name"].removeprefix(root.path)):
                del below[name]  # fsspec enters those that are left


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def printable(path: str) -> str:
    r"""Return a file name as text: bytes that are not UTF-8 become \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
