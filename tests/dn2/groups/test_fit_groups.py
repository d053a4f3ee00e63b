from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dn2
from dn2.config import GroupFitConfig
from dn2.errors import StoreError
from dn2.groups.bank import GroupBank
from dn2.groups.parts import ladder
from dn2.records import Embedded
from dn2.store.schemas import BANK_GROUPS, GROUP_CALIBRATION
from dn2.store.storage import Store
from dn2.store.tables import read_config, read_table
from tests.dn2.groups.synthetic import images, normal_groups, write_groups
from tests.dn2.neighbors.oracle import brute_force
from tests.dn2.scoring.synthetic import EMBEDDER, modified, write_shards

SIZES = [3] * 8 + [10] * 8 + [25] * 4


@pytest.fixture
def normal(store: Store) -> Embedded:
    return write_groups(store, normal_groups(SIZES, seed=0), shard_rows=40)


def calibration(store: Store, record: dn2.GroupBankVersion) -> list[tuple[int, str, float]]:
    path = f"banks/{record.name}/versions/{record.version}.calibration.parquet"
    rows = read_table(store, path, GROUP_CALIBRATION).to_pylist()
    return [(row["size"], row["group_id"], row["distance"]) for row in rows]


def test_record_tells_what_the_bank_is_made_of(store: Store, normal: Embedded):
    record = dn2.fit_groups(normal, store, bank="parts", config=GroupFitConfig(k=3, false_alarm_rate=0.2))

    assert (record.name, record.embedder, record.pooling) == ("parts", EMBEDDER, "mean")
    assert (record.groups, record.members, record.dim, record.k) == (20, sum(SIZES), 16, 3)
    assert record.sizes == ladder(np.array(SIZES), 1)
    assert record.units == record.members
    assert (record.attainable_rate, record.small, record.ungrouped, record.rejected) == (0.2, 0, 0, 0)
    assert dn2.open_group_bank(store, "parts") == record
    assert dn2.open_group_bank(store.uri, "parts", version=record.version) == record


def test_vectors_are_the_means_of_the_groups(store: Store, normal: Embedded):
    record = dn2.fit_groups(normal, store, bank="parts")
    bank = GroupBank.open(store, record)

    rows = bank.rows.to_pylist()
    groups = normal_groups(SIZES, seed=0)
    assert {row["group_id"] for row in rows} == groups.keys()
    for row, vector in zip(rows, bank.vectors, strict=True):
        mine = groups[row["group_id"]].astype(np.float64)
        np.testing.assert_allclose(vector, mine.mean(axis=0), rtol=2**-10, atol=1e-6)
        assert (row["members"], row["source"]) == (len(mine), "file:///normal")
        assert len(row["example_ids"]) == len(set(row["example_ids"])) == min(4, len(mine))
        assert len(row["example_shards"]) == len(row["example_ids"])


def test_calibration_distances_of_whole_groups_are_those_to_the_other_groups(store: Store):
    """All groups have ten images, so the parts of ten are the groups."""
    embedded = write_groups(store, normal_groups([10] * 12, seed=0), shard_rows=17)
    record = dn2.fit_groups(embedded, store, bank="parts")
    bank = GroupBank.open(store, record)
    own = np.arange(12)[None]

    _, distances = brute_force(np.array(bank.vectors), np.array(bank.vectors), 2, own, own)

    names = bank.rows["group_id"].to_pylist()
    found = {group: distance for size, group, distance in calibration(store, record) if size == 10}
    assert found == pytest.approx(dict(zip(names, distances.mean(axis=1).tolist(), strict=True)), rel=1e-5)


def test_parts_of_every_size_calibrate_as_many_as_there_are(store: Store, normal: Embedded):
    record = dn2.fit_groups(normal, store, bank="parts")

    sizes = [size for size, _, _ in calibration(store, record)]
    assert {size: sizes.count(size) for size in record.sizes} == {
        size: sum(count // size for count in SIZES) for size in record.sizes
    }
    assert len(sizes) == sum(sum(count // size for count in SIZES) for size in record.sizes)


def test_small_parts_are_farther_than_large_ones(store: Store, normal: Embedded):
    record = dn2.fit_groups(normal, store, bank="parts")
    rows = calibration(store, record)

    small, large = (
        np.median([one for size, _, one in rows if size == wanted]) for wanted in (record.sizes[0], record.sizes[-1])
    )
    assert small > 2 * large


@pytest.mark.parametrize("pooling", ["mean", "histogram"])
def test_fit_again_gives_the_same_version_and_rewrites_nothing(
    store: Store, normal: Embedded, tmp_path: Path, pooling: str
):
    config = GroupFitConfig(pooling=pooling)
    first, files = dn2.fit_groups(normal, store, bank="parts", config=config), modified(tmp_path)
    memory = config.model_copy(update={"group_memory_gb": 1.0, "search_memory_mb": 16, "max_rejects": 3})

    assert dn2.fit_groups(normal, store.uri, bank="parts", config=config) == first
    assert dn2.fit_groups(normal, store, bank="parts", config=memory) == first
    assert modified(tmp_path) == files


def test_settings_that_change_scores_change_the_version(store: Store, normal: Embedded):
    configs = [
        GroupFitConfig(),
        GroupFitConfig(pooling="histogram"),
        GroupFitConfig(pooling="histogram", cells=3),
        GroupFitConfig(metric="cosine"),
        GroupFitConfig(k=1),
        GroupFitConfig(min_size=3),
        GroupFitConfig(false_alarm_rate=0.05),
    ]
    records = [dn2.fit_groups(normal, store, bank="parts", config=config) for config in configs]

    assert len({record.version for record in records}) == len(configs)
    assert dn2.open_group_bank(store, "parts") == records[-1]
    assert dn2.fit_groups(normal, store, bank="parts") == records[0] == dn2.open_group_bank(store, "parts")


def test_other_images_or_another_pattern_change_the_version(store: Store, normal: Embedded):
    """The pattern is applied when rows are read: it is nowhere in the shards."""
    names = list("abcdefghij")
    folders = [write_shards(store, images(4, seed=row), name=name) for row, name in enumerate(names)]
    shards = tuple(shard for one in folders for shard in one.shards)
    dataset = replace(folders[0].dataset, source="file://")

    def read_with(pattern: str) -> Embedded:
        read = [replace(one, shard=replace(one.shard, pattern=pattern, source="file://")) for one in shards]
        return replace(folders[0], dataset=dataset, shards=tuple(read))

    whole, labelled = (
        dn2.fit_groups(read_with(pattern), store, bank="parts") for pattern in ("{group_id}/*", "{group_id}/{label}.*")
    )
    fewer = dn2.fit_groups(replace(normal, shards=normal.shards[:-1]), store, bank="parts")
    assert len({whole.version, labelled.version, fewer.version}) == 3
    assert (whole.groups, whole.members) == (labelled.groups, labelled.members) == (10, 40)
    assert GroupBank.open(store, whole).rows["group_id"].to_pylist() == names


def test_small_groups_and_images_of_none_are_left_out_and_told(store: Store, caplog: pytest.LogCaptureFixture):
    """A group of four of which two cannot be read is a group of two."""
    groups = normal_groups([4] * 6 + [2] * 3 + [4], seed=0)
    vectors = np.concatenate([*groups.values(), images(5, seed=9)])
    names = [name for name, members in groups.items() for _ in members] + [None] * 5
    embedded = write_shards(store, vectors, groups=names, rejected=[30, 31])

    config = GroupFitConfig(min_size=3, false_alarm_rate=0.2)
    record = dn2.fit_groups(embedded, store, bank="parts", config=config)

    assert (record.groups, record.members, record.small, record.ungrouped, record.rejected) == (6, 24, 4, 5, 2)
    assert record.sizes == (1, 2, 3, 4)
    assert caplog.messages == [
        "bank parts: left out 4 groups of fewer than 3 readable images, and 5 images that belong to no group [left-out]"
    ]


def test_rate_that_cannot_be_promised_is_told(store: Store, normal: Embedded, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        record = dn2.fit_groups(normal, store, bank="parts", config=GroupFitConfig(false_alarm_rate=0.001))

    assert record.attainable_rate == pytest.approx(1 / 21)  # however many parts the groups were cut into
    assert caplog.messages == [
        "bank parts: 20 normal groups cannot promise a false-alarm rate of 0.10%, only 4.76%; 999 groups would do "
        "[rate-not-kept]"
    ]


def test_concat_holds_the_images_of_each_group_in_their_order(store: Store):
    groups = normal_groups([3] * 6, seed=0)
    embedded = write_groups(store, groups, mixed=False, shard_rows=4)
    record = dn2.fit_groups(embedded, store, bank="parts", config=GroupFitConfig(pooling="concat"))
    bank = GroupBank.open(store, record)

    assert (record.dim, record.sizes) == (3 * 16, (3,))
    np.testing.assert_array_equal(bank.vectors, [members.reshape(-1) for members in groups.values()])


def test_every_file_says_how_it_was_made(store: Store, normal: Embedded):
    record = dn2.fit_groups(normal, store, bank="parts", config=GroupFitConfig(pooling="histogram", cells=4))
    document = json.loads(store.read(f"banks/parts/versions/{record.version}.json"))

    (segment,) = document["segments"]
    assert (document["schema"], document["config"]["cells"], document["parent"]) == ("dn2.group_bank_version", 4, None)
    footers = [
        read_config(store, f"banks/parts/segments/{segment}.parquet", BANK_GROUPS),
        read_config(store, f"banks/parts/versions/{record.version}.calibration.parquet", GROUP_CALIBRATION),
    ]
    assert [(one["embedder"], one["pooling"], one["cells"], one["k"]) for one in footers] == [
        (EMBEDDER, "histogram", 4, 2)
    ] * 2
    assert record.dim == 5  # and what is in no cell


def test_killed_training_leaves_no_version_and_the_next_one_finishes(store: Store, normal: Embedded, tmp_path: Path):
    """A folder lies where the calibration is to be written: the disk refuses it."""
    other = Store.open(tmp_path / "other")
    write_groups(other, normal_groups(SIZES, seed=0), shard_rows=40)
    record = dn2.fit_groups(normal, other, bank="parts")
    obstacle = tmp_path / f"store/banks/parts/versions/{record.version}.calibration.parquet"
    (obstacle / "full").mkdir(parents=True)

    with pytest.raises(StoreError, match="cannot write"):
        dn2.fit_groups(normal, store, bank="parts")
    assert not store.exists(f"banks/parts/versions/{record.version}.json")
    assert not store.exists("banks/parts/current.json")
    (obstacle / "full").rmdir()
    obstacle.rmdir()

    assert dn2.fit_groups(normal, store, bank="parts") == record == dn2.open_group_bank(store, "parts")


def test_same_images_elsewhere_give_the_same_thresholds(store: Store):
    """Groups are cut into parts by the bytes of their images, not by names or times."""
    groups = normal_groups([9] * 12, seed=0)
    contents = [f"{number}" for number in range(108)]
    found = []
    for name in ("here", "elsewhere"):
        embedded = write_groups(store, groups, name=name, mixed=False, contents=contents)
        record = dn2.fit_groups(embedded, store, bank=name)
        found.append(GroupBank.open(store, record).sizes)
    here, elsewhere = found
    assert here.sizes.tolist() == elsewhere.sizes.tolist()
    for one, other in zip(here.distances, elsewhere.distances, strict=True):
        np.testing.assert_array_equal(one, other)
