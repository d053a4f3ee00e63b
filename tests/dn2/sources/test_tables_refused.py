"""Tables that cannot be a source: each is one error that says why, and nothing is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dn2
from dn2.errors import ConfigError, EmptySourceError, NotFoundError
from dn2.sources.opening import open_source
from dn2.store.storage import Store
from tests.dn2.sources.listed import FORMS, Row, as_bytes, write


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("rows", "split", "message"),
    [
        ([{"uri": "a.png"}], "test", "got the columns 'uri', expected one named 'split'"),
        (
            [{"uri": str(number), "split": f"s{number:02d}"} for number in range(30)] + [{"uri": "x", "split": None}],
            "test",
            "got split 'test', which no row has, expected one of those there are: 's00', 's01', .*'s09'$",
        ),
        ([{"uri": "a.png", "split": None}], "test", "got split 'test', which no row has, .* there are: none$"),
        ([{"url": "a.png", "Uri": "b"}], None, "got the columns 'url', 'Uri', expected one named 'uri'"),
        ([{"uri": "a", "x": "1"}, {"uri": None, "x": "1"}], None, r"row 2 \(header not counted\): got the uri"),
        ([{"uri": "a\0.png"}], None, r"row 1 .*: got the uri 'a\\x00.png', expected a path or URL"),
        ([{"uri": "nope://x/a.png"}], None, "row 1 .*: URL 'nope://x/a.png' cannot be opened"),
        ([{"uri": "ftp://me:secret@host/a.png"}], None, "row 1 .*: URL of host: got a password in it"),
        ([{"uri": "s3://"}], None, "row 1 .*: URL 's3://': got no bucket"),
        (
            [{"uri": "a.png", "group_id": "1", "label": None}, {"uri": "./a.png", "group_id": "2", "label": None}],
            None,
            r"got file://.*/a\.png with group_id '1' and label None, and again with group_id '2' and label None: exp",
        ),
        (
            [{"uri": "a.png", "label": "ok"}, {"uri": "a.png", "label": "ok"}, {"uri": "a.png", "label": None}],
            None,
            r"a\.png with group_id None and label 'ok', and again with group_id None and label None",
        ),
    ],
)  # fmt: skip
def test_table_that_cannot_work(
    form: str, rows: list[Row], split: str | None, message: str, folder: Path, store: Store
):
    table = write(folder / f"list.{form}", *rows)
    with pytest.raises(ConfigError, match=message) as caught:
        dn2.ingest(table, store, split=split)
    assert f"file://{table}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert store.names("manifests") == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "got a file that cannot be read as CSV in UTF-8: Empty CSV file"),
        ("a.csv", b"uri,x\na.png\n", "cannot be read as CSV in UTF-8: .*Row #2: Expected 2 columns, got 1"),
        ("a.csv", b"uri\n\xff.png\n", "cannot be read as CSV in UTF-8: .*invalid UTF8"),
        ("a.csv", b"\xff,uri\na,b\n", "cannot be read as CSV in UTF-8"),
        ("a.csv", b"uri,uri\na,b\n", "got 2 columns named 'uri', expected one"),
        ("a.csv", b"uri;label\na;b\n", "got the columns 'uri;label', expected one named 'uri'"),
        ("a.csv", b'uri,x\n"' + b"a" * 3_000_000, "cannot be read as CSV in UTF-8"),
        ("a.parquet", b"", "cannot be read as Parquet"),
        ("a.parquet", b"PAR1" + b"x" * 100 + b"PAR1", "cannot be read as Parquet"),
        ("a.parquet", b"uri\na.png\n", "cannot be read as Parquet"),
    ],
)
def test_file_that_is_no_table(name: str, content: bytes, message: str, tmp_path: Path, store: Store):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"table file://{tmp_path}/{name}: .*{message}"):
        dn2.ingest(tmp_path / name, store)


def test_damaged_pages_of_a_parquet_file_are_a_fault_of_the_table(folder: Path, store: Store):
    table = write(folder / "list.parquet", *({"uri": f"{number}.png"} for number in range(1000)))
    content = bytearray(table.read_bytes())
    content[4:400] = b"\xff" * 396
    table.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        dn2.ingest(table, store)


@pytest.mark.parametrize("kind", [pa.float64(), pa.bool_(), pa.list_(pa.string()), pa.binary(), pa.date32()], ids=str)
@pytest.mark.parametrize("name", ["uri", "group_id", "label", "split"])
def test_other_types_are_refused(name: str, kind: Any, folder: Path, store: Store):
    columns = {"uri": pa.array(["a.png"]), name: pa.array([None], kind)}
    pq.write_table(pa.table(columns), folder / "list.parquet")
    kind_in_words = re.match(r"\w+", str(kind))[0]  # type: ignore[index]
    said = f"column '{name}': got values of type {kind_in_words}.*, expected text or whole numbers"
    with pytest.raises(ConfigError, match=said):
        dn2.ingest(folder / "list.parquet", store)


@pytest.mark.parametrize("form", FORMS)
def test_table_without_rows_is_an_error_and_no_mass_vanishing(form: str, folder: Path, store: Store):
    first = dn2.ingest(write(folder / f"list.{form}", {"uri": "a.png"}), store)
    content = as_bytes([{"uri": "x"}], form)
    if form == "csv":
        (folder / "list.csv").write_bytes(content.partition(b"\n")[0] + b"\n")
    else:
        pq.write_table(pa.table({"uri": pa.array([], pa.string())}), folder / "list.parquet")
    with pytest.raises(EmptySourceError, match=r"got no image \(0 other files\), expected a row for each image"):
        dn2.ingest(folder / f"list.{form}", store)
    assert store.names(f"manifests/{first.name}") == [f"{first.parts[0]}.parquet"]


def test_missing_table_is_not_found(tmp_path: Path, store: Store):
    with pytest.raises(NotFoundError, match=f"source file://{tmp_path}/a.csv: nothing is there"):
        dn2.ingest(tmp_path / "a.csv", store)


def test_table_that_vanishes_before_it_is_read_is_not_found(folder: Path):
    source = open_source(write(folder / "list.csv", {"uri": "a.png"}))
    (folder / "list.csv").unlink()
    with pytest.raises(NotFoundError, match=r"table .*list\.csv: nothing is there"):
        list(source.walk())


def test_pattern_with_a_table_and_split_of_a_folder_are_refused(folder: Path, store: Store):
    table = write(folder / "list.csv", {"uri": "a.png"})
    with pytest.raises(
        ConfigError,
        match=r"list\.csv: got the pattern '\{label\}/\*' with a table, expected groups and labels in its columns",
    ):
        dn2.ingest(table, store, pattern="{label}/*")
    with pytest.raises(ConfigError, match=f"source file://{folder}: got split 'test', expected a table that ends in"):
        dn2.ingest(folder, store, split="test")


@pytest.mark.parametrize("column", ["uri", "group_id", "label"])
def test_quote_that_is_not_closed_swallows_no_rows(column: str, folder: Path, store: Store):
    """Without a refusal the rows behind it would be one long name, and their images would vanish from the dataset."""
    rows = [[f"{number}.png", "g", "l"] for number in range(20)]
    place = ["uri", "group_id", "label"].index(column)
    rows[9][place] = '"' + rows[9][place]
    (folder / "list.csv").write_text("\n".join(map(",".join, [["uri", "group_id", "label"], *rows])) + "\n")
    ours = (
        r"row 10 .*: got the label .* lines, expected one line .*: is a quote open\?"  # elsewhere, columns are missing
    )
    with pytest.raises(ConfigError, match=ours if column == "label" else "CSV parse error: Row #11: Expected 3 col"):
        dn2.ingest(folder / "list.csv", store)
    assert store.names("manifests") == []


@pytest.mark.parametrize("form", FORMS)
def test_endless_name_is_refused(form: str, folder: Path, store: Store):
    table = write(folder / f"list.{form}", {"uri": "1.png", "group_id": "g" * 5000})
    with pytest.raises(ConfigError, match=r"row 1 .*: got the group_id 'ggg.* of 5000 characters, .* at most 4096"):
        dn2.ingest(table, store)
