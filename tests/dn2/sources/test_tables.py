"""Tables as sources: what their rows become, and what a change of a row does."""

from __future__ import annotations

import gc
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dn2
from dn2.errors import ConfigError
from dn2.sources.folder import FolderSource
from dn2.sources.opening import open_source, reader_of
from dn2.sources.tables import TableSource
from dn2.store.files import locate
from dn2.store.storage import Store
from tests.dn2.images.listing import live_uris, part_rows, touch
from tests.dn2.sources.listed import FORMS, Row, counts, known, write


@pytest.mark.parametrize("form", FORMS)
def test_rows_become_images_with_group_and_label(form: str, folder: Path, store: Store):
    table = write(
        folder / f"list.{form}",
        {"remark": "x", "uri": "a.png", "label": "ok", "group_id": "007"},
        {"remark": None, "uri": f"{folder}/sub/../b.png", "label": None, "group_id": "7"},
        {"remark": "NA", "uri": f"file://{folder}/sub/c.jpg", "label": "NA", "group_id": None},
    )
    found = dn2.ingest(table, store)
    assert counts(found) == (3, 3, 0, 0)
    assert (found.source, found.ignored, found.pattern, found.ungrouped) == (f"file://{table}", 0, None, 0)
    assert known(store, found) == [("a.png", "007", "ok"), ("b.png", "7", None), ("c.jpg", None, "NA")]
    again = dn2.ingest(table, store)
    assert (again.parts, counts(again)) == (found.parts, (3, 0, 0, 0))


@pytest.mark.parametrize("form", FORMS)
def test_images_have_the_ids_that_they_have_in_a_folder(form: str, folder: Path, store: Store):
    table = write(folder / f"list.{form.upper()}", *({"uri": name} for name in ("sub/c.jpg", "a.png", "b.png")))
    listed, walked = dn2.ingest(table, store), dn2.ingest(folder, store)
    assert part_rows(store, listed) == part_rows(store, walked)
    assert listed.name != walked.name


def test_whatever_is_listed_is_wanted(folder: Path, store: Store):
    """Any ending, hidden, and in the store."""
    touch(folder, "scan.dat", ".hidden.png", "list.csv")
    touch(Path(store.uri.removeprefix("file://")), "x.png")
    table = write(
        folder / "list.csv", *({"uri": name} for name in ("scan.dat", ".hidden.png", "list.csv", "../store/x.png"))
    )
    assert dn2.ingest(table, store).images == 4


def test_folder_that_is_called_like_a_table_is_a_folder(tmp_path: Path, store: Store):
    touch(tmp_path / "photos.csv", "a.png")
    assert dn2.ingest(tmp_path / "photos.csv", store).images == 1
    assert isinstance(reader_of(f"file://{tmp_path}/photos.csv"), FolderSource)


def test_tables_of_the_same_name_and_splits_of_one_get_different_datasets(folder: Path, store: Store):
    rows: list[Row] = [{"uri": "a.png", "split": "train"}, {"uri": "b.png", "split": "test 1"}]
    tables = [write(folder / "list.csv", *rows), write(folder / "sub" / "list.csv", {"uri": "c.jpg", "split": "train"})]
    found = [dn2.ingest(tables[0], store, split=split) for split in (None, "train", "test 1")]
    found.append(dn2.ingest(tables[1], store, split="train"))
    assert [re.sub("-[0-9a-f]{8}$", "", one.name) for one in found] == [
        "list-csv", "list-csv-train", "list-csv-test-1", "list-csv-train"
    ]  # fmt: skip
    assert len({one.name for one in found}) == 4
    assert [known(store, one) for one in found] == [
        [("a.png", None, None), ("b.png", None, None)],
        [("a.png", None, None)],
        [("b.png", None, None)],
        [("c.jpg", None, None)],
    ]


def test_one_name_for_two_splits_is_refused(folder: Path, store: Store):
    table = write(folder / "list.csv", {"uri": "a.png", "split": "train"}, {"uri": "b.png", "split": "test"})
    dn2.ingest(table, store, dataset="x", split="train")
    for split, got in (("test", f"file://{table} with split 'test'"), (None, f"file://{table}")):
        with pytest.raises(ConfigError, match=f"got source {got}, expected file://{table} with split 'train'; choose"):
            dn2.ingest(table, store, dataset="x", split=split)
    assert dn2.ingest(table, store, dataset="x", split="train").images == 1


@pytest.mark.parametrize(
    ("kind", "values", "found"),
    [
        (pa.large_string(), ["007", None, ""], ["007", None, None]),
        (pa.dictionary(pa.int32(), pa.string()), ["x", "y", None], ["x", "y", None]),
        (pa.int64(), [7, -1, None], ["7", "-1", None]),
        (pa.uint8(), [7, 255, None], ["7", "255", None]),
        (pa.null(), [None, None, None], [None, None, None]),
    ],
    ids=str,
)
def test_types_that_are_text_or_whole_numbers(
    kind: Any, values: list[Any], found: list[Row], folder: Path, store: Store
):
    columns = {"uri": ["a.png", "b.png", "sub/c.jpg"], "group_id": pa.array(values, kind)}
    pq.write_table(pa.table(columns), folder / "list.parquet")
    assert [group for _, group, _ in known(store, dn2.ingest(folder / "list.parquet", store))] == found


def test_other_columns_may_be_anything(folder: Path, store: Store):
    columns = {"uri": ["a.png"], "embedding": [[1.0]], "nested": [{"uri": 1}]}
    pq.write_table(pa.table(columns), folder / "list.parquet")
    assert dn2.ingest(folder / "list.parquet", store).images == 1


def test_csv_as_spreadsheets_write_it(folder: Path, store: Store):
    """A byte order mark, carriage returns, quotes, commas, empty lines and a line break in a name."""
    touch(folder, 'a, "b"\n.png')
    (folder / "list.csv").write_bytes(b'\xef\xbb\xbfuri,label\r\n\r\n"a, ""b""\n.png","x, y"\r\nb.png,""\r\n')
    found = dn2.ingest(folder / "list.csv", store)
    assert known(store, found) == [('a, "b"\n.png', None, "x, y"), ("b.png", None, None)]


def test_rows_that_are_written_twice_are_one_image(folder: Path, store: Store):
    row: Row = {"uri": "a.png", "group_id": "1", "label": "ok", "split": "x"}
    table = write(folder / "list.csv", row, {**row, "uri": f"{folder}/a.png"}, {**row, "split": "y"})
    assert known(store, dn2.ingest(table, store)) == [("a.png", "1", "ok")]


def test_other_group_or_label_is_a_change_of_the_same_image(folder: Path, store: Store):
    rows: list[Row] = [{"uri": name, "group_id": "1", "label": None} for name in ("a.png", "b.png", "sub/c.jpg")]
    table = write(folder / "list.csv", *rows)
    first = dn2.ingest(table, store)
    rows[0]["group_id"], rows[1]["label"] = "2", "bad"
    second = dn2.ingest(write(table, *rows), store)
    assert counts(second) == (3, 0, 2, 0)
    assert known(store, second) == [("a.png", "2", None), ("b.png", "1", "bad")]
    ids = [[row["image_id"] for row in part_rows(store, one)] for one in (first, second)]
    assert ids[1] == ids[0][:2]
    assert dn2.ingest(table, store).parts == second.parts
    assert [uri.rpartition("/")[2] for uri in live_uris(store, second)] == ["a.png", "b.png", "c.jpg"]
    rows[0]["group_id"] = None
    third = dn2.ingest(write(table, *rows), store)
    assert (counts(third), known(store, third)) == ((3, 0, 1, 0), [("a.png", None, None)])


def test_parts_with_different_labels_have_different_names(folder: Path, tmp_path: Path):
    """Two ingests at once may both write part 1: neither may take the other's place."""
    parts = set()
    for number, label in enumerate([None, "x", "y"]):
        table = write(folder / "list.csv", {"uri": "a.png", "label": label})
        parts.add(dn2.ingest(table, tmp_path / f"store{number}", dataset="x").parts)
    assert len(parts) == 3


def test_row_that_is_taken_out_leaves_a_tombstone_without_group(folder: Path, store: Store):
    rows: list[Row] = [{"uri": name, "group_id": "1"} for name in ("a.png", "b.png")]
    dn2.ingest(write(folder / "list.csv", *rows), store)
    second = dn2.ingest(write(folder / "list.csv", rows[0]), store)
    assert (counts(second), known(store, second)) == ((1, 0, 0, 1), [("b.png", None, None)])
    assert part_rows(store, second)[0]["present"] is False
    third = dn2.ingest(write(folder / "list.csv", *rows), store)
    assert (counts(third), known(store, third)) == ((2, 1, 0, 0), [("b.png", "1", None)])


VALUES = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.dictionaries(VALUES, st.tuples(VALUES, VALUES), min_size=1, max_size=6), form=st.sampled_from(FORMS))
def test_any_text_comes_through(rows: dict[str, tuple[str, str]], form: str, tmp_path: Path):
    table: list[Row] = [{"uri": "x", "group_id": group, "label": label} for group, label in rows.values()]
    for number, row in enumerate(table):
        row["uri"] = f"/{number}"
    path = write(tmp_path / f"any.{form}", *table)
    with_values = [(place.path, group, label) for place, group, label in TableSource(locate(path))._rows()]
    assert with_values == [(row["uri"], row["group_id"], row["label"]) for row in table]


def peak(table: Path) -> float:
    """Python's memory while a table is listed, in MB above what was there before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        assert sum(file.size == -1 for file in open_source(table).walk()) > 1000
        return (tracemalloc.get_traced_memory()[1] - before) / 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", FORMS)
def test_memory_does_not_grow_with_the_table(form: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Arrow reads 32 blocks ahead, here of 16 kB. What follows the listing is measured in test_ingest_at_once.py."""
    monkeypatch.setattr("dn2.sources.foreign.BUFFER", 2**14)
    rows: list[Row] = [{"uri": f"{folder}/{number:07d}.png", "label": "x"} for number in range(60_000)]
    first = peak(write(tmp_path / f"small.{form}", *rows[:20_000]))
    second = peak(write(tmp_path / f"large.{form}", *rows))
    assert first < 20
    assert second < 1.4 * first + 1  # what is read ahead differs a little from run to run; 40,000 rows are 8 MB
