"""What there is to do to score a batch, before it is done."""

from __future__ import annotations

import pytest

import dn2
from dn2.config import FitConfig, ScoreConfig
from dn2.errors import EmbedderError
from dn2.records import Embedded
from dn2.scoring.plan import plan_scoring
from dn2.store.storage import Store
from tests.dn2.scoring.synthetic import normal_vectors, write_shards

SMALL = ScoreConfig(bank_memory_gb=80 * (2 * 16 + 300) / 2**30)


@pytest.fixture
def bank(store: Store) -> dn2.BankVersion:
    config = FitConfig(index="exact", segment_rows=70)
    return dn2.fit(write_shards(store, normal_vectors(200, seed=0)), store, bank="parts", config=config)


@pytest.fixture
def batch(store: Store) -> Embedded:
    return write_shards(store, normal_vectors(40, seed=1), name="batch", shard_rows=15, rejected=[3])


def test_bank_that_fits_memory_is_not_searched_beforehand(store: Store, bank: dn2.BankVersion, batch: Embedded):
    plan = plan_scoring(batch, store, bank, ScoreConfig())

    assert (plan.report, plan.searches, plan.total) == (None, (), 40)
    assert plan.shards == tuple(enumerate(batch.shards))
    assert (plan.source, plan.bank, plan.version) == (batch.dataset.source, "parts", bank.version)


def test_bank_larger_than_memory_is_searched_some_segments_after_the_others(
    store: Store, bank: dn2.BankVersion, batch: Embedded
):
    plan = plan_scoring(batch, store, bank, SMALL)

    assert [(load, place) for load, place, _ in plan.searches] == [
        (load, place) for load in ((0, 1), (1, 2), (2, 3)) for place in range(3)
    ]
    assert [shard for _, _, shard in plan.searches] == [*batch.shards] * 3


def test_scores_lie_where_planned_and_memory_does_not_change_them(store: Store, bank: dn2.BankVersion, batch: Embedded):
    report = dn2.score(batch, store, bank=bank, config=SMALL)

    plan = plan_scoring(batch, store, bank, SMALL)
    parts = [f"part-{place:05d}.parquet" for place in range(3)]
    found = [name for name in store.names(plan.folder) if name.startswith("found-")]
    assert (plan.report, plan.shards, plan.searches) == (report, (), ())
    assert sorted(store.names(plan.folder)) == sorted([*found, *parts])
    assert len(found) == 3
    assert [store.names(f"{plan.folder}/{name}") for name in found] == [[]] * 3  # merged


def test_batch_with_a_part_missing_is_not_gathered(store: Store, bank: dn2.BankVersion, batch: Embedded):
    with pytest.raises(AssertionError, match="0 rows for 40 images: a bug in dn2"):
        plan_scoring(batch, store, bank, ScoreConfig()).gather([])


def test_batch_of_another_embedder_is_not_planned(store: Store, bank: dn2.BankVersion):
    other = write_shards(store, normal_vectors(5, seed=1), name="batch", embedder="resnet18-aaaaaaaaaaaa")
    with pytest.raises(EmbedderError, match="got embeddings of resnet18-aaaaaaaaaaaa, expected those of"):
        plan_scoring(other, store, bank, ScoreConfig())
