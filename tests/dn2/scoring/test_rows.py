"""Rows as training and scoring see them: of living images only, with group and label from the dataset's pattern."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dn2
from dn2.config import FitConfig
from dn2.records import Embedded
from dn2.scoring.calibration import Calibration
from dn2.scoring.rows import described, image_rows, living_rows
from dn2.store.storage import Store
from tests.conftest import Bricks
from tests.dn2.scoring.synthetic import normal_vectors, write_shards


def with_pattern(embedded: Embedded, pattern: str | None) -> Embedded:
    """The same images as a dataset with this pattern has them."""
    shards = tuple(replace(one, shard=replace(one.shard, pattern=pattern)) for one in embedded.shards)
    return replace(embedded, dataset=replace(embedded.dataset, pattern=pattern), shards=shards)


def test_rows_are_those_of_living_images_in_the_order_and_with_the_columns_asked_for(store: Store):
    (shard,) = write_shards(store, normal_vectors(5, seed=0), superseded=[1, 4], groups=list("abcde")).shards
    rows = living_rows(shard, store, ["group_id", "uri"])
    assert rows.column_names == ["group_id", "uri"]
    assert rows.to_pylist() == [
        {"group_id": group, "uri": f"file:///normal/{row}.png"} for row, group in ((0, "a"), (2, "c"), (3, "d"))
    ]


@pytest.mark.parametrize("columns", [["group_id"], ["label"], ["label", "image_id", "group_id"], ["image_id"]])
def test_pattern_fills_what_is_asked_for(store: Store, columns: list[str]):
    embedded = write_shards(store, normal_vectors(12, seed=0), superseded=[0], shard_rows=7)
    told = with_pattern(embedded, "{label}{group_id}.png")
    found = [row for shard in told.shards for row in living_rows(shard, store, columns).to_pylist()]
    plain = [row for shard in embedded.shards for row in living_rows(shard, store, columns).to_pylist()]
    expected: list[dict[str, Any]] = [{"group_id": None, "label": None}] * 9  # one digit: too short for two fields
    expected += [{"group_id": "0", "label": "1"}, {"group_id": "1", "label": "1"}]
    wanted = [{name: (row | known)[name] for name in columns} for row, known in zip(plain, expected, strict=True)]
    assert found == wanted
    assert living_rows(told.shards[0], store, columns).schema == living_rows(embedded.shards[0], store, columns).schema


def test_what_the_pattern_does_not_fit_keeps_nothing_of_the_shard(store: Store):
    (shard,) = with_pattern(write_shards(store, normal_vectors(3, seed=0), groups=["a"] * 3), "1{group_id}").shards
    assert living_rows(shard, store, ["group_id"])["group_id"].to_pylist() == [None, ".png", None]


def test_description_depends_on_the_pattern_and_without_one_is_what_it_always_was(store: Store):
    embedded = write_shards(store, normal_vectors(5, seed=0), superseded=[1, 4], shard_rows=3)
    paths = [shard.path for shard in embedded.shards]
    assert described(embedded) == [[paths[0], 1], [paths[1], 1]]
    assert described(with_pattern(embedded, "{label}.png")) == [
        [paths[0], 1, "{label}.png"],
        [paths[1], 1, "{label}.png"],
    ]


def test_bank_is_calibrated_by_the_groups_of_a_pattern(store: Store):
    """As if the shards held them. Images of one group are near copies: without their groups they score far too low."""
    groups = [str(row)[0] for row in range(100)]
    vectors = normal_vectors(10, seed=0)[[int(group) for group in groups]] + normal_vectors(100, seed=1) / 100
    told = with_pattern(write_shards(store, vectors, name="told"), "{group_id}*.png")
    held = write_shards(store, vectors, name="held", groups=groups)
    unknown = write_shards(store, vectors, name="unknown")
    assert image_rows(told, store)["group_id"].to_pylist() == groups
    config = FitConfig(false_alarm_rate=0.1, units="images")
    banks = [dn2.fit(one, store, bank=one.dataset.name, config=config) for one in (told, held, unknown)]
    by_pattern, by_row, by_none = (Calibration.read(store, bank.name, bank.version).scores for bank in banks)
    assert by_pattern.tolist() == by_row.tolist()
    assert by_pattern.mean() > 10 * by_none.mean()


def parts(report: dn2.Report) -> dict[str, tuple[str | None, str | None]]:
    """Group and label of each image of a report, by the file's name."""
    folder = Path(report.uri.removeprefix("file://"))
    rows = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]).to_pylist()
    return {Path(row["uri"]).stem: (row["group_id"], row["label"]) for row in rows}


def shards_on_disk(store: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of every file below manifests and embeddings."""
    paths = [path for room in ("manifests", "embeddings") for path in (store / room).rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def test_report_rows_carry_group_and_label_and_another_pattern_embeds_nothing(own_bricks: Bricks):
    store, bank = own_bricks.store, own_bricks.bank

    def scored(pattern: str | None) -> dn2.Report:
        dataset = dn2.ingest(own_bricks.batch, store, pattern=pattern)
        return dn2.score(dn2.embed(dataset, store, bank=bank), store, bank=bank)

    first = scored("{label}-{group_id}.png")
    before = shards_on_disk(store)
    names = sorted(path.stem for path in own_bricks.batch.iterdir())
    assert len(names) == 163
    assert parts(first) == {name: tuple(reversed(name.split("-", 1))) for name in names}

    second, third = scored("{group_id}-*"), scored(None)
    assert parts(second) == {name: (name.partition("-")[0], None) for name in names}
    assert parts(third) == dict.fromkeys(names, (None, None))
    assert shards_on_disk(store) == before
    assert len({first.uri, second.uri, third.uri}) == 3
    assert scored("{label}-{group_id}.png") == first


def test_bank_and_cleaning_know_the_groups_of_a_pattern(own_bricks: Bricks):
    store = own_bricks.store
    dataset = dn2.ingest(own_bricks.normal, store, pattern="{label}-{group_id}.png")
    embedded = dn2.embed(dataset, store)
    before = shards_on_disk(store)
    cleaning = dn2.clean(embedded, store)
    bank = dn2.fit(embedded, store, bank="bricks", cleaning=cleaning)
    assert bank.version != own_bricks.bank.version
    (calibration,) = (store / "banks" / "bricks" / "versions").glob(f"{bank.version}.calibration.parquet")
    groups = {path.stem.split("-", 1)[1] for path in own_bricks.normal.iterdir()}
    assert set(pq.read_table(calibration)["group_id"].to_pylist()) <= groups
    cleaned = pq.read_table(Path(cleaning.uri.removeprefix("file://")) / "rows.parquet")
    assert set(cleaned["group_id"].to_pylist()) == groups
    assert shards_on_disk(store) == before
