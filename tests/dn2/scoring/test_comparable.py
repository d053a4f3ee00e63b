from __future__ import annotations

import numpy as np
import pytest

import dn2
from dn2.config import FitConfig
from dn2.errors import EmbedderError, NotFoundError
from dn2.records import Embedded
from dn2.store.storage import Store
from tests.dn2.scoring.synthetic import normal_vectors, write_probes, write_shards

CONFIG = FitConfig(false_alarm_rate=0.1)


@pytest.fixture
def normal(store: Store) -> Embedded:
    return write_shards(store, normal_vectors(60, seed=0), shard_rows=25)


@pytest.fixture
def bank(store: Store, normal: Embedded) -> dn2.BankVersion:
    return dn2.fit(normal, store, bank="parts", config=CONFIG)


def test_unknown_bank_is_named(store: Store, normal: Embedded):
    with pytest.raises(NotFoundError, match="bank 'bolts': not in store"):
        dn2.score(normal, store, bank="bolts")


def test_other_embedder_is_refused_naming_both(store: Store, bank: dn2.BankVersion):
    batch = write_shards(store, normal_vectors(5, seed=1), name="batch", embedder="resnet18-aaaaaaaaaaaa")

    message = (
        r"batch file:///batch: got embeddings of resnet18-aaaaaaaaaaaa, expected those of synthetic-0123456789ab, "
        r"which made bank 'parts'"
    )
    with pytest.raises(EmbedderError, match=message):
        dn2.score(batch, store, bank=bank)
    assert not store.exists("reports")


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        (
            normal_vectors(4, seed=5),
            r"got probe embeddings with cosine 0\.\d{5} to the known ones, expected at least 0",
        ),
        (normal_vectors(3, seed=99), r"got probe embeddings of shape \(3, 16\), expected \(4, 16\)"),
        (np.zeros((4, 16), np.float16), r"got probe embeddings with cosine 0\.00000"),
    ],
)
def test_embeddings_that_only_claim_to_be_alike_are_refused(
    store: Store, bank: dn2.BankVersion, probes: np.ndarray, message: str
):
    """The same embedder's name, but another engine or version that gives other vectors."""
    batch = write_shards(store, normal_vectors(5, seed=1), name="batch")
    write_probes(store, probes)

    with pytest.raises(EmbedderError, match=message):
        dn2.score(batch, store, bank=bank)
    assert not store.exists("reports")


def test_probes_that_differ_by_rounding_are_the_same(store: Store, bank: dn2.BankVersion):
    batch = write_shards(store, normal_vectors(5, seed=1), name="batch")
    write_probes(store, (normal_vectors(4, seed=99) * np.float16(1.001)).astype(np.float16))

    assert dn2.score(batch, store, bank=bank).scored == 5
