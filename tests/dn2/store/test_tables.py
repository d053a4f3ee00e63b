from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dn2.errors import NotFoundError, SchemaError, StoreError
from dn2.store import schemas
from dn2.store.schema import Schema
from dn2.store.schemas import BANK_ROWS, CALIBRATION, MANIFEST, REJECTS
from dn2.store.storage import Store
from dn2.store.tables import (
    ROW_GROUP,
    concat,
    count_rows,
    iter_rows,
    keep_rows,
    producer,
    read_config,
    read_footer,
    read_table,
    reading,
    with_constant,
    writing,
)

PATH = "folder/file.parquet"


def place(store: Store) -> Path:
    found = store.local(PATH)
    assert found is not None
    return found


def write_rejects(store: Store, count: int, *, start: int = 0) -> None:
    with writing(store, PATH, REJECTS, {"setting": "ü"}) as file:
        file.write(columns(range(start, start + count)))


def columns(numbers: range) -> dict[str, list[str]]:
    return {name: [f"{name} {number}" for number in numbers] for name in REJECTS.columns.names}


def test_footer_names_schema_version_producer_and_settings(store: Store):
    write_rejects(store, 3)
    footer = pq.read_schema(place(store)).metadata
    assert footer[b"dn2.schema"] == b"dn2.rejects"
    assert footer[b"dn2.schema_version"] == b"1"
    assert footer[b"dn2.producer"] == producer().encode()
    assert producer().startswith("dn2 0.")
    assert read_config(store, PATH, REJECTS) == {"setting": "ü"}


def test_footer_is_read_with_the_number_of_rows(store: Store):
    write_rejects(store, 3)
    assert read_footer(store, PATH, REJECTS) == ({"setting": "ü"}, 3)


@pytest.mark.parametrize("config", [b"", b"{", b"[]", b"5", b"\xff", None])
def test_footer_without_settings_that_can_be_read_is_a_schema_error(store: Store, config: bytes | None):
    write_rejects(store, 3)
    table = pq.read_table(place(store))
    footer = {**(table.schema.metadata or {}), **({} if config is None else {b"dn2.config": config})}
    if config is None:
        del footer[b"dn2.config"]
    pq.write_table(table.replace_schema_metadata(footer), place(store))
    with pytest.raises(SchemaError, match=rf"{PATH}: got b.* as dn2\.config, expected JSON|expected a JSON object"):
        read_config(store, PATH, REJECTS)


def test_rows_come_back_as_they_were_written(store: Store):
    write_rejects(store, 3)
    assert columns(range(3)) == read_table(store, PATH, REJECTS).to_pydict()
    assert read_table(store, PATH, REJECTS, ["uri"]).column_names == ["uri"]
    assert count_rows(store, PATH, REJECTS) == 3


def test_file_without_rows_keeps_its_columns(store: Store):
    with writing(store, PATH, REJECTS, {}):
        pass
    assert REJECTS.columns.names == read_table(store, PATH, REJECTS).column_names
    assert count_rows(store, PATH, REJECTS) == 0
    assert list(iter_rows(store, PATH, REJECTS, ["uri"])) == []


def test_error_while_writing_leaves_nothing(store: Store):
    def interrupted() -> None:
        with writing(store, PATH, REJECTS, {}) as file:
            file.write(columns(range(3)))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        interrupted()
    assert not store.exists(PATH)


def test_missing_value_in_a_required_column_is_refused(store: Store):
    with pytest.raises(pa.ArrowInvalid, match="non-nullable"), writing(store, PATH, REJECTS, {}) as file:
        file.write({**columns(range(2)), "uri": ["a", None]})
    assert not store.exists(PATH)


def test_columns_of_different_length_are_refused(store: Store):
    with pytest.raises(ValueError, match="length"), writing(store, PATH, REJECTS, {}) as file:
        file.write({**columns(range(2)), "uri": ["a"]})
    assert not store.exists(PATH)


def test_missing_column_is_refused(store: Store):
    with pytest.raises(KeyError, match="uri"), writing(store, PATH, REJECTS, {}) as file:
        file.write({"image_id": ["a"], "reject_reason": ["b"]})
    assert not store.exists(PATH)


def readers(store: Store, schema: Schema) -> list[Any]:
    """Every way to read a file."""
    return [
        lambda: read_table(store, PATH, schema),
        lambda: read_config(store, PATH, schema),
        lambda: count_rows(store, PATH, schema),
        lambda: next(iter_rows(store, PATH, schema, ["uri"])),
    ]


@pytest.mark.parametrize("reader", range(4))
def test_other_kind_of_file_is_a_schema_error(store: Store, reader: int):
    write_rejects(store, 3)
    expected = rf"{store.uri}/{PATH}: got schema dn2\.rejects version 1, expected dn2\.manifest version 1"
    with pytest.raises(SchemaError, match=expected):
        readers(store, MANIFEST)[reader]()


@pytest.mark.parametrize("reader", range(4))
def test_other_version_is_a_schema_error(store: Store, reader: int):
    write_rejects(store, 3)
    newer = Schema("dn2.rejects", 2, REJECTS.columns)
    with pytest.raises(SchemaError, match=r"got schema dn2\.rejects version 1, expected dn2\.rejects version 2"):
        readers(store, newer)[reader]()


def test_foreign_parquet_file_is_a_schema_error(store: Store):
    place(store).parent.mkdir(parents=True)
    pq.write_table(pa.table({"uri": ["a"]}), place(store))
    with pytest.raises(SchemaError, match=r"got schema \? version \?, expected dn2\.rejects version 1"):
        read_table(store, PATH, REJECTS)


@pytest.mark.parametrize("reader", range(4))
@pytest.mark.parametrize("content", [b"", b"not a table", b"PAR1" + bytes(100) + b"PAR1"])
def test_file_that_is_no_parquet_is_a_schema_error(store: Store, content: bytes, reader: int):
    store.write(PATH, content)
    with pytest.raises(SchemaError, match=f"{store.uri}/{PATH}: got a damaged file, expected Parquet: ."):
        readers(store, REJECTS)[reader]()


def test_damage_anywhere_is_a_schema_error_or_harmless(store: Store):
    """Truncated, a flipped bit, eight bytes overwritten: Arrow's many errors become one."""
    write_rejects(store, 50)
    whole = store.read(PATH)
    dice = random.Random(0)
    harmless = 0
    for number in range(600):
        damaged = bytearray(whole)
        at = dice.randrange(len(whole))
        if number % 3 == 0:
            del damaged[at:]
        elif number % 3 == 1:
            damaged[at] ^= 1 << dice.randrange(8)
        else:
            damaged[at : at + 8] = dice.randbytes(8)
        place(store).write_bytes(damaged)
        with suppress(SchemaError):
            read_table(store, PATH, REJECTS)
            harmless += 1
    assert harmless < 300


def test_missing_file_is_not_found(store: Store):
    with pytest.raises(NotFoundError, match=f"no file '{PATH}'"):
        read_table(store, PATH, REJECTS)


def test_disk_that_fails_while_reading_is_not_taken_for_damage(store: Store):
    """A real input/output error: the kernel refuses to read a process's unmapped memory."""
    target = Path("/proc/self/mem")
    place(store).parent.mkdir(parents=True)
    place(store).symlink_to(target)
    with pytest.raises(StoreError, match=f"store {store.uri}: cannot read '{PATH}'"), store.open_input(PATH) as file:
        file.read(10)


def test_failing_read_inside_a_table_passes_as_a_store_error(store: Store):
    write_rejects(store, 3)
    with pytest.raises(StoreError, match=r"cannot read .*: gone fishing"), reading(store, PATH, REJECTS):
        raise ConnectionResetError("gone fishing")


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (0, 0), (0, 1), (5, 5), (3, 9), (ROW_GROUP - 1, ROW_GROUP + 1), (ROW_GROUP, None), (40, 10**6)],
)
def test_slices_are_right_across_row_groups(store: Store, start: int, stop: int | None):
    """Row groups of 7, 10,000, 2,500 and 1 rows."""
    total = 0
    with writing(store, PATH, REJECTS, {}) as file:
        for count in (7, ROW_GROUP + 2500, 1):
            file.write(columns(range(total, total + count)))
            total += count
        assert file.rows == total
    pieces = list(iter_rows(store, PATH, REJECTS, ["uri"], start=start, stop=stop))
    expected = columns(range(total)[start:stop])["uri"]
    assert expected == [uri for piece in pieces for uri in piece["uri"]]
    assert max((len(piece["uri"]) for piece in pieces), default=0) <= ROW_GROUP
    assert all(piece["uri"] for piece in pieces)


def test_reader_left_early_closes_its_file(store: Store):
    """ResourceWarning would be an error."""
    write_rejects(store, 3)
    rows = iter_rows(store, PATH, REJECTS, ["uri"])
    assert columns(range(3))["uri"] == next(rows)["uri"]
    rows.close()  # type: ignore[attr-defined]


def test_tables_are_joined_filtered_and_extended(store: Store):
    write_rejects(store, 3)
    table = read_table(store, PATH, REJECTS, ["uri"])
    both = keep_rows(concat([table, table]), pa.array([True, False, False, False, False, True]).to_numpy(False))
    assert with_constant(both, "shard", "x").to_pydict() == {"uri": ["uri 0", "uri 2"], "shard": ["x", "x"]}


def test_every_schema_has_its_own_name():
    named = [value for value in vars(schemas).values() if isinstance(value, Schema)]
    assert len(named) == len({schema.name for schema in named}) >= 7
    assert all(schema.name.startswith("dn2.") for schema in named)


@pytest.mark.parametrize("schema", [BANK_ROWS, CALIBRATION, MANIFEST, REJECTS])
def test_whatever_goes_with_an_image_carries_its_id(schema: Schema):
    """Rows are joined by id, never by order."""
    assert schema.columns.names[0] == "image_id"
    assert not schema.columns.field("image_id").nullable
