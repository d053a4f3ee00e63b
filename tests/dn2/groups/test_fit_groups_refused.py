"""What is refused when a bank of groups is to be made, and in which words."""

from __future__ import annotations

import pytest

import dn2
from dn2.config import GroupFitConfig
from dn2.errors import BankError, ConfigError, RejectedError
from dn2.records import Embedded
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import images, normal_groups, write_groups
from tests.dn2.scoring.synthetic import write_shards

SIZES = [3] * 8 + [10] * 8 + [25] * 4


@pytest.fixture
def normal(store: Store) -> Embedded:
    return write_groups(store, normal_groups(SIZES, seed=0), shard_rows=40)


def test_too_few_groups_for_k_are_refused_with_numbers(store: Store):
    embedded = write_groups(store, normal_groups([4, 4, 4, 2, 2], seed=0))
    message = (
        r"k: got 3 with 3 of 5 groups with 3 or more readable images in file:///normal, expected at least 4; "
        r"give more groups, or a smaller k or min_size"
    )
    with pytest.raises(BankError, match=message):
        dn2.fit_groups(embedded, store, bank="parts", config=GroupFitConfig(k=3, min_size=3))
    assert store.names("banks") == []
    assert dn2.fit_groups(embedded, store, bank="parts", config=GroupFitConfig(k=3)).groups == 5


def test_copies_of_groups_do_not_count_as_neighbours(store: Store):
    """Ten folders hold the same four images each: there is nothing to compare them with."""
    groups = {name: images(4, seed=0) for name in "abcdefghij"}
    embedded = write_groups(store, groups, mixed=False, contents=list("1234") * 10)

    with pytest.raises(
        BankError, match="k: got 2 with 1 different normal groups in file:///normal, expected at least 3: a group"
    ):
        dn2.fit_groups(embedded, store, bank="parts")
    assert store.names("banks/parts/versions") == []


def test_concat_of_groups_of_several_sizes_is_refused(store: Store, normal: Embedded):
    message = r"pooling: got concat with groups of 3 to 25 images, expected groups of one size; use mean or histogram"
    with pytest.raises(BankError, match=message):
        dn2.fit_groups(normal, store, bank="parts", config=GroupFitConfig(pooling="concat"))
    assert store.names("banks") == []


def test_more_groups_than_memory_are_refused_before_a_vector_is_read(store: Store, normal: Embedded):
    config = GroupFitConfig(group_memory_gb=1e-6)
    with pytest.raises(BankError, match=r"\d+ groups and parts of groups, .* at most group_memory_gb = 1e-06"):
        dn2.fit_groups(normal, store, bank="parts", config=config)
    assert store.names("banks") == []


def test_images_without_groups_make_no_bank(store: Store):
    embedded = write_shards(store, images(20, seed=0))
    with pytest.raises(ConfigError, match="got images without groups, expected groups; give a pattern"):
        dn2.fit_groups(embedded, store, bank="parts")
    assert store.names("banks") == []


def test_too_many_rejects_stop_after_the_list_is_written(store: Store):
    embedded = write_groups(store, normal_groups(SIZES, seed=0), rejected=range(30))
    with pytest.raises(RejectedError, match="got 30 of 204 that cannot be read, expected at most 20"):
        dn2.fit_groups(embedded, store, bank="parts")
    assert store.exists(f"rejects/normal/{embedded.dataset.fingerprint}.parquet")
