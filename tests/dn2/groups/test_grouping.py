from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dn2.errors import ConfigError
from dn2.groups.grouping import Grouping
from dn2.records import Embedded
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import joined
from tests.dn2.scoring.synthetic import normal_vectors, write_shards


def written(store: Store, groups: Sequence[str | None], **settings: object) -> Embedded:
    return write_shards(store, normal_vectors(len(groups), seed=0), groups=groups, **settings)


def test_group_may_lie_in_any_number_of_shards(store: Store):
    names = ["b", "a", "b", "c", "a", "b", "b", "c", "c", "c", "b"]
    grouping = Grouping.of(written(store, names, shard_rows=3), store)

    assert grouping.group_ids == ["b", "a", "c"]
    assert [groups.tolist() for groups in grouping.group_of] == [[0, 1, 0], [2, 1, 0], [0, 2, 2], [2, 0]]
    assert (grouping.members.tolist(), grouping.rejected.tolist()) == ([5, 2, 4], [0, 0, 0])
    assert grouping.labels == [None, None, None]
    assert grouping.ungrouped == 0


def test_group_may_come_in_several_deliveries(store: Store):
    one = written(store, ["a", "b", "a"], shard_rows=2)
    other = written(store, ["c", "a"], name="later")
    grouping = Grouping.of(joined(one, other), store)

    assert (grouping.group_ids, grouping.members.tolist()) == (["a", "b", "c"], [3, 1, 1])
    assert [groups.tolist() for groups in grouping.group_of] == [[0, 1], [0], [2, 0]]


def test_rejected_images_are_told_apart_and_superseded_ones_are_not_there(store: Store):
    """The last group has no readable image, the one before it no image any more."""
    names = ["a", "b", "a", "b", "a", "gone", "broken", None, None]
    embedded = written(store, names, rejected=[0, 6, 7], superseded=[2, 5], shard_rows=4)
    grouping = Grouping.of(embedded, store)

    assert grouping.group_ids == ["a", "b", "broken"]
    assert (grouping.members.tolist(), grouping.rejected.tolist()) == ([1, 2, 0], [1, 0, 1])
    assert [groups.tolist() for groups in grouping.group_of] == [[0, 1, 1], [0, 2, -1], [-1]]
    assert [one.tolist() for one in grouping.readable] == [[False, True, True], [True, False, False], [True]]
    assert grouping.ungrouped == 2
    assert [len(one) for one in grouping.image_keys] == [3, 3, 1]


def test_images_without_a_group_are_counted(store: Store):
    grouping = Grouping.of(written(store, [None, "a", None, None, "a"], shard_rows=2), store)

    assert (grouping.ungrouped, grouping.members.tolist()) == (3, [2])


@pytest.mark.parametrize("shard_rows", [1, 2, 100])
def test_no_groups_at_all_says_how_to_tell_them(store: Store, shard_rows: int):
    message = (
        r"file:///normal: got images without groups, expected groups; give a pattern such as "
        r"'\{group_id\}/\*', or a table with a column group_id as the source"
    )
    with pytest.raises(ConfigError, match=message):
        Grouping.of(written(store, [None] * 3, shard_rows=shard_rows), store)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["x", "x", "x"], "x"),
        (["x", "y", "x"], None),
        (["x", "y", "y"], None),
        (["x", None, "x"], None),
        ([None, "x", "x"], None),
        ([None, None, None], None),
    ],
)
@pytest.mark.parametrize("shard_rows", [1, 3])
def test_label_of_a_group_is_the_one_that_all_its_images_have(
    store: Store, labels: list[str | None], expected: str | None, shard_rows: int
):
    embedded = written(store, ["a", "a", "a", "b"], labels=[*labels, "z"], shard_rows=shard_rows)

    assert Grouping.of(embedded, store).labels == [expected, "z"]


def with_pattern(store: Store, pattern: str, *folders: str) -> Embedded:
    """Return a dataset with images 0.png to 2.png in each folder."""
    written_ones = [write_shards(store, normal_vectors(3, seed=0), name=folder) for folder in folders]
    whole = joined(*(replace(one, dataset=replace(one.dataset, source="file://")) for one in written_ones))
    return replace(whole, shards=tuple(replace(one, shard=replace(one.shard, pattern=pattern)) for one in whole.shards))


def test_group_below_two_labels_of_a_pattern_is_refused_with_advice(store: Store):
    message = (
        r"pattern '\{label\}/\{group_id\}\.png': group '0' lies below the labels 'good' and 'bad'; if these are two "
        r"groups, write \{group_id\} in place of \{label\} too"
    )
    with pytest.raises(ConfigError, match=message):
        Grouping.of(with_pattern(store, "{label}/{group_id}.png", "good", "bad"), store)


def test_advice_for_a_group_below_two_labels_helps(store: Store):
    grouping = Grouping.of(with_pattern(store, "{group_id}/{group_id}.png", "good", "bad"), store)

    assert grouping.group_ids == ["good/0", "good/1", "good/2", "bad/0", "bad/1", "bad/2"]


def test_pattern_tells_groups_and_labels_whatever_was_stored(store: Store):
    grouping = Grouping.of(with_pattern(store, "{label}/{group_id}.png", "one"), store)

    assert (grouping.group_ids, grouping.labels) == (["0", "1", "2"], ["one"] * 3)
    assert grouping.members.tolist() == [1, 1, 1]


def test_labels_below_a_group_may_differ(store: Store):
    """As one for each camera: whose image it is cannot be mistaken."""
    grouping = Grouping.of(with_pattern(store, "{group_id}/{label}.png", "one", "two"), store)

    assert (grouping.group_ids, grouping.labels) == (["one", "two"], [None, None])
    assert grouping.members.tolist() == [3, 3]


def test_pattern_that_fits_no_image_leaves_all_without_a_group(store: Store):
    with pytest.raises(ConfigError, match=r"file://: got images without groups"):
        Grouping.of(with_pattern(store, "elsewhere/{group_id}.png", "one"), store)


def test_pattern_without_a_label_leaves_groups_without_one(store: Store):
    grouping = Grouping.of(with_pattern(store, "{group_id}/*", "one", "two"), store)

    assert (grouping.group_ids, grouping.labels) == (["one", "two"], [None, None])


def test_contents_know_a_group_again_by_its_images(store: Store):
    """In any order, in other shards and under another name; one image more or less is another group."""
    base = Grouping.of(written(store, ["a"] * 3 + ["b"] * 3, contents=list("123456")), store)
    names = ["x", "y", "x", "y", "x", "y", "y"]
    other = Grouping.of(written(store, names, contents=list("3416259"), name="other", shard_rows=2), store)

    assert base.contents[0] == other.contents[0]
    assert len({*base.contents, *other.contents}) == 3


def test_contents_are_those_of_readable_images(store: Store):
    whole = Grouping.of(written(store, ["a", "a", "a"], rejected=[1], contents=list("123")), store)
    fewer = Grouping.of(written(store, ["a", "a"], contents=list("13"), name="fewer"), store)

    assert whole.contents.tolist() == fewer.contents.tolist()


def test_untouched_groups_are_forgotten(store: Store):
    """And what is old of the images without a group."""
    names = ["a", "b", None, "c", "b", None, "d", "a"]
    grouping = Grouping.of(written(store, names, shard_rows=2, labels=list("abacbada"), rejected=[4]), store)

    grouping.forget_untouched([False, False, True, False])

    assert (grouping.group_ids, grouping.labels) == (["b"], ["b"])
    assert [groups.tolist() for groups in grouping.group_of] == [[-2, 0], [-2, -2], [0, -1], [-2, -2]]
    assert (grouping.members.tolist(), grouping.rejected.tolist(), grouping.ungrouped) == ([1], [1], 1)
    assert len(grouping.contents) == 1


@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1, 2, 3]), st.integers(0, 4)), min_size=1, max_size=40))
def test_forgetting_keeps_whole_groups(rows: list[tuple[int, int]]):
    """Rows are (group, shard); the shards 0 and 3 are new."""
    new = [True, False, False, True, False]
    before = [np.array([group for group, at in rows if at == shard], np.int64) for shard in range(5)]
    counts = np.array([sum(group == one for group, _ in rows) for one in range(4)])
    grouping = Grouping(
        group_ids=list("0123"),
        labels=[None] * 4,
        group_of=before,
        members=counts,
        rejected=np.zeros(4, np.int64),
        contents=np.arange(4, dtype=np.uint64),
    )

    grouping.forget_untouched(new)

    touched = [str(one) for one in range(4) if any(group == one and new[at] for group, at in rows)]
    assert grouping.group_ids == touched
    assert grouping.members.tolist() == [counts[int(name)] for name in touched]
    assert grouping.contents.tolist() == [int(name) for name in touched]
    for shard, (old, now) in enumerate(zip(before, grouping.group_of, strict=True)):
        for group, found in zip(old, now, strict=True):
            known = touched.index(str(group)) if str(group) in touched else -2
            assert found == (known if group >= 0 else -1 if new[shard] else -2)
    assert grouping.ungrouped == sum(group == -1 and new[at] for group, at in rows)
