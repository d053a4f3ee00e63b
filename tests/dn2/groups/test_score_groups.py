from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import false_discovery_control

import dn2
from dn2.config import GroupFitConfig, GroupScoreConfig
from dn2.errors import ConfigError
from dn2.groups.bank import GroupBank
from dn2.records import Embedded
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import by_group, groups_of, images, members_of, normal_groups, write_groups
from tests.dn2.neighbors.oracle import brute_force
from tests.dn2.scoring.synthetic import modified, write_shards

SIZES = [3] * 8 + [10] * 8 + [25] * 4
RATE = GroupFitConfig(false_alarm_rate=0.1)
ALIKE = [6] * 12
CONFIGS = {
    "mean": RATE,
    "cosine": GroupFitConfig(false_alarm_rate=0.1, metric="cosine"),
    "histogram": GroupFitConfig(false_alarm_rate=0.1, pooling="histogram", cells=4),
    "concat": GroupFitConfig(false_alarm_rate=0.1, pooling="concat"),
}


@pytest.fixture
def normal(store: Store) -> Embedded:
    return write_groups(store, normal_groups(SIZES, seed=0), shard_rows=40)


@pytest.fixture
def bank(store: Store, normal: Embedded) -> dn2.GroupBankVersion:
    return dn2.fit_groups(normal, store, bank="parts", config=RATE)


def batch_of(store: Store, sizes: list[int], *, seed: int = 1, **settings: Any) -> Embedded:
    return write_groups(store, normal_groups(sizes, seed=seed), **{"name": "batch", "shard_rows": 23, **settings})


def test_rows_say_what_brute_force_says(store: Store, bank: dn2.GroupBankVersion):
    sizes = [3, 4, 10, 11, 25, 100]
    report = dn2.score_groups(batch_of(store, sizes), store, bank="parts")
    opened, rows = GroupBank.open(store, bank), groups_of(store, report)

    names = opened.rows["group_id"].to_pylist()
    vectors = {name: one.mean(axis=0, dtype=np.float64) for name, one in normal_groups(sizes, seed=1).items()}
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert {row["group_id"]: row["members"] for row in rows} == {f"g{n:03d}": size for n, size in enumerate(sizes)}
    for row in rows:
        nearest, exact = brute_force(vectors[row["group_id"]].astype(np.float16)[None], np.array(opened.vectors), 2)
        assert row["neighbor_ids"] == [names[number] for number in nearest[0]]
        np.testing.assert_allclose(row["neighbor_distances"], exact[0], rtol=1e-6)
        assert row["distance"] == pytest.approx(np.mean(row["neighbor_distances"]), rel=1e-6)
        size = np.array([row["members"]])
        assert row["score"] == pytest.approx(row["distance"] / opened.sizes.typical(size)[0], rel=1e-6)
        assert row["p_value"] == opened.sizes.p_values(np.array([row["score"]], np.float32), size)[0]
        assert row["threshold"] == opened.sizes.thresholds(size, bank.false_alarm_rate)[0][0]
        assert row["is_anomaly"] == (row["score"] > row["threshold"]) == (row["p_value"] <= 0.1)
        assert row["selected"] == (row["q_value"] <= 0.1)
        assert (row["rejected"], row["reason"], row["label"]) == (0, None, None)
    np.testing.assert_allclose(
        [row["q_value"] for row in rows], false_discovery_control([row["p_value"] for row in rows])
    )


def test_every_image_has_one_row_and_every_group_one(store: Store, bank: dn2.GroupBankVersion):
    """Rejected, superseded and ungrouped images, and groups that are too small: all are accounted for."""
    groups = {**normal_groups([3, 1, 10, 2, 25], seed=1), "broken": images(2, seed=8)}
    names = [name for name, members in groups.items() for _ in members] + [None] * 3
    vectors = np.concatenate([*groups.values(), images(3, seed=9)])
    gone, broken = [5, 20], [0, 14, 41, 42, 45]
    batch = write_shards(
        store, vectors, name="batch", groups=names, rejected=broken, superseded=gone, shard_rows=9, labels=names
    )
    report = dn2.score_groups(batch, store, bank=bank)
    rows, members = by_group(groups_of(store, report)), members_of(store, report)

    living = [row for row in range(46) if row not in gone]
    assert [row["uri"] for row in members] == [f"file:///batch/{row}.png" for row in living]
    assert [row["group_id"] for row in members] == [names[row] for row in living]
    assert [row["label"] for row in members] == [names[row] for row in living]
    assert [row["reject_reason"] is not None for row in members] == [row in broken for row in living]
    counts = Counter(names[row] for row in living)
    assert rows.keys() == groups.keys()
    for name, row in rows.items():
        assert row["members"] + row["rejected"] == counts[name]
        assert row["label"] == name
    assert {name for name, row in rows.items() if row["score"] is None} == {"g001", "g003", "broken"}
    for row in members:
        scored = rows[row["group_id"]]["score"] is not None if row["group_id"] else False
        assert (
            (row["contribution"] is not None) == (row["rank"] is not None) == (scored and row["reject_reason"] is None)
        )
    assert (report.groups, report.scored, report.unscored) == (6, 3, 3)
    assert (report.images, report.rejected, report.ungrouped) == (44, 5, 3)
    assert report.anomalous == sum(bool(row["is_anomaly"]) for row in rows.values())
    assert report.selected == sum(bool(row["selected"]) for row in rows.values())


def test_too_small_groups_come_last_with_a_reason_and_no_figures(store: Store, bank: dn2.GroupBankVersion):
    rows = groups_of(store, dn2.score_groups(batch_of(store, [1, 3, 1, 10]), store, bank=bank))

    assert [row["group_id"] for row in rows[2:]] == ["g000", "g002"]
    figures = ("distance", "score", "p_value", "q_value", "threshold", "is_anomaly", "selected")
    for row in rows[2:]:
        assert row["reason"] == "1 readable images, expected at least 2"
        assert [row[name] for name in (*figures, "neighbor_ids", "neighbor_distances")] == [None] * 9
    assert [row["reason"] for row in rows[:2]] == [None, None]


@pytest.mark.parametrize("pooling", CONFIGS)
def test_batch_whose_groups_are_all_too_small_is_reported(store: Store, pooling: str):
    normal = write_groups(store, normal_groups(ALIKE, seed=0))
    config = CONFIGS[pooling].model_copy(update={"min_size": 2})
    bank = dn2.fit_groups(normal, store, bank="parts", config=config)

    report = dn2.score_groups(batch_of(store, [1, 1, 1], shard_rows=2), store, bank=bank)

    assert (report.groups, report.scored, report.unscored, report.anomalous, report.worst) == (3, 0, 3, 0, ())
    assert report.warnings == ("none of 3 groups could be scored",)
    assert [row["score"] for row in groups_of(store, report)] == [None] * 3
    assert [row["contribution"] for row in members_of(store, report)] == [None] * 3
    assert report.anomalous_rate == 0


def test_batch_without_groups_is_refused(store: Store, bank: dn2.GroupBankVersion):
    with pytest.raises(ConfigError, match="file:///loose: got images without groups"):
        dn2.score_groups(write_shards(store, images(5, seed=1), name="loose"), store, bank=bank)
    assert not store.exists("reports")


@pytest.mark.parametrize("pooling", CONFIGS)
def test_shards_without_a_readable_or_grouped_image_do_no_harm(store: Store, pooling: str):
    bank = dn2.fit_groups(
        write_groups(store, normal_groups(ALIKE, seed=0)), store, bank="parts", config=CONFIGS[pooling]
    )
    names = [None] * 4 + ["a"] * 4 + ["b"] * 8 + ["a"] * 2 + [None] * 2
    batch = write_shards(
        store, images(20, seed=1), name="batch", groups=names, rejected=[0, 1, 2, 3, 14, 15], shard_rows=4
    )
    report = dn2.score_groups(batch, store, bank=bank)

    assert (report.scored, report.images, report.rejected, report.ungrouped) == (2, 20, 6, 6)


def test_another_rate_flags_more_and_is_another_report(store: Store, bank: dn2.GroupBankVersion):
    batch = batch_of(store, [3] * 30 + [10] * 30)
    reports = [
        dn2.score_groups(batch, store, bank=bank, config=GroupScoreConfig(false_alarm_rate=rate))
        for rate in (None, 0.1, 0.4)
    ]

    assert reports[0].anomalous == reports[1].anomalous < reports[2].anomalous
    assert [report.false_alarm_rate for report in reports] == [0.1, 0.1, 0.4]
    assert reports[0].uri != reports[2].uri
    rows = groups_of(store, reports[2])
    assert all(row["is_anomaly"] == (row["p_value"] <= 0.4) for row in rows)


def test_score_again_gives_the_same_report_and_rewrites_nothing(
    store: Store, bank: dn2.GroupBankVersion, tmp_path: Path
):
    batch = batch_of(store, [3, 10, 1])
    first, files = dn2.score_groups(batch, store, bank=bank), modified(tmp_path)
    memory = GroupScoreConfig(group_memory_gb=1, search_memory_mb=16)

    assert dn2.score_groups(batch, store.uri, bank="parts") == first
    assert dn2.score_groups(batch, store, bank=bank, config=memory) == first
    assert modified(tmp_path) == files


def test_changed_batch_bank_or_settings_get_another_report(store: Store, bank: dn2.GroupBankVersion, normal: Embedded):
    batch = batch_of(store, [3, 10])
    other = dn2.fit_groups(normal, store, bank="parts", config=GroupFitConfig(k=1))
    fewer = replace(batch, shards=batch.shards[:-1]) if len(batch.shards) > 1 else batch_of(store, [3, 9])
    reports = [
        dn2.score_groups(batch, store, bank=bank),
        dn2.score_groups(batch, store, bank=other),
        dn2.score_groups(fewer, store, bank=bank),
        dn2.score_groups(batch, store, bank=bank, new_parts=batch.dataset.parts),
        dn2.score_groups(batch, store, bank=bank, config=GroupScoreConfig(report_groups=1)),
        dn2.score_groups(batch, store, bank=bank, config=GroupScoreConfig(false_discovery_rate=0.2)),
    ]

    assert len({report.uri for report in reports}) == 6


@pytest.mark.parametrize("pooling", CONFIGS)
def test_shard_size_changes_no_score(store: Store, pooling: str):
    reports = []
    for rows in (1000, 7):
        normal = write_groups(store, normal_groups(ALIKE, seed=0), name=f"normal{rows}", shard_rows=rows)
        bank = dn2.fit_groups(normal, store, bank=f"parts{rows}", config=CONFIGS[pooling])
        batch = batch_of(store, ALIKE, shard_rows=rows, name=f"batch{rows}")
        reports.append(dn2.score_groups(batch, store, bank=bank))

    one, other = (by_group(groups_of(store, report)) for report in reports)
    for name, row in one.items():
        assert other[name]["distance"] == pytest.approx(row["distance"], rel=1e-3)
        assert other[name]["neighbor_ids"] == row["neighbor_ids"]
    few, many = ([row["contribution"] for row in members_of(store, report)] for report in reports)
    np.testing.assert_allclose(few, many, atol=1e-2 * max(row["distance"] for row in one.values()))


def test_groups_of_another_size_get_no_score_with_concat(store: Store):
    normal = write_groups(store, normal_groups(ALIKE, seed=0))
    bank = dn2.fit_groups(normal, store, bank="parts", config=CONFIGS["concat"])

    report = dn2.score_groups(batch_of(store, [6, 3, 9, 1]), store, bank=bank)

    assert (report.scored, report.unscored) == (1, 3)
    reasons = {row["members"]: row["reason"] for row in groups_of(store, report)}
    assert reasons == {
        6: None,
        3: "3 readable images, expected 6: the bank's pooling is concat",
        9: "9 readable images, expected 6: the bank's pooling is concat",
        1: "1 readable images, expected at least 2",
    }


def test_group_whose_copies_leave_too_few_to_compare_with_gets_no_score(store: Store):
    """The bank holds three groups; another source has one of them under the name of another."""
    groups = normal_groups([6] * 3, seed=0)
    contents = [f"{name}-{row}" for name, members in groups.items() for row in range(len(members))]
    bank = dn2.fit_groups(write_groups(store, groups, mixed=False, contents=contents), store, bank="parts")
    first, second, third = groups
    swapped = {first: groups[second], second: groups[first], third: groups[third]}
    order = [f"{name}-{row}" for name in (second, first, third) for row in range(6)]

    report = dn2.score_groups(write_groups(store, swapped, mixed=False, contents=order), store, bank=bank)

    reason = "1 normal groups are neither itself nor a copy of it, expected at least k = 2"
    found = {row["group_id"]: row["reason"] for row in groups_of(store, report)}
    assert found == {first: reason, second: reason, third: None}
