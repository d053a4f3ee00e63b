"""Parquet files of image bytes as a source: what is known is listed first, the images are read row after row."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING

from dn2.errors import ConfigError, NotFoundError
from dn2.sources.globs import Glob
from dn2.sources.packs import MARK, PackSource
from dn2.sources.source import ChangedError, ListedFile, NoBytesError
from dn2.sources.tables import Split, TableSource, check_cells
from dn2.sources.versions import Pack
from dn2.store.files import Location

if TYPE_CHECKING:
    from dn2.sources.blobs import Cells  # Arrow is loaded when a file is read: --help must not wait for it

_COLUMNS = ("path", "uri", "group_id", "label", "split")
_OPEN = 2  # files that are read at once: threads at the end of one, and others at the beginning of the next
_DIGITS = 9  # of a row's number: URIs are in the order of the rows


class ParquetSource(PackSource):
    """The images in the cells of a Parquet file, or of all that fit a glob."""

    words = "a .parquet of image bytes"
    noun = TableSource.noun
    suffixes = (".parquet",)
    tells = TableSource.tells
    takes_pattern = False
    takes_split = True

    def __init__(self, place: Location, glob: Glob | None = None, split: str | None = None) -> None:
        super().__init__(place, glob)
        self._split = Split(split)
        self._lock = Lock()
        self._open: dict[tuple[str, str], Cells] = {}  # by URI and version, the one used last at the end

    @classmethod
    def owns(cls, place: Location) -> bool:
        """Return True if a file has images in its cells, False if it lists the URIs of some."""
        from dn2.sources.blobs import holds_images

        return holds_images(place)

    @property
    def default_name(self) -> str:
        """Name for its dataset: words of file or glob, the split, and 8 hex digits of URI and split."""
        return self._split.named(self._packs.name, self.uri)

    @property
    def expected(self) -> str:
        """What it should hold."""
        return f"a row for each image {self._packs.where}"

    def walk(self, *, without: str = "") -> Iterator[ListedFile]:
        """Yield an image for each row, in no fixed order. The bytes of the images are not read.

        Raises:
            ConfigError: a file has no images, a column of a type that is no text, or no file has a row of the split.
            SourceError: a file cannot be read, or changed meanwhile.
        """
        for pack in self._packs.walk(without):
            with self._packs.listing(pack) as version:
                if not self.owns(pack.place):
                    raise ConfigError(
                        f"table {pack.place.uri}: got one that lists images, expected a glob of files that hold their "
                        f"bytes: name this one by itself"
                    )
                yield from self._rows(pack, version)
        self._split.check(self.uri)
        self.ignored = self._packs.ignored

    def _rows(self, pack: Pack, version: str) -> Iterator[ListedFile]:
        from dn2.sources.blobs import iter_known

        number = -1
        uri = pack.place.uri
        for count, columns in iter_known(pack, _COLUMNS, required=self._split.required):
            nothing: list[str | None] = [None] * count
            for path, listed, group_id, label, split in zip(
                *(columns.get(name, nothing) for name in _COLUMNS), strict=True
            ):
                number += 1
                name = (path or listed or "").lstrip("/")
                check_cells(uri, number + 1, path=name, group_id=group_id, label=label, split=split)
                if self._split.takes(split):
                    place = f"{uri}{MARK}{number:0{_DIGITS}d}"
                    yield ListedFile(f"{place}/{name}" if name else place, version, -1, group_id or None, label or None)

    def read(self, uri: str, version: str) -> bytes:
        """Return the bytes of an image. Safe to call from several threads; fast if rows are asked for in their order.

        Raises:
            NoBytesError: the cell is null.
            VanishedError: the file is gone, but others that fit the glob are still there.
            ChangedError: the file is not the one that was listed.
            ConfigError: the file is damaged.
            SourceError: it cannot be read, or the source is gone: a fault that may pass.
        """
        pack, name = self._packs.find(uri)
        row = name.partition("/")[0]
        if not (row.isascii() and row.isdecimal()):
            raise ChangedError(self.uri)
        with self._lock, self._packs.reading(uri, pack, version, at_end=False):
            value = self._cell(pack, version, int(row))
        if value is None:
            raise NoBytesError("no bytes: the cell of its row is null")
        return value

    def _cell(self, pack: Pack, version: str, row: int) -> bytes | None:
        from dn2.sources.blobs import Cells

        key = pack.place.uri, version

        def check() -> None:
            if not pack.is_still(version):
                raise ChangedError(pack.place.uri)

        try:
            cells = self._open.pop(key, None) or Cells(pack, check)
        except NotFoundError as error:
            raise FileNotFoundError(str(error)) from error
        try:
            value = cells.read(row)
        except BaseException:
            cells.close()
            raise
        self._open[key] = cells
        while len(self._open) > _OPEN:
            self._open.pop(next(iter(self._open))).close()
        return value
