"""Tables that list images, for tests of sources."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import dn2
from dn2.store.storage import Store
from tests.dn2.images.listing import part_rows

FORMS = ["csv", "parquet"]
Row = dict[str, str | None]


def quoted(value: str | None) -> str:
    return "" if value is None else '"' + value.replace('"', '""') + '"'


def as_bytes(rows: list[Row], form: str) -> bytes:
    """A table as a file of this form."""
    names = list(rows[0])
    if form == "csv":
        return "".join(
            ",".join(line) + "\n" for line in [names, *([quoted(row[name]) for name in names] for row in rows)]
        ).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names}), sink)
    return sink.getvalue().to_pybytes()


def write(path: Path, *rows: Row) -> Path:
    path.write_bytes(as_bytes(list(rows), path.suffix[1:].lower()))
    return path


def known(store: Store, dataset: dn2.Dataset, number: int = -1) -> list[tuple[str, str | None, str | None]]:
    """File name, group and label in the rows of a manifest part."""
    rows = part_rows(store, dataset, number)
    return [(row["uri"].rpartition("/")[2], row["group_id"], row["label"]) for row in rows]


def counts(dataset: dn2.Dataset) -> tuple[int, int, int, int]:
    return dataset.images, dataset.added, dataset.changed, dataset.vanished
