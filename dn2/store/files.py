"""Where a URL leads: the file system behind it and the absolute URI that names it."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from dn2.errors import ConfigError, Dn2Error, NotFoundError, SourceError

NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)  # errors that say that nothing is there
_BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")


@dataclass(frozen=True, slots=True)
class Location:
    """A folder, prefix or file, made absolute.

    Attributes:
        fs: the fsspec file system it lies on.
        path: its path there, without a slash at the end.
        uri: its absolute URI, which leads here again; local paths become file:///...
    """

    fs: Any
    path: str
    uri: str

    @property
    def is_local(self) -> bool:
        """True for a folder or file of this machine."""
        return self.uri.startswith("file://")

    @property
    def is_in_bucket(self) -> bool:
        """True where the first part of the path is a bucket, which can be asked for by itself."""
        return self.uri.partition("://")[0] in _BUCKETS


class Locator:
    """Finds many places, with one file system for each protocol and bucket. Several threads may use it at once."""

    def __init__(self) -> None:
        self._systems: dict[str, Any] = {}
        self._lock = Lock()

    def locate(self, url: str) -> Location:
        """Return where a path or URL leads, as `locate` does.

        Raises:
            ConfigError: see `locate`.
        """
        text = _without_scheme(url)
        first, chain, behind = text.partition("::")
        scheme, remote, path = first.partition("://")
        if not remote and "://" in behind:
            return locate(url)  # a protocol without a place of its own, such as simplecache::
        root = f"{scheme}://{path.partition('/')[0]}{chain}{behind}" if remote else "file"
        with self._lock:
            fs = self._systems.get(root)
            if fs is None:
                location = locate(url)
                self._systems[root] = location.fs
                return location
        if not remote:
            path = _absolute(text)
            return Location(fs, path, f"file://{path}")
        return Location(fs, fs._strip_protocol(first).rstrip("/"), text.rstrip("/"))


def locate(url: str | os.PathLike[str]) -> Location:
    """Return where a path or fsspec URL leads; relative paths are taken from the working directory.

    Raises:
        ConfigError: the URL is empty, not UTF-8 or holds a password, its protocol is unknown or the package for it
            is not installed.
    """
    import fsspec  # here: a command that only shows its help is done before

    text = os.fspath(url)
    if not text:
        raise ConfigError("got an empty path or URL: expected a folder, or a URL such as s3://bucket/prefix")
    if not _is_utf8(text):
        raise ConfigError(f"path {text!r}: got bytes that are not UTF-8, which no table can hold: rename the folder")
    text = _without_scheme(text)
    if "://" not in text:
        path = _absolute(text)
        return Location(fsspec.filesystem("file"), path, f"file://{path}")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ConfigError(f"URL {text!r} cannot be opened: {error}") from error
    if parts.password:
        raise ConfigError(
            f"URL of {parts.hostname}: got a password in it, which would be written into every file; "
            f"expected it in fsspec's own configuration"
        )
    try:
        fs, path = fsspec.core.url_to_fs(text, use_listings_cache=False, skip_instance_cache=True)
    except (ValueError, ImportError, OSError) as error:
        raise ConfigError(f"URL {text!r} cannot be opened: {error}") from error
    path = path.rstrip("/")
    if not path and text.partition("://")[0] in _BUCKETS:
        raise ConfigError(
            f"URL {text!r}: got no bucket, expected for example {text.partition('://')[0]}://bucket/prefix"
        )
    return Location(fs, path, text.rstrip("/") if path else text)


def kind_of(place: Location) -> str | None:
    """Return "file" or "directory"; None if nothing is there."""
    try:
        return str(place.fs.info(place.path)["type"])
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno in NO_FILE:
            return None
        raise


def _without_scheme(url: str) -> str:
    """Return a URL of this machine as a path, and every other one as it is."""
    for protocol in ("file://", "local://"):
        url = url.removeprefix(protocol)
    return url


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _absolute(text: str) -> str:
    if text.startswith("/"):
        return os.path.normpath(text)
    try:
        return os.path.normpath(Path(text).expanduser().absolute())
    except RuntimeError as error:  # ~name of nobody on this machine
        raise ConfigError(f"path {text!r}: {error}") from error


def relative_to(uri: str, url: str) -> str:
    """Return the absolute URI of a path or URL that is written in the file at `uri`.

    Raises:
        ConfigError: see `locate`.
    """
    return locate(joined(uri, url)).uri


def joined(uri: str, url: str) -> str:
    """Return what a path or URL that is written in the file at `uri` means anywhere; to be located."""
    if "://" in url or url.startswith(("/", "~")):
        return url
    if uri.startswith("file://"):
        return f"{uri.rpartition('/')[0]}/{url}"
    scheme, _, rest = uri.partition("://")
    bucket, _, folder = rest.rpartition("/")[0].partition("/")
    path = posixpath.normpath(f"/{folder}/{url}").strip("/")  # no number of dots leads out of the bucket
    return f"{scheme}://{'/'.join(filter(None, (bucket, path)))}"


def read_file(url: str, what: str) -> str:
    """Return the text of a small file anywhere.

    Raises:
        ConfigError: it is no text.
        NotFoundError: there is no such file.
        SourceError: it cannot be read.
    """
    location = locate(url)
    try:
        with translated(SourceError, f"{what}: cannot be read"):
            content = bytes(location.fs.cat_file(location.path))
        return content.decode()
    except FileNotFoundError as error:
        raise NotFoundError(f"{what}: nothing is there") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what}: got bytes that are not UTF-8, expected text") from error


@contextmanager
def translated(error: type[Dn2Error], what: str) -> Iterator[None]:
    """Turn whatever a file system raises inside the block into one of our errors.

    Drivers raise their own exceptions (botocore's are no OSError), so all are caught; FileNotFoundError passes
    because its meaning depends on the caller.
    """
    try:
        yield
    except (FileNotFoundError, Dn2Error):
        raise
    except Exception as reason:
        detail = str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
        raise error(f"{what}: {detail}") from reason
