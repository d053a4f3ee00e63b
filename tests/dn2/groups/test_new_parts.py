"""Reports of what is new: groups that a delivery touches, with all their images."""

from __future__ import annotations

import pytest

import dn2
from dn2.config import GroupFitConfig
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import by_group, groups_of, images, joined, members_of, normal_groups, write_groups
from tests.dn2.scoring.synthetic import write_shards


@pytest.fixture
def bank(store: Store) -> dn2.GroupBankVersion:
    normal = write_groups(store, normal_groups([3] * 8 + [10] * 8, seed=0), shard_rows=40)
    return dn2.fit_groups(normal, store, bank="parts", config=GroupFitConfig(false_alarm_rate=0.1))


def test_only_groups_with_new_images_are_reported_with_all_their_images(store: Store, bank: dn2.GroupBankVersion):
    """The second delivery has more images of b, the group c, and one image of no group."""
    old = write_shards(store, images(14, seed=1), name="old", groups=["a", "b"] * 6 + [None] * 2, shard_rows=5)
    new = write_shards(store, images(8, seed=2), name="new", groups=["b"] * 3 + ["c"] * 4 + [None], shard_rows=5)
    batch = joined(old, new)

    whole = dn2.score_groups(batch, store, bank=bank)
    report = dn2.score_groups(batch, store, bank=bank, new_parts=[batch.dataset.parts[1]])

    assert (report.groups, report.scored, report.images, report.ungrouped) == (2, 2, 14, 1)
    expected = [f"file:///old/{row}.png" for row in range(1, 12, 2)] + [f"file:///new/{row}.png" for row in range(8)]
    assert [row["uri"] for row in members_of(store, report)] == expected
    complete, touched = (by_group(groups_of(store, one)) for one in (whole, report))
    assert touched.keys() == {"b", "c"}
    for name, row in touched.items():
        same = ("members", "distance", "score", "p_value", "neighbor_ids")
        assert [row[one] for one in same] == [complete[name][one] for one in same]
    contributions = {row["uri"]: row["contribution"] for row in members_of(store, whole)}
    assert {row["uri"]: row["contribution"] for row in members_of(store, report)} == {
        uri: contributions[uri] for uri in expected
    }


@pytest.mark.parametrize(("groups", "expected"), [(["a"] * 3, 1), ([None] * 3, 0)])
def test_delivery_that_touches_one_group_or_none_is_reported(
    store: Store, bank: dn2.GroupBankVersion, groups: list[str | None], expected: int
):
    old = write_shards(store, images(12, seed=1), name="old", groups=["a", "b", None] * 4, shard_rows=5)
    batch = joined(old, write_shards(store, images(3, seed=2), name="new", groups=groups))

    report = dn2.score_groups(batch, store, bank=bank, new_parts={batch.dataset.parts[1]})

    assert (report.groups, report.scored) == (expected, expected)
    assert report.images == len(members_of(store, report)) == 3 + 4 * expected
    assert report.ungrouped == 3 * (1 - expected)


def test_new_parts_that_are_all_parts_give_all_groups(store: Store, bank: dn2.GroupBankVersion):
    batch = write_groups(store, normal_groups([3, 10, 1], seed=1), name="batch", shard_rows=5)
    one, other = (
        dn2.score_groups(batch, store, bank=bank, new_parts=parts) for parts in (None, list(batch.dataset.parts))
    )

    assert groups_of(store, one) == groups_of(store, other)
    assert members_of(store, one) == members_of(store, other)
