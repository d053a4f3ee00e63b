"""Scores relative to the neighbours' own spread, against a textbook's arithmetic, whatever the bank looks like."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import dn2
from dn2.config import FitConfig, ScoreConfig
from dn2.errors import NotFoundError, SchemaError
from dn2.neighbors.bank import Bank, prepared
from dn2.neighbors.choice import needed_gb
from dn2.neighbors.products import Neighbors
from dn2.neighbors.segments import keys
from dn2.neighbors.versions import open_bank, read_version, use_version
from dn2.records import Embedded
from dn2.scoring.scale import relative
from dn2.store.schemas import CALIBRATION, SCALES, SCORES
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.neighbors.oracle import brute_force, rows_of, vectors_of
from tests.dn2.scoring.synthetic import calibration, normal_vectors, write_shards

LOCAL = FitConfig(scale="local", index="exact", false_alarm_rate=0.1, units="images")
KINDS = {
    "exact": LOCAL,
    "cosine": LOCAL.model_copy(update={"metric": "cosine"}),
    "every-cell": LOCAL.model_copy(update={"index": "ivf", "nlist": 6, "nprobe": 6}),
    "segments": LOCAL.model_copy(update={"segment_rows": 50}),
    "segments-of-cells": LOCAL.model_copy(update={"index": "ivf", "nlist": 4, "nprobe": 4, "segment_rows": 50}),
    "held-out": LOCAL.model_copy(update={"calibration": "held-out"}),
}


def modes(count: int, *, seed: int, dim: int = 16) -> np.ndarray:
    """Return (count, dim) float16 of three kinds that are unequally spread: most of one, a tenth of each other."""
    random = np.random.default_rng(seed)
    kind = random.choice(3, count, p=[0.8, 0.1, 0.1])
    centers, spread = np.eye(3, dim) * 8, np.array([0.3, 1.5, 0.8])
    return (centers[kind] + spread[kind, None] * random.normal(size=(count, dim))).astype(np.float16)


def row_keys(bank: Bank, *columns: str) -> np.ndarray:
    return np.stack([keys(rows_of(bank)[column].to_pylist()) for column in columns])


def scales_by_hand(vectors: np.ndarray, row_keys: np.ndarray, living: np.ndarray | None = None) -> np.ndarray:
    """Return (N,) float64 as the docs have it; nan for rows that are gone."""
    left = np.arange(len(vectors)) if living is None else np.flatnonzero(living)
    rows, distances = brute_force(vectors[left], vectors[left], 10, row_keys[:, left], row_keys[:, left])
    near = [set(mine.tolist()) for mine in rows]
    friends = [[other for other in mine if row in near[other]] for row, mine in enumerate(near)]
    friends = [mine if len(mine) > 1 else sorted(near[row]) for row, mine in enumerate(friends)]
    spread = kind = distances[:, :5].astype(np.float64).mean(1)
    for _ in range(32):
        kind = np.array([np.mean([kind[row], *kind[mine]]) for row, mine in enumerate(friends)])
    found = np.full(len(vectors), np.nan)
    found[left] = np.maximum(np.sqrt(spread * kind), spread.mean() / 100)
    return found


def scores_by_hand(bank: Bank, scales: np.ndarray, queries: np.ndarray, own: np.ndarray, *columns: str) -> np.ndarray:
    """Return (Q,) float64 scores among the rows that have a scale."""
    left = np.flatnonzero(~np.isnan(scales))
    mine = row_keys(bank, *columns)[:, left]
    rows, distances = brute_force(queries, vectors_of(bank)[left], bank.search.k, own, mine)
    return distances.mean(1) / scales[left][rows].mean(1)


def batch_scores(store: Store, batch: Embedded, record: dn2.BankVersion, **settings: float) -> np.ndarray:
    report = dn2.score(batch, store, bank=record, config=ScoreConfig(**settings))
    (path,) = folders(store, "scores", report.bank)
    return read_table(store, f"{path}/part-00000.parquet", SCORES)["score"].to_numpy()


def folders(store: Store, *path: str) -> list[str]:
    return [f"{'/'.join(path)}/{name}" for name in store.names("/".join(path))]


def image_ids(name: str, count: int) -> list[str]:
    return [hashlib.sha256(f"{name}-{row}".encode()).hexdigest()[:32] for row in range(count)]


def test_distances_are_divided_by_the_mean_scale_of_the_neighbours():
    found = Neighbors(np.array([[0, 2], [1, 0]]), np.array([[2, 4], [8, 16]], np.float32))
    np.testing.assert_array_equal(relative(found, np.array([1, 7, 3], np.float32)), [[1, 2], [2, 4]])


def test_distances_stay_as_they_are_without_scales():
    found = Neighbors(np.array([[0, 2]]), np.array([[2, 4]], np.float32))
    assert relative(found, None) is found.distances


@pytest.mark.parametrize("kind", KINDS)
def test_scales_and_scores_are_those_of_the_textbook(store: Store, kind: str):
    """With copies in the bank, which are none of each other's neighbours, and copies of its images in the batch."""
    vectors, contents = modes(220, seed=0), [f"image {row}" for row in range(220)]
    vectors[200:210] = vectors[3]
    contents[200:210] = [contents[3]] * 10
    record = dn2.fit(write_shards(store, vectors, contents=contents), store, bank="parts", config=KINDS[kind])
    assert (record.scale, record.measure) == ("local", f"{record.metric} over the neighbours' own spread")
    bank = Bank.open(store, record, memory_gb=1)
    own = row_keys(bank, "image_id", "content_sha256")
    scales = scales_by_hand(vectors_of(bank), own)
    assert bank.scales is not None
    np.testing.assert_allclose(bank.scales, scales, rtol=1e-6)

    ids = rows_of(bank)["image_id"].to_pylist()
    if kind != "held-out":
        expected = scores_by_hand(bank, scales, vectors_of(bank), own, "image_id", "content_sha256")
        assert calibration(store, record) == pytest.approx(dict(zip(ids, expected, strict=True)), rel=1e-5)
    else:
        (held,) = bank.held
        of = np.stack([held.keys(("image_id", "content_sha256"))[row] for row in (0, 1)])
        expected = scores_by_hand(bank, scales, held.vectors, of, "image_id", "content_sha256")
        names = held.table["image_id"].to_pylist()
        assert calibration(store, record) == pytest.approx(dict(zip(names, expected, strict=True)), rel=1e-5)

    batch = np.concatenate([modes(40, seed=1), vectors[:5]])
    copies = [f"new {row}" for row in range(40)] + contents[:5]
    new = write_shards(store, batch, name="new", contents=copies)
    found = batch_scores(store, new, record)
    of = np.stack([keys(image_ids("new", 45)), keys(hashlib.sha256(one.encode()).hexdigest() for one in copies)])
    queries = prepared(batch, record.metric)
    expected = scores_by_hand(bank, scales, queries, of, "image_id", "content_sha256")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["exact", "every-cell", "segments"])
def test_tile_has_a_scale_of_its_own_and_the_worst_tile_counts(store: Store, kind: str):
    """No tile of the same image makes it."""
    tiled = "synthetic-tiles-1x2-0123456789ab"
    vectors = np.concatenate([modes(120, seed=0), modes(120, seed=1)], axis=1)
    vectors[:, 16:] += (vectors[:, :16] - vectors[:, 16:]) * (np.arange(120)[:, None] % 3 == 0)
    record = dn2.fit(write_shards(store, vectors, embedder=tiled), store, bank="parts", config=KINDS[kind])
    bank = Bank.open(store, record, memory_gb=1)
    assert (record.tiles, bank.count) == (2, 240)
    scales = scales_by_hand(vectors_of(bank), row_keys(bank, "image_id", "content_sha256"))
    assert bank.scales is not None
    np.testing.assert_allclose(bank.scales, scales, rtol=1e-6)

    batch = np.concatenate([modes(20, seed=2), modes(20, seed=3)], axis=1)
    found = batch_scores(store, write_shards(store, batch, name="new", embedder=tiled), record)
    own = np.repeat([keys(image_ids("new", 20))] * 2, 2, axis=1)
    expected = scores_by_hand(bank, scales, batch.reshape(40, 16), own, "image_id", "content_sha256")
    np.testing.assert_allclose(found, expected.reshape(20, 2).max(axis=1), rtol=1e-5)


def test_scores_do_not_depend_on_shards_batches_or_threads(tmp_path: Path):
    found, threads = [], torch.get_num_threads()
    try:
        for number, (shard_rows, memory, segment) in enumerate([(2000, 512, None), (37, 16, None), (150, 64, 60)]):
            torch.set_num_threads(1 + number % 2)
            store = Store.open(tmp_path / str(number))
            config = LOCAL.model_copy(update={"search_memory_mb": memory, "segment_rows": segment})
            record = dn2.fit(
                write_shards(store, modes(200, seed=0), shard_rows=shard_rows), store, bank="parts", config=config
            )
            new = batch_scores(
                store, write_shards(store, modes(30, seed=1), name="new"), record, search_memory_mb=memory
            )
            found.append((record.threshold, calibration(store, record), new.tolist()))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


def test_bank_larger_than_memory_has_the_same_scores(store: Store, tmp_path: Path):
    """Only one segment is open at a time, and what other tasks have found is scaled when it is merged."""
    config = LOCAL.model_copy(update={"segment_rows": 50, "bank_memory_gb": needed_gb(60, 16)})
    record = dn2.fit(write_shards(store, modes(200, seed=0)), store, bank="parts", config=config)
    small = ScoreConfig(bank_memory_gb=needed_gb(60, 16))
    assert len(Bank.open(store, record, memory_gb=small.bank_memory_gb).loads()) > 1
    found = batch_scores(
        store, write_shards(store, modes(30, seed=1), name="new"), record, bank_memory_gb=small.bank_memory_gb
    )

    whole = Store.open(tmp_path / "whole")
    plain = dn2.fit(write_shards(whole, modes(200, seed=0)), whole, bank="parts", config=LOCAL)
    expected = batch_scores(whole, write_shards(whole, modes(30, seed=1), name="new"), plain)
    np.testing.assert_array_equal(found, expected)
    assert calibration(store, record) == calibration(whole, plain)


def test_grown_bank_is_scaled_as_if_trained_so(store: Store, tmp_path: Path):
    """Rows of older segments get new scales too: what was added may be nearer to them."""
    dn2.fit(write_shards(store, modes(120, seed=0)), store, bank="parts", config=LOCAL)
    grown = dn2.add(write_shards(store, modes(40, seed=1), name="more"), store, bank="parts").bank
    gone = image_ids("normal", 120)[5:15]
    shrunk = dn2.remove(store, gone, bank="parts").bank
    assert (grown.scale, shrunk.scale) == ("local", "local")
    for record in (grown, shrunk):
        bank = Bank.open(store, record, memory_gb=1)
        ids = rows_of(bank)["image_id"].to_pylist()
        living = np.array([record is grown or name not in gone for name in ids])
        own = row_keys(bank, "image_id", "content_sha256")
        scales = scales_by_hand(vectors_of(bank), own, living)
        assert bank.scales is not None
        np.testing.assert_allclose(bank.scales, scales, rtol=1e-6)
        expected = scores_by_hand(bank, scales, vectors_of(bank)[living], own[:, living], "image_id", "content_sha256")
        names = [name for name, there in zip(ids, living, strict=True) if there]
        assert calibration(store, record) == pytest.approx(dict(zip(names, expected, strict=True)), rel=1e-5)
    table = read_table(store, f"banks/parts/versions/{shrunk.version}.scales.parquet", SCALES)
    assert [row["image_id"] for row in table.to_pylist() if row["scale"] is None] == gone

    back = dn2.add(write_shards(store, modes(120, seed=0)), store, bank="parts").bank
    assert calibration(store, back) == calibration(store, grown)


@pytest.mark.parametrize("named", [True, False])
def test_own_unit_gives_no_scale(store: Store, named: bool):
    """Bursts of five: each row's spread is that to the other bursts, whether bursts are named or found."""
    centers = modes(40, seed=0).repeat(5, axis=0).astype(np.float64)
    vectors = (centers + np.random.default_rng(1).normal(0, 0.01, centers.shape)).astype(np.float16)
    groups = [f"part {row // 5}" for row in range(200)]
    config = LOCAL.model_copy(update={"units": "images" if named else "auto"})
    embedded = write_shards(store, vectors, groups=groups if named else None)
    record = dn2.fit(embedded, store, bank="parts", config=config)
    bank = Bank.open(store, record, memory_gb=1)
    assert bank.scales is not None
    table = read_table(store, f"banks/parts/versions/{record.version}.calibration.parquet", CALIBRATION)
    units = keys(groups) if named else table["unit"].to_numpy()
    np.testing.assert_allclose(bank.scales, scales_by_hand(vectors_of(bank), units[None]), rtol=1e-6)
    assert bank.scales.min() > 100 * 16 * 0.01**2


def test_unnamed_near_copies_keep_a_hundredth_of_the_usual_scale(store: Store):
    vectors = modes(100, seed=0)
    vectors[:10] = vectors[0]
    record = dn2.fit(write_shards(store, vectors), store, bank="parts", config=LOCAL)
    bank = Bank.open(store, record, memory_gb=1)
    own = row_keys(bank, "image_id", "content_sha256")
    spread = brute_force(vectors, vectors, 5, own, own)[1].mean(1)
    assert bank.scales is not None
    assert bank.scales[:10] == pytest.approx(spread.mean() / 100)
    assert np.isfinite(list(calibration(store, record).values())).all()


def test_images_that_are_all_alike_are_not_scaled(store: Store):
    vectors = np.ones((20, 16), np.float16)
    record = dn2.fit(write_shards(store, vectors), store, bank="parts", config=LOCAL)
    assert record.threshold == 0
    new = write_shards(store, vectors[:1] + np.float16(0.5), name="new")
    np.testing.assert_array_equal(batch_scores(store, new, record), [4.0])


def test_rare_wide_kind_is_flagged_as_seldom_as_the_others(tmp_path: Path):
    """Kinds of 95 and 5 %, the rare one twice as spread out: new images of it, at 2 % promised."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(2, 32)) * 2

    def drawn(kind: np.ndarray) -> np.ndarray:
        return (centers[kind] + (1 + kind[:, None]) * random.normal(size=(len(kind), 32)) / 2).astype(np.float16)

    normal, rare = drawn(np.repeat([0, 1], [570, 30])), drawn(np.ones(300, int))
    rates = {}
    for scale in ("none", "local"):
        store = Store.open(tmp_path / scale)
        config = LOCAL.model_copy(update={"scale": scale, "false_alarm_rate": 0.02})
        record = dn2.fit(write_shards(store, normal), store, bank="parts", config=config)
        rates[scale] = dn2.score(write_shards(store, rare, name="rare"), store, bank=record).anomalous / 300
    assert rates["none"] > 0.3
    assert rates["local"] < 0.04


def test_unscaled_and_scaled_versions_share_their_segments_and_old_names_stay(store: Store):
    embedded = write_shards(store, normal_vectors(60, seed=0))
    plain = dn2.fit(embedded, store, bank="parts", config=FitConfig())
    scaled = dn2.fit(embedded, store, bank="parts", config=FitConfig(scale="local"))
    assert plain.version != scaled.version
    segments = [read_version(store, "parts", one.version, dn2.BankVersion)[1].segments for one in (plain, scaled)]
    assert segments[0] == segments[1]
    assert FitConfig(scale="none").identity() == FitConfig().identity()
    assert "scale" not in FitConfig().identity()
    assert Bank.open(store, plain, memory_gb=1).scales is None


def test_centres_have_no_scale():
    with pytest.raises(ValidationError, match="got scale local with index centroids, expected scale none or another"):
        FitConfig.model_validate({"scale": "local", "index": "centroids"})


def test_version_whose_scales_are_gone_is_not_used_again(store: Store, tmp_path: Path):
    embedded = write_shards(store, normal_vectors(30, seed=0))
    scaled = dn2.fit(embedded, store, bank="parts", config=LOCAL)
    (tmp_path / "store" / f"banks/parts/versions/{scaled.version}.scales.parquet").unlink()
    with pytest.raises(NotFoundError, match=r"scales\.parquet is missing"):
        use_version(store, "parts", scaled.version)
    with pytest.raises(NotFoundError, match=r"scales\.parquet"):
        dn2.score(write_shards(store, normal_vectors(3, seed=1), name="new"), store, bank=scaled)


def test_scales_of_other_rows_are_refused(store: Store, tmp_path: Path):
    versions = tmp_path / "store" / "banks/parts/versions"
    first, second = (
        dn2.fit(
            write_shards(store, normal_vectors(count, seed=0), name=f"of{count}"), store, bank="parts", config=LOCAL
        )
        for count in (30, 40)
    )
    shutil.copy(versions / f"{first.version}.scales.parquet", versions / f"{second.version}.scales.parquet")
    with pytest.raises(SchemaError, match="got scales of 30 rows, expected 40; train the bank again"):
        dn2.score(write_shards(store, normal_vectors(3, seed=1), name="new"), store, bank=second)


def test_report_says_what_scores_are_relative_to(store: Store):
    record = dn2.fit(write_shards(store, normal_vectors(30, seed=0)), store, bank="parts", config=LOCAL)
    report = dn2.score(write_shards(store, normal_vectors(5, seed=1), name="new"), store, bank="parts")
    page = store.read(report.html.removeprefix(f"{store.uri}/")).decode()
    assert "k = 2, l2 over the neighbours' own spread" in page.replace("&#39;", "'")
    assert "anomaly score (distance to the nearest normal images over their own spread, squared)" in page
    assert open_bank(store, "parts") == record
