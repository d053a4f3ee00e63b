"""Is drift told from anomalies? On Fashion-MNIST; constants were chosen on classes 0 to 4, reported are 5 to 9.

Of each class two banks are made by `dn2.fit`, of 2,000 training images drawn at random. Batches of 200 images are drawn
from the other training images of the class, and judged as `dn2.score` judges them, without pages and pictures:

* `drift_false_alarms`: share called drifted, of 200 batches of the class alone, 20 for each bank that share no image;
* `drift_power`: the same, of 180 batches of which 30 % come from one other class, twice each of the nine;
* `drift_on_anomalies`: the same, of 200 batches with 5 % anomalies, drawn evenly from all other classes.

Beside them `drift_power_20` (20 % of one other class) and `drift_on_anomalies_20` (20 % anomalies of all classes), of
half as many batches.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import dn2
from benchmarks.embedded import write_embedded
from benchmarks.fashion import FOLDER, Embeddings, load
from dn2.neighbors.bank import Bank, prepared
from dn2.scoring.calibration import Calibration
from dn2.scoring.drawn import Sample
from dn2.scoring.drift import drift_of
from dn2.scoring.reference import Reference, reference_of
from dn2.scoring.scores import mean_distance
from dn2.scoring.units import one_of_each, units_of

BANKS, IMAGES, BATCH = 2, 2_000, 200
STEADY, ANOMALOUS, KINDS = 20, 20, 2  # batches of each bank; of each other class
REPORTED = range(5, 10)
MEMORY_GB, MEMORY_MB = 8.0, 512
NAMES = {
    ("steady", 0): "drift_false_alarms",
    ("kind", 60): "drift_power",
    ("anomalies", 10): "drift_on_anomalies",
    ("kind", 40): "drift_power_20",
    ("anomalies", 40): "drift_on_anomalies_20",
}


def measure(folder: Path, classes: tuple[int, ...] = tuple(REPORTED)) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures, and by how many batches of each class they are missed; keep every batch in a Parquet file.

    Args:
        folder: where to.
        classes: the normal ones, one after the other.
    """
    load()  # makes the embeddings, if they are not there yet
    todo = [(label, seed) for label in classes for seed in range(BANKS)]
    with ProcessPoolExecutor(2, get_context("spawn"), partial(torch.set_num_threads, 1)) as pool:
        rows = [row for found in pool.map(trials, todo) for row in found]
    path = folder / "drift.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return figures_of(path)


def figures_of(path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures of a file of batches, and the batches that count against them, by their classes."""
    rows = pq.read_table(path).to_pylist()
    figures: dict[str, float] = {}
    missed: dict[str, dict[str, int]] = {}
    for (what, odd), name in NAMES.items():
        mine = [row for row in rows if (row["what"], row["odd"]) == (what, odd)]
        figures[name] = sum(row["drifted"] for row in mine) / len(mine)
        for row in mine:
            if row["drifted"] != (what == "kind"):
                pair = f"{row['normal']}" if row["other"] is None else f"{row['normal']}+{row['other']}"
                told = missed.setdefault(name, {})
                told[pair] = told.get(pair, 0) + 1
    return figures, {"batches": len(rows), "images": BATCH, "bank": IMAGES, "against": missed}


@cache
def loaded() -> Embeddings:
    """Return the embeddings, read once by each process."""
    return load()


def trials(bank: tuple[int, int]) -> list[dict[str, Any]]:
    """Return a row for each batch that is judged by the bank of a class and a seed."""
    label, seed = bank
    data, random = loaded(), np.random.default_rng([label, seed])
    mine = random.permutation(np.flatnonzero(data.train_labels == label))
    others = np.flatnonzero(data.train_labels != label)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        store = dn2.Store.open(folder)
        rows = np.sort(mine[:IMAGES])
        embedded = write_embedded(store, "normal", data.train[rows], data.train_labels[rows])
        version = dn2.fit(embedded, store, bank="parts")
        opened = Bank.open(store, version, memory_gb=MEMORY_GB)
        calibration = Calibration.read(store, "parts", version.version)
        reference = reference_of(store, version, calibration)
        return [
            {
                "normal": label,
                "seed": seed,
                "what": what,
                "odd": odd,
                "other": other,
                **judged(data, drawn, opened, calibration, reference),
            }
            for what, odd, other, drawn in batches(random, mine[IMAGES:], others, data.train_labels)
        ]


def batches(
    random: np.random.Generator, pool: np.ndarray, others: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[str, int, int | None, np.ndarray]]:
    """Yield what each batch is, how many of its images are not normal, of which class, and its rows."""
    for number in range(STEADY):
        yield "steady", 0, None, pool[number * BATCH : (number + 1) * BATCH]
    for odd, count in ((10, ANOMALOUS), (40, ANOMALOUS // 2)):
        for _ in range(count):
            normal = random.choice(pool, BATCH - odd, replace=False)
            yield "anomalies", odd, None, np.concatenate([normal, random.choice(others, odd, replace=False)])
    for odd, count in ((60, KINDS), (40, KINDS // 2)):
        for other in np.unique(labels[others]).tolist():
            for _ in range(count):
                kind = random.choice(np.flatnonzero(labels == other), odd, replace=False)
                yield "kind", odd, other, np.concatenate([random.choice(pool, BATCH - odd, replace=False), kind])


def judged(
    data: Embeddings, rows: np.ndarray, bank: Bank, calibration: Calibration, reference: Reference
) -> dict[str, Any]:
    """Return what is said of a batch of some training images."""
    vectors = prepared(data.train[rows], bank.search.metric)
    alone = np.arange(len(rows))  # no image is in the bank
    found = bank.nearest(vectors, np.stack([alone, alone]), memory_mb=MEMORY_MB)
    scores = mean_distance(bank.complete(found).distances)
    one = one_of_each(units_of([vectors], alone, np.full(len(rows), -1), memory_mb=MEMORY_MB))
    drift = drift_of(
        Sample(vectors[one], scores[one], calibration.p_values(scores)[one], len(scores)), calibration, reference
    )
    if drift is None:
        raise AssertionError("too few images: a bug of the benchmark")
    return {**asdict(drift), "drifted": drift.drifted}


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for key, value in measure(where)[0].items():
        print(f"{key}: {value:.4g}")
