"""Where a URL leads: the file system behind it and the absolute URI that names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from dn2.errors import ConfigError, Dn2Error


@dataclass(frozen=True, slots=True)
class Location:
    """A folder or prefix, made absolute.

    Attributes:
        fs: the fsspec file system it lies on.
        path: its path there, without a slash at the end.
        uri: its absolute URI; local paths become file:///...
    """

    fs: Any
    path: str
    uri: str

    @property
    def is_local(self) -> bool:
        """True for a folder of this machine."""
        return self.uri.startswith("file://")


def locate(url: str | os.PathLike[str]) -> Location:
    """Return where a path or fsspec URL leads; relative paths are taken from the working directory.

    Raises:
        ConfigError: the URL is empty, its protocol is unknown or the package for it is not installed.
    """
    text = os.fspath(url)
    if not text:
        raise ConfigError("got an empty path or URL: expected a folder, or a URL such as s3://bucket/prefix")
    if "://" not in text or text.startswith("file://"):
        path = str(Path(text.removeprefix("file://")).expanduser().absolute())
        path = os.path.normpath(path)
        return Location(fsspec.filesystem("file"), path, f"file://{path}")
    try:
        fs, path = fsspec.core.url_to_fs(text, use_listings_cache=False, skip_instance_cache=True)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"URL {text!r} cannot be opened: {error}") from error
    path = path.rstrip("/")
    return Location(fs, path, f"{text.partition('://')[0]}://{path.lstrip('/')}")


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
