"""A table as a source: a CSV or Parquet file that lists images anywhere, and what is known about them."""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import cast

from dn2.errors import ConfigError, SourceError
from dn2.fields import short
from dn2.sources.globs import Glob
from dn2.sources.source import ABSENT, ListedFile, Source, VanishedError, dataset_name
from dn2.sources.versions import local_version, version_and_size
from dn2.store.files import NO_FILE, Location, Locator, joined, translated

_COLUMNS = ("uri", "group_id", "label", "split")
_THREADS, _AHEAD = 16, 256  # that look up remote files, and rows that wait for them
_LONGEST = 4_096  # characters of a cell
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_FEW = 10  # splits that a message names


class TableSource(Source):
    """The images that a table lists. None is ignored: whatever it lists is wanted, wherever it lies."""

    words = "a .csv or .parquet that lists images"
    noun = "table"
    suffixes = (".csv", ".parquet")
    tells = "columns group_id and label"
    takes_pattern = False
    takes_split = True
    may_be_gone = True

    def __init__(self, place: Location, glob: Glob | None = None, split: str | None = None) -> None:
        super().__init__(place)
        self._location = place
        self._split = Split(split)
        self._locator = Locator()

    @property
    def is_local(self) -> bool:
        """False: a table of this machine may list images in a bucket, which are read by many threads."""
        return False

    @property
    def default_name(self) -> str:
        """Name for its dataset: the table's name, the split, and 8 hex digits of URI and split."""
        return self._split.named(PurePosixPath(self._location.path).name, self.uri)

    @property
    def expected(self) -> str:
        """What it should hold."""
        return "a row for each image"

    def walk(self, *, without: str = "") -> Iterator[ListedFile]:
        """Yield a file for each row, in no fixed order; one that is not there has the version ABSENT.

        Raises:
            NotFoundError: the table is gone.
            ConfigError: the table is none, lacks a column, has no row of the split, or a row without a usable URI.
            SourceError: the table cannot be read, or a file cannot be looked up for a reason that may pass.
        """
        waiting: deque[Future[ListedFile]] = deque()
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="dn2-look")
        try:
            for place, group_id, label in self._rows():
                if place.is_local:
                    yield self._listed(place, group_id, label)
                    continue
                waiting.append(pool.submit(self._listed, place, group_id, label))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _rows(self) -> Iterator[tuple[Location, str | None, str | None]]:
        """Yield where the image of each wanted row lies, its group and its label."""
        from dn2.sources.foreign import iter_foreign_rows  # Arrow is loaded when a table is read

        number = 0
        required = ("uri", *self._split.required)
        for rows in iter_foreign_rows(self._location, _COLUMNS, required=required):
            nothing: list[str | None] = [None] * len(rows["uri"])
            for uri, group_id, label, split in zip(*(rows.get(name, nothing) for name in _COLUMNS), strict=True):
                number += 1
                check_cells(self.uri, number, uri=uri, group_id=group_id, label=label, split=split)
                if self._split.takes(split):
                    yield self._place(uri, number), group_id or None, label or None
        self._split.check(self.uri)

    def _place(self, uri: str | None, number: int) -> Location:
        row = f"table {self.uri}: row {number} (header not counted)"
        if not uri or "\0" in uri:
            raise ConfigError(f"{row}: got the uri {uri!r}, expected a path or URL")
        try:
            return self._locator.locate(joined(self.uri, uri))
        except ConfigError as error:
            raise ConfigError(f"{row}: {error}") from error

    def _listed(self, place: Location, group_id: str | None, label: str | None) -> ListedFile:
        with translated(SourceError, f"source {self.uri}: cannot look up {place.uri}"):
            found = _local_file(place) if place.is_local else _remote_file(place)
        if found is None:
            self._check_alive(place)
            found = ABSENT, -1
        return ListedFile(place.uri, *found, group_id, label)

    def read(self, uri: str, version: str = "") -> bytes:
        """Return the bytes of a file that the table lists. That it changed is seen by its size, not by its version.

        Raises:
            VanishedError: the file is gone, but its folder or bucket is still there.
            SourceError: it cannot be read: a fault that may pass.
        """
        if uri.startswith(f"{self.uri}#"):
            raise SourceError(
                f"source {self.uri}: got no Parquet file of image bytes any more, expected {uri} in it; put the file "
                f"back, or run the command again"
            )
        place = self._locator.locate(uri)
        try:
            with translated(SourceError, f"source {self.uri}: cannot read {uri}"):
                if place.is_local:
                    return Path(place.path).read_bytes()
                return cast(bytes, place.fs.cat_file(place.path))
        except FileNotFoundError as error:
            self._check_alive(place)
            raise VanishedError("vanished since it was listed") from error

    def _check_alive(self, place: Location) -> None:
        """Tell a missing file from a missing drive or bucket."""
        parts = place.path.split("/")
        above = parts[0] if place.is_in_bucket else "/".join(parts[:-1])
        try:
            with translated(SourceError, f"source {self.uri}: cannot look up {place.uri}"):
                alive = _has_entries(above or "/") if place.is_local else bool(place.fs.exists(above))
        except FileNotFoundError:
            alive = False
        if not alive:
            raise SourceError(
                f"source {self.uri}: {place.uri} not found, and its folder or bucket is empty or gone; mount the "
                f"drive, give access to the bucket, or delete the row; then run the same command"
            )


class Split:
    """Which rows of a table are wanted: those whose column `split` has one value, or all.

    Attributes:
        value: what was asked for; None: all rows.
        required: the columns that this needs.
    """

    def __init__(self, value: str | None) -> None:
        self.value = value
        self.required = () if value is None else ("split",)
        self._others: set[str] = set()
        self._found = False

    def takes(self, split: str | None) -> bool:
        """Return True if a row with this split is wanted."""
        if self.value is None or split == self.value:
            self._found = True
            return True
        if split and len(self._others) < _FEW:
            self._others.add(split)
        return False

    def check(self, uri: str) -> None:
        """Refuse a split that no row had.

        Raises:
            ConfigError: there was none; the message names some that are there.
        """
        if self.value is not None and not self._found:
            raise ConfigError(
                f"table {uri}: got split {self.value!r}, which no row has, expected one of those there are: "
                f"{', '.join(repr(one) for one in sorted(self._others)) or 'none'}"
            )

    def named(self, words: str, uri: str) -> str:
        """Return the name of a dataset of these rows."""
        if self.value is None:
            return dataset_name(words, uri)
        return dataset_name(f"{words[:20]} {self.value}", [uri, self.value])


def check_cells(table: str, number: int, **cells: str | None) -> None:
    """Refuse cells that are no names: in a CSV, a quote that is not closed makes one cell of many rows.

    Args:
        table: its URI.
        number: of the row, counted from 1.
        **cells: what it says, by column.

    Raises:
        ConfigError: a cell is too long, or has too many lines.
    """
    for name, cell in cells.items():
        lines = len(_LINE_BREAK.split(cell)) if cell and table.lower().endswith(".csv") else 1
        if lines > (2 if name == "uri" else 1) or len(cell or "") > _LONGEST:
            raise ConfigError(
                f"table {table}: row {number} (header not counted): got the {name} {short(cell)} of "
                f"{len(cell or '')} characters, {lines} lines, expected one line of at most {_LONGEST}: is a "
                f"quote open?"
            )


def _local_file(place: Location) -> tuple[str, int] | None:
    """Return version and size of a regular file; None if there is none: reading a pipe may wait for ever."""
    try:
        status = os.stat(place.path)  # noqa: PTH116  (a Path interns every name: slower, and memory for each)
    except OSError as error:
        if error.errno in NO_FILE:
            return None
        raise
    return (local_version(status), status.st_size) if stat.S_ISREG(status.st_mode) else None


def _remote_file(place: Location) -> tuple[str, int] | None:
    try:
        info = place.fs.info(place.path)
    except FileNotFoundError:
        return None
    return version_and_size(info) if info["type"] == "file" else None


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except NotADirectoryError:  # a file has its name: the disk is there
        return True
