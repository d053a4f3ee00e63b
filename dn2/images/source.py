"""Where images come from: a folder, or a prefix behind any fsspec URL. Listed as a stream, read file by file."""

from __future__ import annotations

import errno
import heapq
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from dn2.config import fingerprint
from dn2.errors import NotFoundError, SourceError
from dn2.store.files import Location, locate, translated

SUFFIXES = (".jpg", ".jpeg", ".png")
ABSENT = "absent"  # version of a file that a table lists and that is not there


class VanishedError(SourceError):
    """A listed file is gone, while its source is still there."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    r"""One image as a listing shows it.

    Attributes:
        uri: absolute URI; bytes of a name that are not UTF-8 appear as \xNN.
        version: etag where the source has one, else size and modification time; ABSENT where there is no such file.
        size: bytes; -1 where the source does not tell.
        group_id: the set it belongs to, where the source knows it.
        label: what the source knows about it.
    """

    uri: str
    version: str
    size: int
    group_id: str | None = None
    label: str | None = None


class Source:
    """A folder or prefix of images.

    Attributes:
        uri: its absolute URI.
        ignored: files seen by the last listing that are no images.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self.uri = location.uri
        self.ignored = 0
        self._also: str | None = None
        self._without = ""

    @classmethod
    def open(cls, url: str | os.PathLike[str]) -> Source:
        """Return the source at a folder, an image file or an fsspec URL.

        Raises:
            ConfigError: the URL's protocol is unknown.
            NotFoundError: nothing is there.
            SourceError: it cannot be reached.
        """
        source = cls(locate(url))
        if not source._is_there():
            raise NotFoundError(f"source {source.uri}: nothing is there: expected a folder or prefix with images")
        return source

    @property
    def is_local(self) -> bool:
        """True for a folder of this machine."""
        return self._location.is_local

    @property
    def default_name(self) -> str:
        """Name for its dataset: the last part of the path, and 8 hex digits of the whole URI."""
        return dataset_name(PurePosixPath(self._location.path).name, self.uri)

    def _is_there(self) -> bool:
        try:
            with translated(SourceError, f"source {self.uri}: cannot be reached"):
                return bool(self._location.fs.exists(self._location.path))
        except FileNotFoundError:
            return False

    def walk(self, *, also: str | None = None, without: str = "") -> Iterator[ListedFile]:
        """Yield every image below the source, in no fixed order; other and hidden files are only counted.

        Nothing is held but the names of folders (for S3: one page of 1,000 names).

        Args:
            also: name of files that are yielded too, though they are no images: a marker.
            without: URI of the store: if it lies in this source, its files are neither yielded nor counted.

        Raises:
            SourceError: the source cannot be listed.
        """
        self.ignored, self._also, self._without = 0, also, self._own_pictures(without)
        try:
            with translated(SourceError, f"source {self.uri}: cannot be listed"):
                if self.is_local:
                    yield from self._walk_folder(self._location.path)
                elif "s3" in _protocols(self._location.fs):
                    yield from self._walk_s3()
                else:
                    yield from self._walk_any()
        except FileNotFoundError as error:
            raise SourceError(f"source {self.uri}: vanished while it was listed: {error}") from error

    def _own_pictures(self, store: str) -> str:
        """Return where the store would put pictures into this source; nothing if it lies elsewhere or around it."""
        if store == self.uri:
            return f"{store}/reports/"
        return f"{store}/" if store.startswith(f"{self.uri}/") else ""

    def _walk_folder(self, root: str) -> Iterator[ListedFile]:
        if Path(root).is_file():
            yield from self._file(root, Path(root).stat())
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
                    try:
                        status = entry.stat()
                    except OSError as error:
                        if error.errno not in (errno.ENOENT, errno.ELOOP):
                            raise
                        self.ignored += 1  # a link to nothing or to itself, or removed since
                        continue
                    if not stat.S_ISDIR(status.st_mode):
                        yield from self._file(entry.path, status)
                    elif not entry.name.startswith("."):
                        if entry.is_symlink():
                            heapq.heappush(links, entry.path)
                        else:
                            folders.append(entry.path)

    def _file(self, path: str, status: os.stat_result) -> Iterator[ListedFile]:
        if stat.S_ISREG(status.st_mode):
            yield from self._image(_printable(path), local_version(status), status.st_size)
        else:
            self.ignored += 1  # a pipe or device: reading it may wait for ever

    def _walk_s3(self) -> Iterator[ListedFile]:
        bucket, _, prefix = self._location.path.partition("/")
        single = bool(prefix) and self._location.fs.isfile(self._location.path)
        request = {"Bucket": bucket, "Prefix": prefix if single or not prefix else f"{prefix}/"}
        while True:
            page = self._location.fs.call_s3("list_objects_v2", **request)
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    yield from self._image(f"{bucket}/{item['Key']}", item["ETag"].strip('"'), int(item["Size"]))
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _walk_any(self) -> Iterator[ListedFile]:
        fs = self._location.fs
        if fs.isfile(self._location.path):
            folders: Any = [(None, None, {"": fs.info(self._location.path)})]
        else:
            folders = fs.walk(self._location.path, detail=True, on_error="raise")
        for _, _, files in folders:
            for info in files.values():
                yield from self._image(info["name"], *version_and_size(info))

    def _image(self, path: str, version: str, size: int) -> Iterator[ListedFile]:
        below = path.removeprefix(self._location.path)  # empty if the source is one file
        if self._without and (self.uri + below).startswith(self._without):
            return
        hidden = any(name.startswith(".") for name in below.split("/"))
        if (path.lower().endswith(SUFFIXES) and not hidden) or path.rpartition("/")[2] == self._also:
            yield ListedFile(self.uri + below, version, size)
        else:
            self.ignored += 1

    def read(self, uri: str) -> bytes:
        """Return the bytes of a file below the source. Safe to call from several threads.

        Raises:
            VanishedError: the file is gone, but the source is still there and has files.
            SourceError: the file or the source cannot be read: a fault that may pass.
        """
        path = self._location.path + uri.removeprefix(self.uri)
        try:
            with translated(SourceError, f"source {self.uri}: cannot read {uri}"):
                if self.is_local:
                    return Path(path).read_bytes()
                return cast(bytes, self._location.fs.cat_file(path))
        except FileNotFoundError as error:
            self._check_alive(uri)
            if "\\x" in uri:
                raise VanishedError("not found: its name is not valid UTF-8, rename it") from error
            raise VanishedError("vanished since it was listed") from error

    def _check_alive(self, uri: str) -> None:
        """Tell a vanished file from a vanished source, such as a network drive that is not mounted."""
        root = self._location.path
        try:
            with translated(SourceError, f"source {self.uri}: cannot be reached"):
                if self.is_local and Path(root).is_dir():
                    alive = any(Path(root).iterdir())
                else:
                    alive = uri == self.uri or bool(self._location.fs.exists(root))
        except FileNotFoundError:
            alive = False
        if not alive:
            raise SourceError(
                f"source {self.uri}: is empty or gone while it is read ({uri} not found): "
                f"if it lies on a network drive, mount it again, then run the same command"
            )


def _printable(path: str) -> str:
    r"""Return a file name as text: bytes that are not UTF-8 become \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def dataset_name(words: str, identity: object) -> str:
    """Return a name for a dataset: words that tell people which one it is, and 8 hex digits of what it is."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-").lower()[:40] or "root"
    return f"{slug}-{fingerprint(identity, length=8)}"


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
