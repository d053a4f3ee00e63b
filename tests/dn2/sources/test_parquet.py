"""Parquet files with images in their cells as sources."""

from __future__ import annotations

import os
import random
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import dn2
from dn2.errors import ConfigError, EmptySourceError, NotFoundError, SourceError
from dn2.sources.opening import open_source, reader_of
from dn2.sources.parquet import ParquetSource
from dn2.sources.source import ChangedError, ListedFile, NoBytesError, VanishedError
from dn2.sources.tables import TableSource
from dn2.store.files import locate
from dn2.store.schemas import EMBEDDINGS
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.images.listing import part_rows, touch
from tests.dn2.sources.packing import parquet_bytes, write_parquet

BYTES = [b"one", b"two", b"three"]


def struct(images: list[bytes | None], paths: list[str | None] | None = None) -> Any:
    """The form of Hugging Face's data sets."""
    rows = [{"bytes": one, "path": path} for one, path in zip(images, paths or [None] * len(images), strict=True)]
    return pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def listed(url: str | Path, split: str | None = None) -> list[ListedFile]:
    return sorted(open_source(url, split=split).walk(), key=lambda file: file.uri)


def read(url: str | Path) -> list[bytes]:
    reader = reader_of(open_source(url).uri)
    return [reader.read(file.uri, file.version) for file in listed(url)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(BYTES, pa.binary()),
        pa.array(BYTES, pa.large_binary()),
        struct(list(BYTES)),
        pa.array([{"bytes": one} for one in BYTES], pa.struct({"bytes": pa.large_binary()})),
        pa.array([{"path": 1, "bytes": one} for one in BYTES], pa.struct({"path": pa.int64(), "bytes": pa.binary()})),
    ],
    ids=["binary", "large", "struct", "without path", "path is no text"],
)
def test_every_row_is_an_image(column: Any, tmp_path: Path):
    table = write_parquet(tmp_path / "a.parquet", {"x": [1.5] * 3, "image": column})
    status = table.stat()
    version = f"{status.st_size}-{status.st_mtime_ns}"
    assert listed(table) == [ListedFile(f"file://{table}#{row:09d}", version, -1) for row in range(3)]
    assert read(table) == BYTES


def test_rows_are_named_by_the_path_that_is_known(tmp_path: Path):
    columns = {"image": struct(list(BYTES), ["cat/1.png", None, "/home/x.jpg"]), "uri": ["u1", "s3://b/u2.png", "u3"]}
    table = write_parquet(tmp_path / "A.PARQUET", columns)
    uris = [file.uri.partition("#")[2] for file in listed(table)]
    assert uris == ["000000000/cat/1.png", "000000001/s3://b/u2.png", "000000002/home/x.jpg"]
    assert read(table) == BYTES
    binary = write_parquet(tmp_path / "b.parquet", {"image": BYTES, "uri": ["a#b.png", None, ""]})
    assert [file.uri.partition("#")[2] for file in listed(binary)] == ["000000000/a#b.png", "000000001", "000000002"]
    assert read(binary) == BYTES


def test_groups_labels_and_splits_are_those_of_a_table(tmp_path: Path):
    table = write_parquet(
        tmp_path / "a.parquet",
        {"image": BYTES, "group_id": [7, None, 8], "label": ["ok", "", None], "split": ["train", "test", "train"]},
    )
    assert [(file.group_id, file.label) for file in listed(table)] == [("7", "ok"), (None, None), ("8", None)]
    assert [file.uri[-1] for file in listed(table, "train")] == ["0", "2"]
    store = tmp_path / "store"
    found = [dn2.ingest(table, store, split=split) for split in (None, "train", "test")]
    assert [re.sub("-[0-9a-f]{8}$", "", one.name) for one in found] == [
        "a-parquet", "a-parquet-train", "a-parquet-test"
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"got split 'x', which no row has, expected .* are: 'test', 'train'$"):
        listed(table, "x")
    with pytest.raises(ConfigError, match="expected one named 'split'"):
        listed(write_parquet(tmp_path / "b.parquet", {"image": BYTES}), "x")


def test_pattern_is_refused_as_for_tables(tmp_path: Path):
    table = write_parquet(tmp_path / "a.parquet", {"image": BYTES})
    with pytest.raises(
        ConfigError, match=r"got the pattern '\{label\}/\*' with a table, expected groups and labels in its columns"
    ):
        dn2.ingest(table, tmp_path / "store", pattern="{label}/*")


def test_table_without_bytes_lists_uris_as_ever(tmp_path: Path):
    touch(tmp_path, "a.png", content=b"x")
    table = write_parquet(tmp_path / "a.parquet", {"image": ["a.png"], "uri": ["a.png"]})
    assert isinstance(open_source(table), TableSource)
    assert read(table) == [b"x"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [1]}, "got the columns 'x', expected one named 'uri' .* or 'image' .their bytes"),
        ({"image": ["a.png"]}, "got the columns 'image', 'image' of type string, expected one named 'uri'"),
        ({"image": [{"path": "a"}]}, ".*, 'image' of type struct<path: string>, expected one named 'uri'"),
        ({"image": [[1]]}, ".*, 'image' of type list<"),
        ({"image": BYTES[:1], "label": [1.5]}, "column 'label': got values of type double, expected text"),
        ({"image": BYTES[:1], "label": ["x" * 5000]}, "row 1 .*: got the label 'xxx"),
        ({"image": struct(BYTES[:1], ["x" * 5000])}, "row 1 .*: got the path 'xxx"),
    ],
)  # fmt: skip
def test_table_that_cannot_work(columns: dict[str, Any], message: str, tmp_path: Path):
    table = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(ConfigError, match=f"^table file://{table}: {message}"):
        dn2.ingest(table, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_two_columns_of_images_are_refused(tmp_path: Path):
    table = pa.Table.from_arrays([pa.array(BYTES), pa.array(BYTES)], names=["image", "image"])
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="got 2 columns named 'image', expected one"):
        open_source(tmp_path / "a.parquet")


def test_table_without_rows_is_an_error(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", {"image": pa.array([], pa.binary())})
    with pytest.raises(EmptySourceError, match=r"got no image \(0 other files\), expected a row for each image in it$"):
        dn2.ingest(tmp_path / "a.parquet", tmp_path / "store")


def test_null_and_empty_cells_are_rejects_with_a_reason(tmp_path: Path, pictures: Path):
    good = next(pictures.iterdir()).read_bytes()
    store = Store.open(tmp_path / "store")
    missing = pa.array(
        [{"bytes": good, "path": None}, None, {"bytes": None, "path": "p"}, {"bytes": b"", "path": None}]
    )
    for number, column in enumerate([missing, pa.array([good, None, None, b""])]):
        table = write_parquet(tmp_path / f"{number}.parquet", {"image": column})
        done = dn2.embed(dn2.ingest(table, store), store)
        reasons = read_table(store, done.shards[0].path, EMBEDDINGS, ["reject_reason"])["reject_reason"].to_pylist()
        assert reasons == [None, *["no bytes: the cell of its row is null"] * 2, "the file is empty"]


def test_glob_of_parquet_files_is_one_source(tmp_path: Path):
    for number in range(3):
        write_parquet(
            tmp_path / "d" / f"train-{number}.parquet", {"image": [bytes([number, row]) for row in range(20)]}
        )
    url = f"{tmp_path}/d/train-[02].parquet"
    assert [file.uri.removeprefix(f"file://{tmp_path}/d/") for file in listed(url)][::20] == [
        "train-0.parquet#000000000",
        "train-2.parquet#000000000",
    ]
    source = reader_of(f"file://{url}")
    rows = listed(url)
    found = [source.read(file.uri, file.version) for file in (*rows[15:25], *rows)]
    assert found[10:] == [bytes([number, row]) for number in (0, 2) for row in range(20)]
    assert found[:10] == found[25:35]
    assert dn2.ingest(url, tmp_path / "store").name.startswith("d-train-02-parquet-")


def test_glob_that_fits_a_table_of_uris_too_is_refused(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", {"image": BYTES})
    write_parquet(tmp_path / "b.parquet", {"uri": ["a.png"]})
    with pytest.raises(ConfigError, match=r"b\.parquet: got one that lists images, expected a glob of files that hold"):
        listed(tmp_path / "*.parquet")


ROWS = [bytes([row % 256, row // 256]) * 50 for row in range(600)]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """600 rows in groups of 90."""
    return write_parquet(tmp_path / "many.parquet", {"image": ROWS}, rows_of_group=90)


@pytest.mark.parametrize("order", ["forth", "back", "any", "nearly"])
def test_rows_come_in_whatever_order_they_are_asked_for(order: str, many: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dn2.sources.blobs._BATCH", 1000)
    files = list(enumerate(listed(many)))
    if order == "back":
        files = files[::-1][:100]
    elif order == "any":
        random.Random(0).shuffle(files)
        files = files[:150]
    elif order == "nearly":
        files.sort(key=lambda one: one[0] + random.Random(one[0]).random() * 20)
    source = reader_of(f"file://{many}")
    assert [source.read(file.uri, file.version) for _, file in files] == [ROWS[number] for number, _ in files]


def test_many_threads_read_at_once_and_each_row_group_is_read_once(many: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dn2.sources.blobs._BATCH", 1000)
    entered = []
    from dn2.sources.blobs import Cells

    real = Cells._enter
    monkeypatch.setattr(Cells, "_enter", lambda cells, row: (entered.append(row), real(cells, row))[1])
    source = open_source(many)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda file: source.read(file.uri, file.version), listed(many)))
    assert found == ROWS
    assert len(entered) == 7


def test_changed_file_is_a_reject_and_never_other_bytes(many: Path):
    source = open_source(many)
    files = listed(many)
    assert source.read(files[0].uri, files[0].version) == ROWS[0]
    write_parquet(many, {"image": ROWS[::-1]}, rows_of_group=90)
    os.utime(many, ns=(1, 1))
    for reader in (source, reader_of(source.uri)):
        with pytest.raises(ChangedError, match=rf"^changed since it was listed: file://{many} is another file now"):
            reader.read(files[500].uri, files[500].version)
    many.write_bytes(b"no Parquet at all")
    with pytest.raises(ChangedError):
        source.read(files[300].uri, files[300].version)


def test_vanished_file_is_a_reject_among_others_and_a_fault_alone(tmp_path: Path):
    tables = [write_parquet(tmp_path / "s" / f"{number}.parquet", {"image": BYTES}) for number in range(2)]
    glob, one = open_source(f"{tmp_path}/s/*.parquet"), open_source(tables[0])
    file = listed(tables[0])[0]
    tables[0].unlink()
    with pytest.raises(VanishedError, match=r"^vanished since it was listed$"):
        glob.read(file.uri, file.version)
    for source in (one, reader_of(one.uri)):
        with pytest.raises(SourceError, match=r"is empty or gone while|got no Parquet file of image") as caught:
            source.read(file.uri, file.version)
        assert not isinstance(caught.value, NoBytesError)
    with pytest.raises(NotFoundError):
        open_source(tables[0])


def test_table_of_uris_that_became_one_of_bytes_is_a_reject(tmp_path: Path):
    touch(tmp_path, "a.png", content=b"x")
    table = write_parquet(tmp_path / "a.parquet", {"uri": ["a.png"]})
    (file,) = listed(table)
    write_parquet(table, {"image": BYTES})
    assert isinstance(reader_of(f"file://{table}"), ParquetSource)
    with pytest.raises(ChangedError):
        reader_of(f"file://{table}").read(file.uri, file.version)


def test_damage_in_the_images_is_one_error(many: Path):
    files = listed(many)
    content = bytearray(many.read_bytes())
    content[4:3000] = b"\xff" * 2996
    status = many.stat()
    many.write_bytes(content)
    os.utime(many, ns=(status.st_atime_ns, status.st_mtime_ns))
    source = reader_of(f"file://{many}")
    with pytest.raises(ConfigError, match=f"table file://{many}: got a file that cannot be read as Parquet"):
        source.read(files[3].uri, files[3].version)
    assert source.read(files[599].uri, files[599].version) == ROWS[599]


def test_parquet_in_memory(tmp_path: Path):
    url = f"memory://{uuid.uuid4().hex}/a.parquet"
    locate(url).fs.pipe(url, parquet_bytes({"image": BYTES}))
    assert read(url) == BYTES
    assert len(part_rows(Store.open(tmp_path), dn2.ingest(url, tmp_path))) == 3


@pytest.mark.s3
def test_parquet_in_a_bucket(s3_bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    url = f"{s3_bucket}/{uuid.uuid4().hex}/a.parquet"
    fs = locate(url).fs
    fs.pipe_file(url, parquet_bytes({"image": ROWS}, rows_of_group=90))
    assert read(url) == ROWS
    source, files = reader_of(url), listed(url)
    assert source.read(files[0].uri, files[0].version) == ROWS[0]
    fs.pipe_file(url, parquet_bytes({"image": ROWS[::-1]}, rows_of_group=90))
    with pytest.raises(ChangedError):
        source.read(files[400].uri, files[400].version)


def test_column_called_like_a_field_of_the_images_is_refused(tmp_path: Path):
    """Parquet calls both by the same name: the bytes of either could be meant."""
    rows = [{"bytes": b"one"}]
    path = write_parquet(tmp_path / "both.parquet", {"image.bytes": [b"other"], "image": rows})
    with pytest.raises(ConfigError, match=r"got a column named 'image.bytes' and one named 'image'"):
        dn2.ingest(path, tmp_path / "store")
