"""What a kind of Parquet file is: its columns, what a row stands for, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

_DESCRIPTION = b"description"  # key in the metadata of an Arrow field: readers outside dn2 see it too


@dataclass(frozen=True, slots=True)
class Schema:
    """A kind of Parquet file.

    Attributes:
        name: what the file's footer calls itself.
        version: raised whenever columns change meaning.
        columns: the Arrow schema; embeddings have their length set when the file is written.
        row: what a row stands for, in one sentence.
        path: where such files lie in a store, with placeholders.
    """

    name: str
    version: int
    columns: pa.Schema
    row: str = ""
    path: str = ""

    def with_dim(self, dim: int) -> Schema:
        """Return the same schema for embeddings of length `dim`."""
        index = self.columns.get_field_index("embedding")
        field = self.columns.field(index).with_type(pa.list_(pa.float16(), dim))
        return Schema(self.name, self.version, self.columns.set(index, field), self.row, self.path)

    def describe(self, column: str) -> str:
        """Return what a column holds."""
        text: bytes = (self.columns.field(column).metadata or {}).get(_DESCRIPTION, b"")
        return text.decode()


def required(name: str, kind: pa.DataType, description: str) -> pa.Field:
    """Return a column without nulls, and what it holds."""
    return pa.field(name, kind, nullable=False, metadata={_DESCRIPTION: description})


def optional(name: str, kind: pa.DataType, description: str) -> pa.Field:
    """Return a column that may hold nulls, and what it holds."""
    return pa.field(name, kind, metadata={_DESCRIPTION: description})
