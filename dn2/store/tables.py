"""Parquet files that explain themselves: schema, producer and settings in the footer, checked on reading."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dn2.errors import SchemaError
from dn2.store.schema import Schema
from dn2.store.storage import Store

Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any] | pa.Array]
ROW_GROUP = 10_000  # rows; also how many are in memory while streaming


def producer() -> str:
    """Return the name and version that every footer carries."""
    try:
        return f"dn2 {version('dn2')}"
    except PackageNotFoundError:
        return "dn2 (not installed)"


class TableWriter:
    """Appends rows to a Parquet file that is not visible yet."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema
        self.rows = 0

    def write(self, columns: Columns) -> None:
        """Append rows given as equally long columns, one for each field of the schema."""
        arrays = [pa.array(columns[field.name], type=field.type) for field in self._schema]
        batch = pa.record_batch(arrays, schema=self._schema)
        self._writer.write_batch(batch, row_group_size=ROW_GROUP)
        self.rows += batch.num_rows


@contextmanager
def writing(store: Store, path: str, schema: Schema, config: Mapping[str, Any]) -> Iterator[TableWriter]:
    """Yield a writer; the file appears at `path` when the block ends without an error.

    Args:
        store: where to.
        path: relative to the store.
        schema: which kind of file.
        config: settings and provenance, written to the footer as JSON.

    Raises:
        StoreError: the file cannot be written.
    """
    footer = {
        "dn2.schema": schema.name,
        "dn2.schema_version": str(schema.version),
        "dn2.producer": producer(),
        "dn2.config": json.dumps(config, sort_keys=True),
    }
    with store.create(path) as temporary:
        columns = schema.columns.with_metadata(footer)
        with pq.ParquetWriter(temporary, columns, compression="zstd", write_page_checksum=True) as writer:
            yield TableWriter(writer, columns)


@contextmanager
def reading(store: Store, path: str, schema: Schema) -> Iterator[pq.ParquetFile]:
    """Yield an open Parquet file whose footer says it is what `schema` describes.

    Raises:
        NotFoundError: there is no such file.
        SchemaError: it is no Parquet file, a damaged one, another kind of file, or of another version.
        StoreError: it cannot be read.
    """
    with (
        store.open_input(path) as file,
        _damage(store.uri_of(path)),
        pq.ParquetFile(file, page_checksum_verification=True) as parquet,
    ):
        footer = parquet.schema_arrow.metadata or {}
        got = (footer.get(b"dn2.schema", b"?").decode(), footer.get(b"dn2.schema_version", b"?").decode())
        if got != (schema.name, str(schema.version)):
            raise SchemaError(
                f"{store.uri_of(path)}: got schema {got[0]} version {got[1]}, "
                f"expected {schema.name} version {schema.version}"
            )
        yield parquet


@contextmanager
def _damage(uri: str) -> Iterator[None]:
    """Tell a file that is no good from a disk or network that fails: Arrow's own OSError has no number."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        detail = str(error).strip().partition("\n")[0]
        raise SchemaError(f"{uri}: got a damaged file, expected Parquet: {detail}") from error


def read_config(store: Store, path: str, schema: Schema) -> dict[str, Any]:
    """Return the settings and provenance in a file's footer."""
    return read_footer(store, path, schema)[0]


def read_footer(store: Store, path: str, schema: Schema) -> tuple[dict[str, Any], int]:
    """Return the settings and provenance in a file's footer, and the file's number of rows.

    Raises:
        NotFoundError: there is no such file.
        SchemaError: it is damaged, or another kind of file.
        StoreError: it cannot be read.
    """
    with reading(store, path, schema) as parquet:
        text = parquet.schema_arrow.metadata.get(b"dn2.config", b"")
        try:
            config = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SchemaError(f"{store.uri_of(path)}: got {text!r:.60} as dn2.config, expected JSON") from error
        if not isinstance(config, dict):
            raise SchemaError(f"{store.uri_of(path)}: got {text!r:.60} as dn2.config, expected a JSON object")
        return config, int(parquet.metadata.num_rows)


def read_table(store: Store, path: str, schema: Schema, columns: list[str] | None = None) -> pa.Table:
    """Return a whole file, or some of its columns.

    What the schema has got since the file was written is null.
    """
    wanted = schema.columns.names if columns is None else columns
    with reading(store, path, schema) as parquet:
        there = set(parquet.schema_arrow.names)
        table = parquet.read(columns=[name for name in wanted if name in there])
    for place, name in enumerate(wanted):
        if name not in there:
            field = schema.columns.field(name)
            table = table.add_column(place, field, pa.nulls(table.num_rows, field.type))
    return table.select(wanted)


def count_rows(store: Store, path: str, schema: Schema) -> int:
    """Return a file's number of rows, read from its footer."""
    with reading(store, path, schema) as parquet:
        return int(parquet.metadata.num_rows)


def iter_rows(
    store: Store, path: str, schema: Schema, columns: list[str], *, start: int = 0, stop: int | None = None
) -> Iterator[dict[str, list[Any]]]:
    """Yield the rows from `start` to `stop` as columns of Python values, at most ROW_GROUP rows at a time."""
    with reading(store, path, schema) as parquet:
        first = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            low, high = max(start - first, 0), min((stop if stop is not None else first + rows) - first, rows)
            if low < high:
                yield parquet.read_row_group(group, columns=columns).slice(low, high - low).to_pydict()
            first += rows


def vector_column(vectors: npt.NDArray[np.float16], valid: npt.NDArray[np.bool_]) -> pa.Array:
    """Return (N, D) float16 as one fixed-size-list column, null where `valid` (N,) is False."""
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=pa.array(~valid))


def column_vectors(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """Return the vectors of a fixed-size-list column that are not null, and which rows they belong to.

    `flatten()` silently drops null rows, so the mask always travels with the vectors.

    Returns:
        (M, D) float16, and (N,) bool with M times True.
    """
    valid = column.is_valid().to_numpy()
    kept = column.filter(column.is_valid()).combine_chunks()
    dim = column.type.list_size
    return kept.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim), valid


def concat(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables of one schema, one below the other."""
    return pa.concat_tables(tables)


def keep_rows(table: pa.Table, mask: npt.NDArray[np.bool_]) -> pa.Table:
    """Return the rows of a table where `mask` (N,) is True."""
    return table.filter(pa.array(mask))


def with_constant(table: pa.Table, name: str, value: str) -> pa.Table:
    """Return a table with one more text column, which holds the same value in every row."""
    return table.append_column(name, pa.array([value] * table.num_rows, pa.string()))


def replaced(table: pa.Table, columns: Columns) -> pa.Table:
    """Return a table some of whose columns hold other values of the same type."""
    for name, values in columns.items():
        place, field = table.schema.get_field_index(name), table.schema.field(name)
        table = table.set_column(place, field, pa.array(values, field.type))
    return table


def with_columns(table: pa.Table, columns: Columns, schema: Schema) -> pa.Table:
    """Return a table with more columns, of the types that a schema has for them."""
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, schema.columns.field(name).type))
    return table
