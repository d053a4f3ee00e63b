"""Killed runs, damaged files, and memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import dn2
from dn2.config import GroupFitConfig, GroupScoreConfig
from dn2.errors import BankError, Dn2Error, NotFoundError, SchemaError, StoreError
from dn2.groups.bank import GroupBank
from dn2.groups.score import report_folder
from dn2.records import Embedded
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import folder_of, groups_of, images, members_of, normal_groups, write_groups
from tests.dn2.scoring.synthetic import write_shards

PARTS = ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
CONFIG = GroupFitConfig(pooling="histogram", cells=4)


@pytest.fixture
def bank(store: Store) -> dn2.GroupBankVersion:
    normal = write_groups(store, normal_groups([5] * 12, seed=0), shard_rows=20)
    return dn2.fit_groups(normal, store, bank="parts", config=CONFIG)


@pytest.fixture
def batch(store: Store) -> Embedded:
    return write_groups(store, normal_groups([5, 9, 20], seed=1), name="batch", shard_rows=12)


FILES = {
    "vectors": "banks/parts/segments/*[0-9a-f].npy",
    "cells": "banks/parts/segments/*.cells.npy",
    "groups": "banks/parts/segments/*.parquet",
    "calibration": "banks/parts/versions/*.calibration.parquet",
    "probes": "banks/parts/versions/*.probes.parquet",
    "version": "banks/parts/versions/*.json",
    "pointer": "banks/parts/current.json",
}


def file_of(tmp_path: Path, pattern: str) -> Path:
    (found,) = (path for path in (tmp_path / "store").glob(pattern) if "cells" in pattern or "cells" not in path.name)
    return found


def zeroed(file: Path) -> None:
    """Of a Parquet file the end of every column, of any other 40 bytes in the middle."""
    content = bytearray(file.read_bytes())
    places = [slice(len(content) // 3, len(content) // 3 + 40)]
    if file.suffix == ".parquet":
        group = pq.ParquetFile(file).metadata.row_group(0)
        columns = [group.column(number) for number in range(group.num_columns)]
        starts = [one.dictionary_page_offset or one.data_page_offset for one in columns]
        ends = [start + one.total_compressed_size for start, one in zip(starts, columns, strict=True)]
        places = [slice(end - 8, end) for end in ends]
    for place in places:
        content[place] = bytes(place.stop - place.start)
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [zeroed, cut, emptied, Path.unlink], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", FILES)
def test_damaged_or_missing_file_of_a_bank_is_named(
    store: Store,
    bank: dn2.GroupBankVersion,
    batch: Embedded,
    tmp_path: Path,
    kind: str,
    damage: Callable[[Path], None],
):
    file = file_of(tmp_path, FILES[kind])
    damage(file)

    with pytest.raises((SchemaError, NotFoundError)) as caught:
        dn2.score_groups(batch, store, bank="parts")
    named = "parts" if kind == "pointer" and damage is Path.unlink else file.name
    assert named in str(caught.value)
    assert not store.exists("reports")


@pytest.mark.parametrize("field", ["segments", "cells", "sizes", "dim", "pooling"])
def test_version_file_without_a_field_is_told_apart_from_a_bug(
    store: Store, bank: dn2.GroupBankVersion, batch: Embedded, tmp_path: Path, field: str
):
    file = file_of(tmp_path, FILES["version"])
    document = json.loads(file.read_bytes())
    del document[field]
    file.write_text(json.dumps(document))

    with pytest.raises(SchemaError, match=rf"{file.name}.*\b{field}\b"):
        dn2.score_groups(batch, store, bank="parts")


def test_killed_report_has_no_summary_and_the_next_call_finishes_it(
    store: Store, bank: dn2.GroupBankVersion, batch: Embedded, tmp_path: Path
):
    """A folder lies where the second part is to be written: the disk refuses it."""
    folder = tmp_path / "store" / report_folder(batch, bank, GroupScoreConfig(), None)
    (folder / "part-00001.parquet" / "full").mkdir(parents=True)

    with pytest.raises(StoreError, match=r"cannot write '.*part-00001\.parquet'"):
        dn2.score_groups(batch, store, bank=bank)
    assert store.names(str(folder.relative_to(tmp_path / "store"))) == ["groups.parquet", *PARTS[:2]]
    (folder / "part-00001.parquet" / "full").rmdir()
    (folder / "part-00001.parquet").rmdir()

    report = dn2.score_groups(batch, store, bank=bank)
    assert folder_of(report) == folder
    assert (len(members_of(store, report)), len(groups_of(store, report))) == (34, 3)
    assert dn2.score_groups(batch, store, bank=bank) == report


def test_summary_is_written_last_and_lists_the_files(store: Store, bank: dn2.GroupBankVersion, batch: Embedded):
    report = dn2.score_groups(batch, store, bank=bank)

    times = {path.name: path.stat().st_mtime_ns for path in folder_of(report).iterdir()}
    assert sorted(times, key=lambda name: times[name]) == ["groups.parquet", *PARTS, "report.html", "summary.json"]
    summary = json.loads((folder_of(report) / "summary.json").read_bytes())
    assert summary["parts"] == ["groups.parquet", *PARTS]
    assert (summary["schema"], summary["bank_version"]["version"]) == ("dn2.group_report_summary", bank.version)
    assert summary["config"] == GroupScoreConfig().model_dump(mode="json")


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "dn2.group_report_summary", "schema_version": 1}', None])
def test_damaged_summary_says_what_to_do_and_doing_it_helps(
    store: Store, bank: dn2.GroupBankVersion, batch: Embedded, content: str | None
):
    report = dn2.score_groups(batch, store, bank=bank)
    summary = folder_of(report) / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"groups": "many"}) if content is None else content)

    with pytest.raises(SchemaError, match=r"summary\.json.*; delete that file: the report is made again$"):
        dn2.score_groups(batch, store, bank=bank)
    summary.unlink()
    assert dn2.score_groups(batch, store, bank=bank) == report


def test_damaged_shard_of_the_batch_leaves_no_report(
    store: Store, bank: dn2.GroupBankVersion, batch: Embedded, tmp_path: Path
):
    zeroed(tmp_path / "store" / batch.shards[1].path)

    with pytest.raises(Dn2Error):
        dn2.score_groups(batch, store, bank=bank)
    assert not store.exists("reports")


def test_batch_over_the_memory_budget_is_refused(store: Store, bank: dn2.GroupBankVersion, batch: Embedded):
    with pytest.raises(BankError, match=r"3 groups and parts of groups, with vectors of length 5: need .* 1e-09"):
        dn2.score_groups(batch, store, bank=bank, config=GroupScoreConfig(group_memory_gb=1e-9))
    assert not store.exists("reports")


@pytest.mark.parametrize("pooling", ["mean", "histogram"])
def test_memory_does_not_grow_with_the_images_of_a_group(store: Store, pooling: str):
    """Shards of one group: in memory are a shard, the vectors of groups, a sample, and some bytes for each image."""
    count, dim, peaks = 16_000, 512, []
    few = write_groups(store, normal_groups([20] * 12, seed=0, dim=dim))
    bank = dn2.fit_groups(few, store, bank="parts", config=GroupFitConfig(pooling=pooling, cells=4))
    GroupBank.open(store, bank)  # its checksums are read in pieces of 16 MiB
    for size in (count // 2, count):
        name = f"large{size}"
        large = write_shards(store, images(size, seed=1, dim=dim), name=name, groups=["a"] * size, shard_rows=400)

        tracemalloc.start()
        try:
            report = dn2.score_groups(large, store, bank=bank)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

        assert (report.scored, report.images) == (1, size)
        assert np.isfinite(groups_of(store, report)[0]["score"])

    assert peaks[1] - peaks[0] < count / 2 * dim * 2 / 3
