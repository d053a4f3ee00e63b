"""The one door to storage: atomic writes and plain reads below one root, local or in a bucket."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from dn2 import layout
from dn2.errors import Dn2Error, NotFoundError, StoreError
from dn2.store.files import Location, locate, translated
from dn2.store.listing import StoredFile, walk

_STALE = 24 * 3600  # seconds after which an unfinished file cannot belong to a running process
_TEMPORARY = ".tmp"  # unfinished files lie here; no reader ever looks inside


class Store:
    """Everything dn2 writes, below one folder or bucket prefix.

    Paths given to its methods are relative to the root, with forward slashes. Whatever becomes visible is whole: a
    local file is renamed into place, an object in a bucket is put in one request.
    """

    def __init__(self, location: Location) -> None:
        self._location = location

    @classmethod
    def open(cls, url: str | os.PathLike[str] | Store) -> Store:
        """Return the store at a folder or fsspec URL; an open store is returned as it is.

        Raises:
            ConfigError: the URL's protocol is unknown.
        """
        return url if isinstance(url, Store) else cls(locate(url))

    @property
    def uri(self) -> str:
        """Absolute URI of the root."""
        return self._location.uri

    @property
    def is_local(self) -> bool:
        """True if the store is a folder of this machine."""
        return self._location.is_local

    def uri_of(self, path: str) -> str:
        """Return the absolute URI of a path."""
        return f"{self.uri}/{path}"

    def _full(self, path: str) -> str:
        return f"{self._location.path}/{path}"

    def check_writable(self) -> None:
        """Prove that files can be made here, before hours of work depend on it.

        Raises:
            StoreError: they cannot.
        """
        path = f"{_TEMPORARY}/{uuid.uuid4().hex}"
        try:
            self.write(path, b"dn2")
            self._sweep()
            self._location.fs.rm_file(self._full(path))
        except Exception as error:  # drivers raise their own
            reason = str(error.__cause__ or error).strip() or type(error).__name__
            raise StoreError(
                f"store {self.uri}: cannot write there: {reason}; expected a folder or URL where files can be made"
            ) from (error.__cause__ or error)

    def _sweep(self) -> None:
        """Remove unfinished files that killed processes left more than a day ago; never anything behind a link."""
        folder = Path(self._full(_TEMPORARY))
        if not self.is_local or folder.is_symlink():
            return
        for file in folder.iterdir():
            if layout.temporary.parse(f"{_TEMPORARY}/{file.name}") is None:
                continue
            with suppress(FileNotFoundError):  # swept by another process
                status = file.lstat()
                if stat.S_ISREG(status.st_mode) and time.time() - status.st_mtime > _STALE:
                    file.unlink()

    @contextmanager
    def _errors(self, verb: str, path: str) -> Iterator[None]:
        with translated(StoreError, f"store {self.uri}: cannot {verb} {path!r}"):
            yield

    def exists(self, path: str) -> bool:
        """Return True if a finished file or folder lies at `path`."""
        with self._errors("look up", path):
            return bool(self._location.fs.exists(self._full(path)))

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder, without hidden ones; an absent folder has none."""
        try:
            with self._errors("list", folder):
                found = self._location.fs.ls(self._full(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        names = {str(name).rstrip("/").rpartition("/")[2] for name in found}
        return sorted(name for name in names if name and not name.startswith("."))

    def walk(self, folder: str = "") -> Iterator[StoredFile]:
        """Yield every file below a folder, hidden ones too, with size and time; an absent folder has none.

        Raises:
            StoreError: a folder cannot be listed.
        """
        with self._errors("list", folder or "/"):
            yield from walk(self._location, folder)

    def modified(self, path: str) -> datetime | None:
        """Return when a file was last written, in UTC; None where the file system does not tell.

        Raises:
            NotFoundError: there is no such file.
            StoreError: it cannot be looked up.
        """
        with self._not_found(path), self._errors("look up", path):
            try:
                found = self._location.fs.modified(self._full(path))
            except NotImplementedError:  # fsspec: this file system keeps no times
                self._location.fs.info(self._full(path))  # raises if it is not there
                return None
        if not isinstance(found, datetime):
            return None
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)

    def read(self, path: str) -> bytes:
        """Return a file's bytes.

        Raises:
            NotFoundError: there is no such file.
            StoreError: it cannot be read.
        """
        with self._not_found(path), self._errors("read", path):
            return cast(bytes, self._location.fs.cat_file(self._full(path)))

    @contextmanager
    def open_input(self, path: str) -> Iterator[IO[bytes]]:
        """Yield a seekable binary reader.

        Raises:
            NotFoundError: there is no such file.
            StoreError: it cannot be read, when it is opened or later inside the block.
        """
        with self._not_found(path), self._errors("read", path), self._location.fs.open(self._full(path), "rb") as file:
            yield file

    @contextmanager
    def _not_found(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"store {self.uri}: no file {path!r}") from error

    def write(self, path: str, data: bytes) -> None:
        """Write a file at once, replacing what was there.

        Raises:
            StoreError: it cannot be written; what was there before is untouched.
        """
        with self.create(path) as temporary:
            temporary.write_bytes(data)

    def write_new(self, path: str, data: bytes) -> bool:
        """Write an object in a bucket if there is none; return False if there is one already.

        The condition is the server's to keep, and some ignore it.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            with self._errors("write", path):
                self._location.fs.pipe_file(self._full(path), data, mode="create")
        except FileNotFoundError as error:  # an S3 bucket that does not exist
            raise StoreError(f"store {self.uri}: cannot write {path!r}: {error}") from error
        except StoreError as error:
            if _says_it_exists(error.__cause__):
                return False
            raise
        return True

    def remove(self, path: str) -> None:
        """Remove a file, if it is there.

        Raises:
            StoreError: it cannot be removed.
        """
        with suppress(FileNotFoundError), self._errors("remove", path):
            self._location.fs.rm_file(self._full(path))

    def remove_empty(self, folder: str) -> None:
        """Remove a folder of this machine, and those below it, if no file lies there; a bucket has no folders."""
        root = self.local(folder)
        if root is None or root.is_symlink():
            return
        for here, _, _ in os.walk(root, topdown=False):
            with suppress(OSError):  # it is not empty
                Path(here).rmdir()

    @contextmanager
    def create(self, path: str) -> Iterator[Path]:
        """Yield a local file to fill; it appears at `path`, whole, when the block ends without an error.

        Raises:
            StoreError: it cannot be written; what was there before is untouched.
        """
        if self.is_local:
            target = Path(self._full(path))
            folder = Path(self._full(_TEMPORARY))
            with self._errors("write", path):
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    target.parent.mkdir(parents=True, exist_ok=True)
                except FileNotFoundError as error:  # a dangling link, or a parent that cannot exist
                    raise StoreError(f"store {self.uri}: cannot make its folders: {error}") from error
            temporary = folder / f"{uuid.uuid4().hex}{target.suffix}"
            try:
                with self._full_disk(path):
                    yield temporary
                    _flush(temporary)
                    temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            return
        folder = Path(tempfile.mkdtemp(prefix="dn2-"))
        try:
            temporary = folder / "file"
            with self._full_disk(path):
                yield temporary
            with self._errors("write", path):
                try:
                    self._location.fs.put_file(str(temporary), self._full(path))
                except FileNotFoundError as error:  # an S3 bucket that does not exist
                    raise StoreError(f"store {self.uri}: cannot write {path!r}: {error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _full_disk(self, path: str) -> Iterator[None]:
        """Translate what a disk raises; every other error belongs to the caller, whose block runs inside."""
        try:
            yield
        except Dn2Error:
            raise
        except OSError as error:
            raise StoreError(f"store {self.uri}: cannot write {path!r}: {error}") from error

    def local(self, path: str) -> Path | None:
        """Return a file's place on this machine's disk, or None for a remote store."""
        return Path(self._full(path)) if self.is_local else None

    def download(self, path: str, target: Path) -> None:
        """Copy a file to a local path, which appears whole or not at all.

        Raises:
            NotFoundError: there is no such file.
            StoreError: it cannot be read, or the local path cannot be written.
        """
        with translated(StoreError, f"cannot make the folder {target.parent}"):
            target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{uuid.uuid4().hex}"
        try:
            with self._not_found(path), self._errors(f"copy to {target}", path):
                self._location.fs.get_file(self._full(path), str(temporary))
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _says_it_exists(error: BaseException | None) -> bool:
    """Return True for an object that is there, or is just being made: S3's own error lies behind the driver's."""
    while error is not None:
        code = getattr(error, "response", {}).get("Error", {}).get("Code")
        if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "ConditionalRequestConflict"):
            return True
        error = error.__cause__ or error.__context__
    return False


def _flush(path: Path) -> None:
    """Force a file's bytes to disk, so that a power cut after the rename cannot leave an empty result."""
    handle: Any = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
