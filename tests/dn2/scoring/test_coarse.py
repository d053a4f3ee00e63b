"""Clusters of images: kinds or patients, told both ways."""

from __future__ import annotations

import numpy as np
import pytest

import dn2
from dn2.config import FitConfig
from dn2.store.storage import Store
from tests.dn2.scoring.synthetic import write_shards


def patients(count: int, images: int, *, apart: float = 2.0, dim: int = 32, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    means = apart * random.standard_normal((count, 1, dim))
    return (means + random.standard_normal((count, images, dim))).reshape(-1, dim).astype(np.float16)


def trained(store: Store, vectors: np.ndarray, **shards: object) -> dn2.BankVersion:
    return dn2.fit(write_shards(store, vectors, **shards), store, bank="parts", config=FitConfig())  # type: ignore[arg-type]


def test_patients_that_nobody_named_are_told_as_clusters(store: Store):
    bank = trained(store, patients(10, 40))

    assert bank.clusters == 10
    assert bank.attainable_rate == 0.01
    assert bank.if_patients == (
        "the images form 10 clusters: if these are patients or days, all images of another may be flagged; name them "
        "with --pattern, and the rate reads at least 9.1%"
    )
    assert bank.doubts == ()  # they may as well be kinds of images
    assert dn2.open_bank(store, "parts") == bank


def test_order_of_the_images_changes_no_cluster(store: Store):
    vectors = patients(10, 40)
    mixed = trained(store, np.random.default_rng(0).permutation(vectors), shard_rows=33)

    assert mixed.clusters == 10


@pytest.mark.parametrize("seed", range(3))
def test_images_of_one_kind_form_no_clusters(store: Store, seed: int):
    bank = trained(store, np.random.default_rng(seed).standard_normal((400, 32)).astype(np.float16))

    assert (bank.clusters, bank.if_patients) == (None, None)


def test_named_patients_are_not_asked_about(store: Store):
    groups = [f"patient-{row // 40}" for row in range(400)]
    bank = trained(store, patients(10, 40), groups=groups)

    assert (bank.clusters, bank.if_patients) == (None, None)
    assert bank.attainable_rate == pytest.approx(1 / 11)


def test_few_images_form_no_clusters(store: Store):
    assert trained(store, patients(3, 5)).clusters is None
