"""Images in the cells of Parquet files that others wrote: what is known about each row, and the bytes in it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dn2.errors import ConfigError, NotFoundError, SourceError
from dn2.sources.foreign import BUFFER, TextColumns, as_text, check_type, chosen_columns, in_words, is_text, undamaged
from dn2.sources.versions import Pack
from dn2.store.files import Location, translated
from dn2.store.tables import ROW_GROUP

IMAGE = "image"  # name of the column
_BATCH, _MOST = 16 * 2**20, 64  # bytes, roughly, and rows that are decoded at once
_KEPT, _BEHIND = 64 * 2**20, 256  # bytes, and rows in front of the one asked for, that wait for another thread


def holds_images(place: Location) -> bool:
    """Return True if a Parquet file has images in its cells, False if it lists the URIs of some.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it does neither, or is no Parquet file.
        SourceError: it cannot be read.
    """
    with ExitStack() as stack:
        schema = _opened(Pack(place), stack).schema_arrow
    chosen_columns(place.uri, schema.names, [IMAGE], [])
    twice = [name for name in (f"{IMAGE}.bytes", f"{IMAGE}.path") if name in schema.names and IMAGE in schema.names]
    if twice:
        raise ConfigError(
            f"table {place.uri}: got a column named {twice[0]!r} and one named {IMAGE!r}, expected one of them; "
            f"rename the other"
        )
    if _bytes_column(schema) is not None:
        return True
    if "uri" in schema.names:
        return False
    got = f", {IMAGE!r} of type {schema.field(IMAGE).type}" if IMAGE in schema.names else ""
    raise ConfigError(
        f"table {place.uri}: got the columns {in_words(schema.names)}{got}, expected one named 'uri' (paths of images) "
        f"or {IMAGE!r} (their bytes: binary, or a struct with bytes and path)"
    )


def iter_known(pack: Pack, columns: Sequence[str], *, required: Sequence[str]) -> Iterator[tuple[int, TextColumns]]:
    """Yield what is known about the rows, piece by piece: how many they are, and columns of text. No image is read.

    Args:
        pack: a Parquet file with images in its cells.
        columns: which are wanted; those that the file does not have are left out. `path` is that of the struct.
        required: those of them that it must have.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no such file, lacks a required column, or has one twice or of a type that is no text.
        SourceError: it cannot be read.
    """
    uri = pack.place.uri
    with ExitStack() as stack:
        parquet = _opened(pack, stack)
        schema = parquet.schema_arrow
        chosen = chosen_columns(uri, schema.names, [name for name in columns if name != "path"], required)
        for name in chosen:
            check_type(uri, name, schema.field(name).type)
        path = ["path"] if "path" in columns and _has_path(schema) else []
        wanted = [*chosen, *(f"{IMAGE}.path" for _ in path)]
        if not wanted:
            yield parquet.metadata.num_rows, {}
            return
        for batch in parquet.iter_batches(batch_size=ROW_GROUP, columns=wanted, use_threads=False):
            found = {name: as_text(batch.column(name)) for name in chosen}
            for name in path:
                found[name] = [value and value["path"] for value in batch.column(IMAGE).to_pylist()]
            yield batch.num_rows, found


class Cells:
    """The bytes in the cells of one Parquet file, read row after row in bounded memory. One thread at a time.

    Rows that were passed over wait a while for a thread that is a little late. To go back is allowed: the row group is
    read from its beginning again.

    Args:
        pack: the file.
        check: called when something was read from it; raises if that may not be used.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is damaged, or has no images.
        SourceError: it cannot be read.
    """

    def __init__(self, pack: Pack, check: Callable[[], None]) -> None:
        self._uri, self._check = pack.place.uri, check
        self._stack = ExitStack()
        with self._stack:
            self._parquet = _opened(pack, self._stack)
            column = _bytes_column(self._parquet.schema_arrow)
            if column is None:
                raise ConfigError(f"table {self._uri}: got no column {IMAGE!r} that holds bytes; list it again")
            self._column = column
            groups = (self._parquet.metadata.row_group(n) for n in range(self._parquet.num_row_groups))
            self._ends = list(accumulate(group.num_rows for group in groups))
            self._stack = self._stack.pop_all()
        self._batches: Iterator[Any] = iter(())
        self._next = self._end = 0  # row that the next batch begins with, and end of the row group
        self._waiting: dict[int, bytes | None] = {}
        self._bytes = 0

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def read(self, row: int) -> bytes | None:
        """Return what is in a cell; None if that is null.

        Args:
            row: its number, from 0.

        Raises:
            ConfigError: the file is damaged, or has no such row.
            SourceError: it cannot be read.
        """
        if row not in self._waiting:
            if not self._next <= row < self._end:
                self._enter(row)
            while self._next <= row:
                self._load(row)
        value = self._waiting.pop(row)
        self._bytes -= len(value or b"")
        return value

    def _enter(self, row: int) -> None:
        number = bisect_right(self._ends, row)
        if number == len(self._ends):
            raise ConfigError(
                f"table {self._uri}: got {self._ends[-1] if self._ends else 0} rows, expected one of number {row}"
            )
        group = self._parquet.metadata.row_group(number)
        self._end = self._ends[number]
        self._next = self._end - group.num_rows
        rows = max(1, min(_MOST, _BATCH * group.num_rows // max(1, group.total_byte_size)))
        self._batches = self._parquet.iter_batches(rows, [number], [self._column], use_threads=False)

    def _load(self, row: int) -> None:
        """Read the next batch; keep its cells from a few in front of the row that is asked for."""
        with undamaged(self._uri):
            batch = next(self._batches)
            self._check()
            skipped = min(max(0, row - _BEHIND - self._next), batch.num_rows)
            for at, value in enumerate(batch.column(0).slice(skipped).to_pylist(), start=self._next + skipped):
                found = value["bytes"] if isinstance(value, dict) else value
                self._bytes += len(found or b"") - len(self._waiting.get(at) or b"")
                self._waiting[at] = found
        self._next += batch.num_rows
        while self._bytes > _KEPT or len(self._waiting) > 2 * _BEHIND:
            first = next(iter(self._waiting))
            if first == row:
                break
            self._bytes -= len(self._waiting.pop(first) or b"")


def _opened(pack: Pack, stack: ExitStack) -> Any:
    """Return an open Parquet file, which a stack closes; what is wrong with it is told until then."""
    uri = pack.place.uri
    try:
        with translated(SourceError, f"table {uri}: cannot be read"), undamaged(uri):
            file = stack.enter_context(pack.open())
            # a row group is not fetched as a whole: it may be larger than memory
            return stack.enter_context(pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False))
    except FileNotFoundError as error:
        raise NotFoundError(f"table {uri}: nothing is there") from error


def _bytes_column(schema: pa.Schema) -> str | None:
    """Return the column with the bytes of images, as Parquet calls it; None if there is none."""
    if IMAGE not in schema.names:
        return None
    kind = schema.field(IMAGE).type
    if _is_binary(kind):
        return IMAGE
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type):
        return f"{IMAGE}.bytes"
    return None


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _has_path(schema: pa.Schema) -> bool:
    kind = schema.field(IMAGE).type
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 and is_text(kind.field("path").type)
