"""Parquet files of image bytes as a source: what is known is listed first, the images are read row after row."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock

from dn2.errors import ConfigError, Dn2Error, NotFoundError
from dn2.sources.blobs import Cells, holds_images, iter_known
from dn2.sources.packs import MARK, Packs
from dn2.sources.source import ChangedError, ListedFile, NoBytesError
from dn2.sources.tables import Split, check_cells
from dn2.sources.versions import Pack

_COLUMNS = ("path", "uri", "group_id", "label", "split")
_OPEN = 2  # files that are read at once: threads at the end of one, and others at the beginning of the next
_DIGITS = 9  # of a row's number: URIs are in the order of the rows


class ParquetSource:
    """The images in the cells of a Parquet file, or of all that fit a glob.

    Attributes:
        uri: of the file; or of the root, and the glob.
        ignored: files that fit the glob and are no regular files.
    """

    takes_pattern = False

    def __init__(self, packs: Packs, *, split: str | None = None) -> None:
        self._packs = packs
        self._split = Split(split)
        self._lock = Lock()
        self._open: dict[tuple[str, str], Cells] = {}  # by URI and version, the one used last at the end
        self.uri = packs.uri
        self.ignored = 0

    @property
    def is_local(self) -> bool:
        """True for files of this machine."""
        return self._packs.is_local

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

        Args:
            without: URI of the store: if it lies below a glob's root, its files are passed over.

        Raises:
            ConfigError: a file has no images, a column of a type that is no text, or no file has a row of the split.
            SourceError: a file cannot be read, or changed meanwhile.
        """
        for pack in self._packs.walk(without):
            with self._packs.listing(pack) as version:
                if not holds_images(pack.place):
                    raise ConfigError(
                        f"table {pack.place.uri}: got one that lists images, expected a glob of files that hold their "
                        f"bytes: name this one by itself"
                    )
                yield from self._rows(pack, version)
        self._split.check(self.uri)
        self.ignored = self._packs.ignored

    def _rows(self, pack: Pack, version: str) -> Iterator[ListedFile]:
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

    def twice(self, uri: str) -> Dn2Error | None:
        """Return nothing: each row has a number of its own."""
