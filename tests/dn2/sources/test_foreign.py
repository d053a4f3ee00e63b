"""Tables that others wrote, as a stream of text. What is wrong with one is told in test_tables_refused.py."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from dn2.errors import NotFoundError, SourceError
from dn2.sources.foreign import iter_foreign_rows
from dn2.store.files import locate


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_rows_come_in_pieces_in_their_order_with_the_columns_that_are_there(form: str, tmp_path: Path):
    count = 120_000
    table = pa.table({"b": [f"{row:020d}" for row in range(count)], "x": [1.5] * count, "a": ["007"] * count})
    path = tmp_path / f"list.{form}"
    (pc.write_csv if form == "csv" else pq.write_table)(table, path)
    pieces = list(iter_foreign_rows(locate(path), ["a", "b", "c"], required=["b"]))
    assert {tuple(piece) for piece in pieces} == {("a", "b")}
    assert [value for piece in pieces for value in piece["b"]] == table["b"].to_pylist()
    assert {value for piece in pieces for value in piece["a"]} == {"007"}
    assert max(len(piece["a"]) for piece in pieces) < count / 2


def test_reader_may_stop_early(tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_text("a\n" + "1\n" * 2_000_000)
    rows = iter_foreign_rows(locate(path), ["a"], required=["a"])
    assert next(rows)["a"][:2] == ["1", "1"]
    rows.close()  # type: ignore[attr-defined]
    path.unlink()


def test_missing_table_is_not_found_and_a_folder_is_a_fault(tmp_path: Path):
    with pytest.raises(NotFoundError, match=f"table file://{tmp_path}/a.csv: nothing is there"):
        list(iter_foreign_rows(locate(tmp_path / "a.csv"), ["a"], required=["a"]))
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(SourceError, match=f"table file://{tmp_path}/b.csv: cannot be read: .*Is a directory"):
        list(iter_foreign_rows(locate(tmp_path / "b.csv"), ["a"], required=["a"]))
