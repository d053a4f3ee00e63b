from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dn2.store.schema import Schema
from dn2.store.schemas import EMBEDDINGS, MANIFEST, REJECTS, SCHEMAS
from dn2.store.storage import Store
from dn2.store.tables import concat, iter_rows, read_config, read_table, writing

ROWS = {"image_id": ["a", "b"], "uri": ["file:///a", "file:///b"], "reject_reason": ["the file is empty"] * 2}


def write(store: Store, path: str) -> Path:
    with writing(store, path, REJECTS, {"setting": 1}) as file:
        file.write(ROWS)
    found = store.local(path)
    assert found is not None
    return found


def write_as_before(store: Store, path: str) -> None:
    """A file whose columns do not describe themselves, as dn2 wrote them once."""
    file = write(store, path)
    table = pq.read_table(file)
    plain = pa.schema([field.remove_metadata() for field in table.schema], table.schema.metadata)
    pq.write_table(table.cast(plain), file)
    assert pq.read_schema(file).field("uri").metadata is None


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_file_carries_the_description_of_every_column(tmp_path: Path, schema: Schema):
    """As readers outside dn2 see it."""
    with writing(Store.open(tmp_path), "a.parquet", schema, {}):
        pass
    fields = pq.read_schema(tmp_path / "a.parquet")
    told = {field.name: field.metadata[b"description"].decode() for field in fields}
    assert told == {name: schema.describe(name) for name in schema.columns.names}
    assert "" not in told.values()


def test_description_stays_when_the_length_of_embeddings_is_set():
    whole = EMBEDDINGS.with_dim(7)
    assert whole.describe("embedding") == EMBEDDINGS.describe("embedding") != ""
    assert (whole.row, whole.path) == (EMBEDDINGS.row, EMBEDDINGS.path)
    assert MANIFEST.describe("size") == "bytes; -1 where the source does not tell"


def test_file_without_descriptions_is_read_as_before(store: Store):
    write_as_before(store, "old.parquet")
    assert read_table(store, "old.parquet", REJECTS).to_pydict() == ROWS
    assert list(iter_rows(store, "old.parquet", REJECTS, ["uri"])) == [{"uri": ROWS["uri"]}]
    assert read_config(store, "old.parquet", REJECTS) == {"setting": 1}


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
def test_tables_with_and_without_descriptions_stand_below_one_another(store: Store, order: tuple[str, str]):
    write_as_before(store, "old.parquet")
    write(store, "new.parquet")
    both = concat([read_table(store, f"{name}.parquet", REJECTS) for name in order])
    assert both.to_pydict() == {name: values * 2 for name, values in ROWS.items()}


def test_table_without_descriptions_can_be_written_with_them(store: Store):
    write_as_before(store, "old.parquet")
    old = read_table(store, "old.parquet", REJECTS)
    with writing(store, "again.parquet", REJECTS, {}) as file:
        file.write({name: old[name].combine_chunks() for name in old.column_names})
    assert read_table(store, "again.parquet", REJECTS).to_pydict() == ROWS
