"""What has moved is told from what has more anomalies, by the whole way from embeddings to the report."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import dn2
from dn2 import layout
from dn2.config import FitConfig, ScoreConfig, ThresholdConfig
from dn2.records import Drift
from dn2.store.schemas import REFERENCE
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.scoring.synthetic import EMBEDDER, write_shards

DIM = 64
LOW = ScoreConfig(threshold=ThresholdConfig(value=1.0))  # all lie above it


def normal(count: int, seed: int) -> np.ndarray:
    """Three kinds of normal images."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3, DIM))
    return centres[random.integers(0, 3, count)] + random.normal(size=(count, DIM))


def foreign(count: int, seed: int) -> np.ndarray:
    """One other kind."""
    return np.random.default_rng(98).normal(size=DIM) + np.random.default_rng(seed).normal(size=(count, DIM))


def scattered(count: int, seed: int) -> np.ndarray:
    """Anomalies each of which is odd in a way of its own."""
    return normal(count, seed) + 3 * np.random.default_rng(seed + 1).normal(size=(count, DIM))


def one_kind(count: int, seed: int) -> np.ndarray:
    """Images of one of the normal kinds: the shares of the kinds have changed, and no image is odd."""
    centre = np.random.default_rng(99).normal(size=(3, DIM))[0]
    return centre + np.random.default_rng(seed).normal(size=(count, DIM))


def scored(store: Store, *parts: np.ndarray, fit: dict[str, Any] | None = None, name: str = "batch", **how: Any) -> Any:
    """Return the report of a batch against a bank of 600 images, or of what is given as `bank`."""
    bank = how.pop("bank", normal(600, 0))
    trained = write_shards(store, bank.astype(np.float16), name=f"normal-{len(bank)}", **how)
    version = dn2.fit(trained, store, bank="parts", config=FitConfig(**(fit or {})))
    batch = np.concatenate(parts).astype(np.float16)
    return dn2.score(write_shards(store, batch, name=name, **how), store, bank=version)


def verdict(report: dn2.Report) -> str:
    assert report.drift is not None
    return report.drift.verdict


CASES = {
    "steady": [normal(200, 1)],
    "steady with some anomalies": [normal(190, 1), scattered(10, 2)],
    "anomalies": [normal(160, 1), scattered(40, 2)],
    "kind": [normal(140, 1), foreign(60, 2)],
    "moved": [normal(200, 1) + 0.6 * np.ones(DIM)],
    "moved, only the shares of kinds": [normal(80, 1), one_kind(120, 2)],
    "moved, all of it is foreign": [foreign(200, 2)],
}


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("case", CASES)
def test_each_case_has_its_verdict(store: Store, case: str, metric: str):
    report = scored(store, *CASES[case], fit={"metric": metric})
    expected = case.partition(",")[0].partition(" ")[0]
    allowed = {"steady", "anomalies"} if case == "steady with some anomalies" else {expected}
    assert verdict(report) in allowed
    assert report.drift is not None
    assert report.drift.drifted == (expected in ("kind", "moved"))


def test_held_out_calibration_counts_what_was_held_out(store: Store):
    report = scored(store, normal(140, 1), foreign(60, 2), fit={"calibration": "held-out"})
    assert verdict(report) == "kind"
    table = read_table(store, layout.bank_reference("parts", report.version), REFERENCE)
    roles = table["role"].to_pylist()
    assert 100 <= roles.count("image") <= 120  # a fifth of 600, but for what looks like a copy


@pytest.mark.parametrize("index", ["ivf", "centroids"])
def test_other_indexes_are_compared_with_too(store: Store, index: str):
    fit = {"index": index, "calibration": "held-out", **({"centroids": 20} if index == "centroids" else {"nlist": 8})}
    bank = normal(2000, 0)
    assert verdict(scored(store, normal(200, 1), fit=fit, bank=bank)) == "steady"
    assert verdict(scored(store, normal(140, 1), foreign(60, 2), fit=fit, bank=bank, name="other")) == "kind"


def test_of_tiles_the_worst_ones_make_a_kind(store: Store):
    tiled = EMBEDDER.replace("synthetic-", "synthetic-tiles-1x2-")
    random = np.random.default_rng(5)

    def tiles(count: int, seed: int, odd: int = 0) -> np.ndarray:
        found = np.concatenate([normal(count, seed), normal(count, seed + 1)], axis=1)
        found[:odd, DIM:] = foreign(odd, seed + 2)
        return found[random.permutation(count)]

    report = scored(store, tiles(200, 1), bank=tiles(600, 7), embedder=tiled)
    assert verdict(report) == "steady"
    assert verdict(scored(store, tiles(200, 1, 60), bank=tiles(600, 7), embedder=tiled, name="odd")) == "kind"


def test_a_burst_counts_once(store: Store):
    """Sixty shots of one odd part are one odd part; the same in copies."""
    burst = foreign(1, 2) + 0.01 * np.random.default_rng(3).normal(size=(60, DIM))
    report = scored(store, normal(140, 1), burst)
    assert verdict(report) == "steady"
    assert report.drift is not None
    assert report.drift.units <= 141


def test_too_small_a_batch_or_bank_tells_nothing(store: Store):
    assert scored(store, normal(19, 1)).drift is None
    assert scored(store, foreign(60, 1), bank=normal(15, 0), name="other").drift is None


def test_a_small_bank_has_no_kinds_but_still_tells(store: Store):
    report = scored(store, normal(140, 1), foreign(60, 2), bank=normal(40, 0))
    assert verdict(report) == "kind"
    assert report.drift is not None
    assert report.drift.psi is None


def test_shards_do_not_matter(store: Store, tmp_path: Any):
    batch = [normal(140, 1), foreign(60, 2)]
    one, other = scored(store, *batch), scored(Store.open(tmp_path / "other"), *batch, shard_rows=37)
    assert one.drift == other.drift


def test_threshold_does_not_matter(store: Store):
    first = scored(store, normal(140, 1), foreign(60, 2))
    again = dn2.rethreshold(first, config=LOW)
    assert again.uri != first.uri
    assert again.drift == first.drift


def test_the_reference_is_made_once(store: Store):
    report = scored(store, normal(200, 1))
    path = store.local(layout.bank_reference("parts", report.version))
    assert path is not None
    before = path.stat().st_mtime_ns
    scored(store, normal(200, 2), name="other")
    assert path.stat().st_mtime_ns == before


def test_embeddings_that_are_gone_leave_drift_untold(store: Store):
    first = scored(store, normal(200, 1))
    folder = store.local(layout.shards(EMBEDDER, "batch"))
    assert folder is not None
    for path in folder.iterdir():
        path.unlink()
    again = dn2.rethreshold(first, config=LOW)
    assert again.drift is None
    assert again.anomalous == 200


def test_the_summary_holds_it_and_an_older_one_is_read_without(store: Store):
    report = scored(store, normal(140, 1), foreign(60, 2))
    path = f"{report.uri.removeprefix(f'{store.uri}/')}/summary.json"
    summary = json.loads(store.read(path))
    assert summary["drift"]["verdict"] == "kind"
    assert 0.25 <= summary["drift"]["kind"] <= 0.35
    del summary["drift"]
    store.write(path, json.dumps(summary).encode())
    embedded = write_shards(store, np.concatenate([normal(140, 1), foreign(60, 2)]).astype(np.float16), name="batch")
    old = dn2.score(embedded, store, bank="parts")
    assert (old.uri, old.drift, old.anomalous) == (report.uri, None, report.anomalous)


@pytest.mark.parametrize(("units", "told"), [(200, False), (170, False), (50, True)])
def test_words_say_that_a_batch_has_bursts(units: int, told: bool):
    words = Drift("steady", units, 0.05, 0.0, 0.05, images=200).words
    assert (f"200 images that were looked at are {units} units" in words) == told


def test_batch_of_bursts_is_told(store: Store):
    shots = np.repeat(normal(40, 1), 5, axis=0)
    report = scored(store, shots + np.random.default_rng(0).normal(0, 0.1, shots.shape))
    assert report.drift is not None
    assert (report.drift.images, report.drift.units) == (200, pytest.approx(40, abs=3))


@pytest.mark.parametrize("verdict", ["steady", "anomalies", "kind", "moved"])
@pytest.mark.parametrize("psi", [None, 0.2])
def test_words_fit_two_lines(verdict: Any, psi: float | None):
    words = Drift(verdict, 200, 1.0, 0.31, 0.25, psi, psi).words
    assert 20 < len(words) < 160
    assert ("bank" in words) == (verdict in ("kind", "moved"))
