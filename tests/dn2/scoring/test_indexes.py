"""Every index through the whole library: train, search, calibrate, report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dn2
from dn2.config import FitConfig, ScoreConfig
from dn2.errors import BankError
from dn2.neighbors.bank import Bank, prepared
from dn2.scoring.calibration import Calibration
from dn2.scoring.plan import bank_loads, plan_scoring
from dn2.scoring.score import score_shard, search_shard
from dn2.scoring.scores import mean_distance
from dn2.store.schemas import CALIBRATION, SCORES
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.neighbors.oracle import brute_force, nearest_of, rows_of, vectors_of
from tests.dn2.scoring.synthetic import normal_vectors, write_shards

KINDS = {
    "exact": FitConfig(index="exact"),
    "ivf": FitConfig(index="ivf", nlist=9, recall=1.0),
    "every-cell": FitConfig(index="ivf", nlist=9, nprobe=9),
    "centroids": FitConfig(index="centroids", centroids=12),
    "segments": FitConfig(index="exact", segment_rows=70),
    "segments-of-cells": FitConfig(index="ivf", nlist=5, nprobe=5, segment_rows=70),
}


def found_by(store: Store, record: dn2.BankVersion, queries: np.ndarray, **how: float):
    names = [f"query{row}" for row in range(len(queries))]
    bank = Bank.open(store, record, memory_gb=how.get("memory_gb", 1))
    return bank, nearest_of(bank, queries, names)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("kind", ["exact", "every-cell", "centroids", "segments", "segments-of-cells"])
def test_index_finds_what_brute_force_finds_among_its_rows(store: Store, kind: str, k: int, metric: str):
    """With duplicates, and queries that are rows of the bank."""
    vectors = normal_vectors(200, seed=0)
    vectors[150:170] = vectors[3]
    config = KINDS[kind].model_copy(update={"k": k, "metric": metric})
    record = dn2.fit(write_shards(store, vectors), store, bank="parts", config=config)
    queries = np.concatenate([normal_vectors(30, seed=1), vectors[:20], normal_vectors(2, seed=2) * 50])

    bank, found = found_by(store, record, queries)

    rows, distances = brute_force(prepared(queries, metric), vectors_of(bank), record.k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.distances, distances)
    uris = rows_of(bank)["uri"].to_pylist()
    assert bank.described(found.rows[0])["uri"] == [uris[row] for row in rows[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_scores_come_from_the_index_itself(store: Store, kind: str):
    vectors = normal_vectors(300, seed=0)
    config = KINDS[kind].model_copy(update={"calibration": "held-out", "false_alarm_rate": 0.1})
    record = dn2.fit(write_shards(store, vectors), store, bank="parts", config=config)

    table = read_table(store, f"banks/parts/versions/{record.version}.calibration.parquet", CALIBRATION)
    bank = Bank.open(store, record, memory_gb=1)
    (held,) = bank.held
    ids, contents = (held.table[name].to_pylist() for name in ("image_id", "content_sha256"))
    again = nearest_of(bank, held.vectors, ids, contents)
    assert table["image_id"].to_pylist() == ids
    np.testing.assert_array_equal(table["score"].to_numpy(), mean_distance(again.distances))
    assert record.threshold == Calibration.read(store, "parts", record.version).threshold(0.1)[0]
    assert not set(ids) & set(rows_of(bank)["image_id"].to_pylist()) or kind == "centroids"


def test_ivf_visits_as_many_cells_as_the_recall_asks_for_and_tells_what_that_costs(store: Store):
    random = np.random.default_rng(0)
    vectors = (
        random.normal(size=(40, 16))[random.integers(40, size=3000)] * 3 + random.normal(size=(3000, 16))
    ).astype(np.float16)
    records = [
        dn2.fit(
            write_shards(store, vectors),
            store,
            bank="parts",
            config=FitConfig(index="ivf", nlist=60, recall=recall, calibration="held-out"),
        )
        for recall in (0.5, 0.99)
    ]

    assert 1 <= records[0].nprobe < records[1].nprobe < 60
    for record in records:
        fidelity = record.fidelity
        bank = Bank.open(store, record, memory_gb=1)
        assert fidelity is not None
        assert 200 <= fidelity.images <= 600
        assert 0 < fidelity.rank_correlation <= 1
        (held,) = bank.held
        ids = held.table["image_id"].to_pylist()
        found = nearest_of(bank, held.vectors, ids)
        true = brute_force(np.array(held.vectors), vectors_of(bank), 2)[1]
        everywhere = (found.distances <= true[:, -1:]).mean()
        assert fidelity.recall == pytest.approx(everywhere, abs=0.05)
    assert records[1].fidelity.recall >= 0.98
    assert records[1].fidelity.score_error < records[0].fidelity.score_error
    assert dn2.open_bank(store, "parts", version=records[1].version).fidelity == records[1].fidelity


def test_one_centre_is_the_mean(store: Store):
    vectors = normal_vectors(100, seed=0)
    config = FitConfig(index="centroids", centroids=1, k=2)
    record = dn2.fit(write_shards(store, vectors), store, bank="parts", config=config)

    bank, found = found_by(store, record, normal_vectors(5, seed=1))

    in_bank = np.setdiff1d(
        np.arange(100), [int(uri.split("/")[-1][:-4]) for uri in bank.held[0].table["uri"].to_pylist()]
    )
    assert (record.k, record.rows, record.nlist, record.calibration) == (1, 1, 1, "held-out")
    np.testing.assert_allclose(vectors_of(bank)[0], vectors[in_bank].astype(np.float64).mean(0), rtol=2e-3)
    assert found.rows.tolist() == [[0]] * 5


def test_centres_cannot_be_calibrated_by_leaving_one_out(store: Store):
    config = FitConfig(index="centroids", calibration="leave-one-out")
    with pytest.raises(BankError, match="calibration: got leave-one-out with index centroids, expected held-out"):
        dn2.fit(write_shards(store, normal_vectors(50, seed=0)), store, bank="parts", config=config)


def test_image_that_a_centre_stands_for_is_compared_with_it(store: Store):
    """The centre is many images: it is not passed over because its picture is that of the image."""
    embedded = write_shards(store, normal_vectors(60, seed=0))
    record = dn2.fit(embedded, store, bank="parts", config=FitConfig(index="centroids", centroids=1))
    bank = Bank.open(store, record, memory_gb=1)
    ids, contents = (rows_of(bank)[name].to_pylist() for name in ("image_id", "content_sha256"))

    assert nearest_of(bank, normal_vectors(1, seed=0), ids, contents).rows.tolist() == [[0]]


@pytest.mark.parametrize("kind", ["segments", "segments-of-cells"])
def test_bank_larger_than_memory_gives_the_same_scores(store: Store, kind: str):
    """Segments are opened one after the other, or by different tasks, and merged."""
    embedded = write_shards(store, normal_vectors(200, seed=0))
    record = dn2.fit(embedded, store, bank="parts", config=KINDS[kind])
    batch = write_shards(store, normal_vectors(40, seed=1), name="batch", shard_rows=15, rejected=[3])
    small = ScoreConfig(bank_memory_gb=80 * (2 * 16 + 300) / 2**30)
    loads = bank_loads(store, record, small)
    assert loads == ((0, 1), (1, 2), (2, 3))
    assert bank_loads(store, record, ScoreConfig()) == ((0, 3),)

    tables = []
    for name, config, tasks in (("whole", ScoreConfig(), ()), ("alone", small, ()), ("tasks", small, loads[1:])):
        folder = f"{plan_scoring(batch, store, record, config).folder}-{name}"
        for load in tasks:
            for number, shard in enumerate(batch.shards):
                how = {"bank": record, "folder": folder, "number": number, "config": config}
                search_shard(shard, store, load=load, **how)
        assert len(store.names(folder)) == len(tasks)
        for number, shard in enumerate(batch.shards):
            score_shard(shard, store, bank=record, folder=folder, number=number, config=config)
        tables.append([read_table(store, f"{folder}/part-{n:05d}.parquet", SCORES) for n in range(3)])
        assert not [
            name for one in store.names(folder) if one.startswith("found") for name in store.names(f"{folder}/{one}")
        ]
    for other in tables[1:]:
        for mine, theirs in zip(tables[0], other, strict=True):
            assert mine.equals(theirs)


def test_segment_that_does_not_fit_is_refused_with_numbers(store: Store):
    record = dn2.fit(write_shards(store, normal_vectors(200, seed=0)), store, bank="parts", config=KINDS["segments"])

    with pytest.raises(
        BankError, match=r"a segment of 66 rows of length 16 needs .* GiB, expected at most bank_memory_gb"
    ):
        bank_loads(store, record, ScoreConfig(bank_memory_gb=1e-6))


def test_settings_of_the_index_are_part_of_the_version(store: Store):
    embedded = write_shards(store, normal_vectors(200, seed=0))
    versions = {dn2.fit(embedded, store, bank="parts", config=config).version for config in KINDS.values()}

    assert len(versions) == len(KINDS)


def test_copies_in_a_bank_are_told(store: Store):
    contents = [f"picture{row % 45}" for row in range(50)]
    record = dn2.fit(write_shards(store, normal_vectors(50, seed=0), contents=contents), store, bank="parts")

    assert record.copies == 5
    assert replace(record, copies=0) != record
