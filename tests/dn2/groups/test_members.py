"""What each image contributes to the distance of its group."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

import dn2
from dn2.config import GroupFitConfig
from dn2.groups.bank import GroupBank
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import by_group, groups_of, images, members_of, normal_groups, write_groups
from tests.dn2.scoring.synthetic import write_shards

CONFIGS = {
    "mean": GroupFitConfig(),
    "cosine": GroupFitConfig(metric="cosine"),
    "histogram": GroupFitConfig(pooling="histogram", cells=4),
    "concat": GroupFitConfig(pooling="concat", k=3),
    "k=1": GroupFitConfig(k=1),
}
STRANGER = 8 * np.eye(16)[9].astype(np.float16)


def scored(
    store: Store, config: GroupFitConfig, groups: dict[str, np.ndarray], **settings: Any
) -> tuple[dict[str, dict], dict[str, list[dict]], dn2.GroupReport]:
    """Return the rows of groups by name, and those of their images by the name of the group."""
    normal = write_groups(store, normal_groups([8] * 20, seed=0), shard_rows=33)
    dn2.fit_groups(normal, store, bank="parts", config=config)
    batch = write_groups(store, groups, name="batch", **{"shard_rows": 11, **settings})
    report = dn2.score_groups(batch, store, bank="parts")
    members = defaultdict(list)
    for row in members_of(store, report):
        members[row["group_id"]].append(row)
    return by_group(groups_of(store, report)), members, report


@pytest.mark.parametrize("name", CONFIGS)
def test_contributions_add_up_to_the_distance_of_the_group(store: Store, name: str):
    sizes = [8] * 6 if name == "concat" else [3, 8, 40, 1, 8, 2]
    rows, members, _ = scored(store, CONFIGS[name], normal_groups(sizes, seed=1))

    checked = 0
    for group, row in rows.items():
        if row["distance"] is not None:
            checked += 1
            assert len(members[group]) == row["members"]
            assert sum(one["contribution"] for one in members[group]) == pytest.approx(row["distance"], rel=0.01)
    assert checked == (6 if name == "concat" else 5)


@pytest.mark.parametrize("name", ["mean", "histogram"])
def test_contributions_are_those_of_the_formula(store: Store, name: str):
    """<f_i - b, d - b> / n, averaged over the nearest groups b."""
    groups = normal_groups([5, 9], seed=1)
    rows, members, report = scored(store, CONFIGS[name], groups, mixed=False)
    bank = GroupBank.open(store, dn2.open_group_bank(store, report.bank))
    names = bank.rows["group_id"].to_pylist()

    for group, vectors in groups.items():
        features = bank.pooling.features(vectors).astype(np.float64)
        near = [bank.vectors[names.index(one)].astype(np.float64) for one in rows[group]["neighbor_ids"]]
        pooled = features.mean(axis=0).astype(np.float16).astype(np.float64)
        expected = np.mean([(features - one) @ (pooled - one) for one in near], axis=0) / len(features)
        found = [row["contribution"] for row in members[group]]
        np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())


def test_contributions_to_images_put_one_after_the_other_are_their_own_distances(store: Store):
    groups = normal_groups([8, 8], seed=1)
    rows, members, report = scored(store, CONFIGS["concat"], groups, mixed=False)
    bank = GroupBank.open(store, dn2.open_group_bank(store, report.bank))
    names = bank.rows["group_id"].to_pylist()

    for group, vectors in groups.items():
        near = [bank.vectors[names.index(one)].reshape(8, 16) for one in rows[group]["neighbor_ids"]]
        expected = np.mean([((vectors.astype(np.float64) - one) ** 2).sum(axis=1) for one in near], axis=0)
        np.testing.assert_allclose([row["contribution"] for row in members[group]], expected, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_planted_stranger_contributes_most(store: Store, name: str):
    groups = normal_groups([8] * 4, seed=1)
    groups["g002"][5] = STRANGER
    rows, members, report = scored(store, CONFIGS[name], groups, mixed=False)

    (first,) = (row for row in members["g002"] if row["rank"] == 1)
    assert first["uri"] == "file:///batch/21.png"
    assert max(rows, key=lambda group: rows[group]["score"]) == "g002"
    assert (report.worst[0].group_id, report.worst[0].odd) == ("g002", first["uri"])


@pytest.mark.parametrize("name", CONFIGS)
def test_ranks_of_a_group_follow_its_contributions(store: Store, name: str):
    sizes = [8] * 6 if name == "concat" else [3, 8, 40, 1, 8, 2]
    _, members, _ = scored(store, CONFIGS[name], normal_groups(sizes, seed=1), rejected=[7] if name != "concat" else [])

    for rows in members.values():
        readable = [row for row in rows if row["contribution"] is not None]
        by_rank = sorted(readable, key=lambda row: row["rank"])
        assert [row["rank"] for row in by_rank] == list(range(1, len(readable) + 1))
        values = [row["contribution"] for row in by_rank]
        assert values == sorted(values, reverse=True)


def test_image_that_draws_its_group_to_the_normal_ones_contributes_less_than_nothing(store: Store):
    """Seven strangers, and one image that lies beyond the normal ones."""
    beyond = (4 * np.eye(16)[0] - 2 * STRANGER).astype(np.float16)
    groups = {"odd": np.stack([*([STRANGER] * 7), beyond]), **normal_groups([8] * 3, seed=1)}
    rows, members, _ = scored(store, CONFIGS["mean"], groups, mixed=False)

    values = [row["contribution"] for row in members["odd"]]
    assert min(values[:7]) > 0 > values[7]
    assert members["odd"][7]["rank"] == 8
    assert sum(values) == pytest.approx(rows["odd"]["distance"], rel=0.01)


def test_group_of_two_kinds_that_the_mean_takes_for_a_third_is_found_by_the_histogram(store: Store):
    """Normal groups are of one kind each, and one kind lies midway between two others."""
    random = np.random.default_rng(0)
    ends = 4 * np.eye(16)[:2]
    centres = [*ends, ends.mean(axis=0)]

    def group(*kinds: int) -> np.ndarray:
        return np.concatenate([centres[kind] + random.normal(0, 0.3, (24 // len(kinds), 16)) for kind in kinds]).astype(
            np.float16
        )

    normal = write_groups(store, {f"g{number:02d}": group(number % 3) for number in range(60)})
    batch = write_groups(store, {"mixed": group(0, 1), **{f"n{n}": group(n % 3) for n in range(9)}}, name="batch")
    found = {}
    for pooling in ("mean", "histogram"):
        config = GroupFitConfig(pooling=pooling, false_alarm_rate=0.05)
        bank = dn2.fit_groups(normal, store, bank=pooling, config=config)
        rows = by_group(groups_of(store, dn2.score_groups(batch, store, bank=bank)))
        found[pooling] = {name for name, row in rows.items() if row["is_anomaly"]}

    assert "mixed" in found["histogram"]
    assert "mixed" not in found["mean"]
    assert len(found["histogram"]) <= 3


def test_image_of_no_group_or_that_cannot_be_read_contributes_nothing(store: Store):
    normal = write_groups(store, normal_groups([8] * 20, seed=0))
    dn2.fit_groups(normal, store, bank="parts")
    names = ["a", None, "a", "a", None, "small"]
    batch = write_shards(store, images(6, seed=1), name="batch", groups=names, rejected=[2], shard_rows=2)

    rows = members_of(store, dn2.score_groups(batch, store, bank="parts"))

    assert [row["rank"] is not None for row in rows] == [True, False, False, True, False, False]
    assert [row["contribution"] is not None for row in rows] == [row["rank"] is not None for row in rows]
