"""Tables that others wrote: CSV and Parquet files anywhere, read as a stream of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from dn2.errors import ConfigError, NotFoundError, SourceError
from dn2.store.files import Location, translated
from dn2.store.tables import ROW_GROUP

TextColumns = dict[str, list[str | None]]
BUFFER = 2**20  # bytes of a CSV block, of which Arrow reads up to 32 ahead, and of a Parquet column at a time


def iter_foreign_rows(place: Location, columns: Sequence[str], *, required: Sequence[str]) -> Iterator[TextColumns]:
    """Yield the rows of a table as columns of text, piece by piece: memory does not grow with the table.

    Nothing is taken for a number: "007" stays "007". What is empty is None. Whole numbers in a Parquet file become
    text.

    Args:
        place: a file whose name ends in .csv or .parquet.
        columns: which are wanted; those that the table does not have are left out, and its other ones are passed over.
        required: those of them that it must have.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no such file, lacks a required column, or has one twice or of a type that is no text.
        SourceError: it cannot be read.
    """
    batches = _csv_batches if place.path.lower().endswith(".csv") else _parquet_batches
    try:
        with translated(SourceError, f"table {place.uri}: cannot be read"), undamaged(place.uri):
            for batch in batches(place, columns, required):
                yield {name: as_text(batch.column(name)) for name in batch.schema.names}
    except FileNotFoundError as error:
        raise NotFoundError(f"table {place.uri}: nothing is there") from error


@contextmanager
def undamaged(uri: str) -> Iterator[None]:
    """Tell a file that is no good from a disk or network that fails: Arrow's own OSError has no number."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        form = "CSV in UTF-8" if uri.lower().endswith(".csv") else "Parquet"
        detail = str(error).strip().partition("\n")[0][:300]
        raise ConfigError(f"table {uri}: got a file that cannot be read as {form}: {detail}") from error


def _csv_batches(place: Location, columns: Sequence[str], required: Sequence[str]) -> Iterator[Any]:
    reading = pc.ReadOptions(use_threads=False, block_size=BUFFER)
    parsing = pc.ParseOptions(newlines_in_values=True)
    with place.fs.open(place.path, "rb") as file, pc.open_csv(file, reading, parsing) as reader:
        chosen = chosen_columns(place.uri, reader.schema.names, columns, required)
    converting = pc.ConvertOptions(
        include_columns=chosen,
        column_types=dict.fromkeys(chosen, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    with place.fs.open(place.path, "rb") as file, pc.open_csv(file, reading, parsing, converting) as reader:
        yield from reader


def _parquet_batches(place: Location, columns: Sequence[str], required: Sequence[str]) -> Iterator[Any]:
    with place.fs.open(place.path, "rb") as file, pq.ParquetFile(file, buffer_size=BUFFER) as parquet:
        schema = parquet.schema_arrow
        chosen = chosen_columns(place.uri, schema.names, columns, required)
        for name in chosen:
            check_type(place.uri, name, schema.field(name).type)
        yield from parquet.iter_batches(batch_size=ROW_GROUP, columns=chosen)


def in_words(names: Sequence[str]) -> str:
    """Return the names of columns, for a message."""
    return ", ".join(repr(name[:50]) for name in names[:20]) or "none"


def chosen_columns(uri: str, names: Sequence[str], columns: Sequence[str], required: Sequence[str]) -> list[str]:
    """Return which of the wanted columns a table has, in their order.

    Raises:
        ConfigError: it lacks a required one, or has one twice.
    """
    for name in required:
        if name not in names:
            raise ConfigError(f"table {uri}: got the columns {in_words(names)}, expected one named {name!r}")
    for name in columns:
        if list(names).count(name) > 1:
            raise ConfigError(f"table {uri}: got {list(names).count(name)} columns named {name!r}, expected one")
    return [name for name in columns if name in names]


def check_type(uri: str, name: str, kind: pa.DataType) -> None:
    """Refuse a column that is neither text nor whole numbers.

    Raises:
        ConfigError: it is of another type.
    """
    if not (is_text(kind) or pa.types.is_null(kind) or pa.types.is_integer(kind)):
        raise ConfigError(f"table {uri}: column {name!r}: got values of type {kind}, expected text or whole numbers")


def is_text(kind: pa.DataType) -> bool:
    """Return True for every type of text that Arrow knows."""
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(values) or pa.types.is_large_string(values) or pa.types.is_string_view(values))


def as_text(column: Any) -> list[str | None]:
    """Return the values of a column as text."""
    return [None if value is None else str(value) for value in column.to_pylist()]
