"""A bank of groups knows its own groups again, and what it can be compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dn2
from dn2.config import GroupFitConfig
from dn2.errors import BankError, ConfigError, EmbedderError, NotFoundError
from dn2.groups.bank import GroupBank, group_keys, open_group_bank
from dn2.records import Embedded
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import by_group, groups_of, images, members_of, normal_groups, write_groups
from tests.dn2.neighbors.oracle import brute_force
from tests.dn2.scoring.synthetic import write_shards

SIZES = [6] * 12
CONFIGS = [
    GroupFitConfig(),
    GroupFitConfig(metric="cosine"),
    GroupFitConfig(pooling="histogram", cells=4),
    GroupFitConfig(pooling="concat"),
]
COUNT = sum(SIZES)


@pytest.fixture
def normal(store: Store) -> Embedded:
    return write_groups(store, normal_groups(SIZES, seed=0), shard_rows=20)


def left_out_one_by_one(store: Store, bank: dn2.GroupBankVersion) -> dict[str, float]:
    """Return the distance of each group of a bank to the nearest others."""
    opened, own = GroupBank.open(store, bank), np.arange(len(SIZES))[None]
    vectors = np.array(opened.vectors)
    _, distances = brute_force(vectors, vectors, bank.k, own, own)
    return dict(zip(opened.rows["group_id"].to_pylist(), distances.mean(axis=1).tolist(), strict=True))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.pooling}-{config.metric}")
def test_training_groups_scored_again_are_not_their_own_neighbours(
    store: Store, normal: Embedded, config: GroupFitConfig
):
    bank = dn2.fit_groups(normal, store, bank="parts", config=config)

    rows = by_group(groups_of(store, dn2.score_groups(normal, store, bank=bank)))

    assert all(name not in row["neighbor_ids"] for name, row in rows.items())
    expected = left_out_one_by_one(store, bank)
    assert {name: row["distance"] for name, row in rows.items()} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.pooling}-{config.metric}")
def test_copies_of_training_groups_under_other_names_are_not_compared_with_them(
    store: Store, normal: Embedded, config: GroupFitConfig
):
    """The same bytes in another source, where each group has another name."""
    bank = dn2.fit_groups(normal, store, bank="parts", config=config)
    renamed = {f"copy of {name}": members for name, members in normal_groups(SIZES, seed=0).items()}
    contents = [f"normal-{row}" for row in range(COUNT)]
    copies = write_groups(store, renamed, name="copies", contents=contents)

    rows = by_group(groups_of(store, dn2.score_groups(copies, store, bank=bank)))

    expected = {f"copy of {name}": distance for name, distance in left_out_one_by_one(store, bank).items()}
    assert {name: row["distance"] for name, row in rows.items()} == pytest.approx(expected, rel=1e-5)


def test_group_that_grew_since_the_training_is_still_known_by_its_name(store: Store):
    """It lies in the same source, and has one image more."""
    groups = normal_groups(SIZES, seed=0)
    grown = {**groups, "g003": np.concatenate([groups["g003"], images(1, seed=99)])}
    bank = dn2.fit_groups(write_groups(store, groups), store, bank="parts")

    rows = by_group(groups_of(store, dn2.score_groups(write_groups(store, grown), store, bank=bank)))

    assert rows["g003"]["members"] == 7
    assert "g003" not in rows["g003"]["neighbor_ids"]


def test_group_of_the_same_name_in_another_source_is_another_group(store: Store, normal: Embedded):
    """Its images are the same to the eye, and other bytes: it is as normal as can be."""
    bank = dn2.fit_groups(normal, store, bank="parts")
    batch = write_groups(store, normal_groups(SIZES, seed=0), name="batch")

    for name, row in by_group(groups_of(store, dn2.score_groups(batch, store, bank=bank))).items():
        assert (row["neighbor_ids"][0], row["neighbor_distances"][0]) == (name, 0)


def test_keys_tell_names_sources_and_contents_apart():
    contents = np.array([1, 2], np.uint64)
    one = group_keys("file:///a", ["x", "y"], contents)

    assert (one.shape, one.dtype) == ((2, 2), np.int64)
    assert len({*one[0], *group_keys("file:///b", ["x", "y"], contents)[0]}) == 4
    assert one[1].tolist() == [1, 2]
    assert group_keys("s", ["x"], np.array([2**64 - 5], np.uint64))[1].tolist() == [-5]


def test_k_may_be_all_the_groups_that_are_left(store: Store):
    """Four groups and k = 3: each is compared with all the others."""
    groups = normal_groups([4] * 4, seed=0)
    bank = dn2.fit_groups(write_groups(store, groups), store, bank="parts", config=GroupFitConfig(k=3))
    contents = [f"normal-{row}" for row in range(16)]

    report = dn2.score_groups(write_groups(store, groups, name="copies", contents=contents), store, bank=bank)

    assert [len(set(row["neighbor_ids"]) - {row["group_id"]}) for row in groups_of(store, report)] == [3] * 4


IMAGES_GOT = r"bank 'parts': got a bank of images \(of dn2 train, for dn2 score\), expected a bank of groups"
GROUPS_GOT = r"bank 'parts': got a bank of groups \(of dn2 train-groups, for dn2 score-groups\), expected a bank of im"


def test_bank_of_images_is_no_bank_of_groups(store: Store, normal: Embedded):
    record = dn2.fit(normal, store, bank="parts")

    with pytest.raises(BankError, match=IMAGES_GOT):
        dn2.fit_groups(normal, store, bank="parts")
    with pytest.raises(BankError, match=IMAGES_GOT):
        dn2.score_groups(normal, store, bank="parts")
    with pytest.raises(BankError, match=IMAGES_GOT):
        open_group_bank(store, "parts", version=record.version)
    assert dn2.open_bank(store, "parts") == record
    assert dn2.fit_groups(normal, store, bank="others").groups == 12


def test_bank_of_groups_is_no_bank_of_images(store: Store, normal: Embedded):
    record = dn2.fit_groups(normal, store, bank="parts")

    with pytest.raises(BankError, match=GROUPS_GOT):
        dn2.fit(normal, store, bank="parts")
    with pytest.raises(BankError, match=GROUPS_GOT):
        dn2.score(normal, store, bank="parts")
    with pytest.raises(BankError, match=GROUPS_GOT):
        dn2.open_bank(store, "parts")
    assert dn2.open_group_bank(store, "parts") == record


def test_bank_that_is_not_there_is_not_found(store: Store, normal: Embedded):
    dn2.fit_groups(normal, store, bank="parts")

    with pytest.raises(NotFoundError, match=r"bank 'prats': not in store .*, which has: parts"):
        dn2.score_groups(normal, store, bank="prats")
    with pytest.raises(NotFoundError):
        dn2.open_group_bank(store, "parts", version="0123456789abcdef")
    with pytest.raises(ConfigError, match=r"name '\.\./parts' cannot be used"):
        dn2.open_group_bank(store, "../parts")


def test_batch_of_another_embedder_is_refused(store: Store, normal: Embedded):
    bank = dn2.fit_groups(normal, store, bank="parts")
    batch = write_shards(store, images(4, seed=1), name="batch", groups=["a"] * 4, embedder="other-0123456789ab")

    message = r"batch file:///batch: got embeddings of other-0123456789ab, expected those of synthetic-0123456789ab"
    with pytest.raises(EmbedderError, match=message):
        dn2.score_groups(batch, store, bank=bank)
    assert not store.exists("reports")


def test_older_version_of_a_bank_can_still_be_used(store: Store, normal: Embedded):
    first = dn2.fit_groups(normal, store, bank="parts", config=GroupFitConfig(k=1))
    dn2.fit_groups(normal, store, bank="parts")

    report = dn2.score_groups(normal, store, bank=open_group_bank(store, "parts", version=first.version))

    assert report.version == first.version
    assert all(len(row["neighbor_ids"]) == 1 for row in groups_of(store, report))


def test_store_in_memory_of_this_process_gives_the_same_scores(store: Store, tmp_path: Path):
    """Any fsspec store: vectors and cells are read through the local cache."""
    rows = []
    for place in (store, Store.open(f"memory://{tmp_path.name}-groups")):
        normal = write_groups(place, normal_groups(SIZES, seed=0), shard_rows=20)
        dn2.fit_groups(normal, place, bank="parts", config=GroupFitConfig(pooling="histogram", cells=4))
        batch = write_groups(place, normal_groups([3, 9], seed=1), name="batch")
        report = dn2.score_groups(batch, place, bank="parts")
        rows.append([groups_of(place, report), members_of(place, report)])

    assert rows[0] == rows[1]
