"""Are odd sets of images found, whatever their size? `make bench-groups`, on Fashion-MNIST.

Embeddings are scaled to length 1, k = 2, banks and reports are made by `dn2.fit_groups` and `dn2.score_groups`.

**Kinds.** A normal group has one image of each of the first M classes, in random order; an anomalous one has M images
of classes drawn with replacement from these, not all distinct. 2,000 normal groups of training images are the bank, 500
normal and 500 anomalous groups of test images are scored. `mean_M3`, `concat_M3`, `ours_M3` (histogram, with its
defaults) and so on are areas under the ROC curve in percent, means of 5 seeds. The defaults were chosen with groups of
training images alone, and with classes 9, 8, 7, ... as the first ones.

**Sizes.** Of the 7,000 images of each class, training and test images mixed, 6,000 make the bank: 300 groups of 3, 90
of 10, 40 of 30 and 10 of 300, no image twice. The other 1,000 are cut into groups of 3, of 10, of 30 and of 300.
`far_size_3` and so on are shares of these normal groups that are flagged at a target of 5 %, over all classes, with
pooling mean (`ours_far_...`: histogram); `..._low` and `..._high` bound what 95 % of perfectly calibrated thresholds
would show (a beta-binomial law for each class).

**One large group.** `group_1m_minutes`, `group_1m_peak_gb`: a group of 1,000,000 images in 500 shards is scored, in a
process of its own; `group_1m_memory_ratio` is its peak over that of a group of 100,000 images in 50 shards.

A Parquet file holds a row for every scored group; the areas and shares are computed from it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import dn2
from benchmarks.embedded import open_embedded, write_embedded
from benchmarks.fashion import FOLDER, Embeddings, load
from benchmarks.results import write_results
from dn2.config import GroupFitConfig, GroupScoreConfig
from dn2.evaluation.metrics import roc_auc
from dn2.groups.bank import GroupBank
from dn2.layout import GROUPS_FILE
from dn2.records import GroupBankVersion, GroupReport
from dn2.store.schemas import GROUPS
from dn2.store.tables import read_table

KINDS, SEEDS = (3, 5, 10), 5
NAMES = {"mean": "mean", "concat": "concat", "histogram": "ours"}
SIZES = {3: 300, 10: 90, 30: 40, 300: 10}  # groups of each size in a bank
TARGET = 0.05
SHARD, LARGE, SMALL = 2_000, 500, 50  # images of a shard, shards
FILE = FOLDER / "groups.parquet"
COLUMNS = pa.schema(
    [
        ("protocol", pa.string()),  # kinds or sizes
        ("case", pa.int32()),  # M, or the size
        ("seed", pa.int32()),  # or the class
        ("pooling", pa.string()),
        ("anomaly", pa.bool_()),  # the truth
        ("score", pa.float32()),
        ("is_anomaly", pa.bool_()),
        ("calibration", pa.int32()),  # scores that the threshold for this size rests on
    ]
)


def main() -> None:
    """Measure, print and keep the figures."""
    if sys.argv[1:2] == ["--large"]:
        return large(Path(sys.argv[2]), sys.argv[3])
    data = load()
    with pq.ParquetWriter(FILE, COLUMNS) as file:
        for columns in (*kinds(data), *sizes(data)):
            file.write_table(pa.table(columns, schema=COLUMNS))
    figures = figures_of_file()
    write_results("groups", figures | measure_large(data), {"seeds": SEEDS, "target": TARGET, "k": 2})


def kinds(data: Embeddings) -> Iterator[dict[str, Any]]:
    """Yield the scored groups of each M, seed and pooling."""
    for count in KINDS:
        for seed in range(SEEDS):
            random = np.random.default_rng([count, seed])
            train = normal_groups(random, data.train_labels, count, 2000)
            test = np.concatenate(
                [
                    normal_groups(random, data.test_labels, count, 500),
                    odd_groups(random, data.test_labels, count, 500),
                ]
            )
            with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
                store = dn2.Store.open(folder)
                bank = embedded_groups(store, "train", data.train, data.train_labels, list(train))
                batch = embedded_groups(store, "test", data.test, data.test_labels, list(test))
                for pooling in NAMES:
                    config = GroupFitConfig(pooling=pooling, metric="cosine")
                    record = dn2.fit_groups(bank, store, bank=pooling, config=config)
                    report = dn2.score_groups(batch, store, bank=record)
                    rows = scored(store, report, record)
                    anomaly = [int(name) >= 500 for name in rows["group_id"]]
                    yield filled(rows, "kinds", count, seed, pooling, anomaly)
            print(f"kinds {count} {seed}", flush=True)


def normal_groups(random: np.random.Generator, labels: np.ndarray, count: int, groups: int) -> np.ndarray:
    """Return (groups, count) rows: one image of each of the first classes, in random order."""
    drawn = [random.choice(np.flatnonzero(labels == label), groups) for label in range(count)]
    return random.permuted(np.stack(drawn, axis=1), axis=1)


def odd_groups(random: np.random.Generator, labels: np.ndarray, count: int, groups: int) -> np.ndarray:
    """Return (groups, count) rows: classes drawn with replacement, not all distinct, one image each."""
    found = []
    while len(found) < groups:
        classes = random.integers(0, count, count)
        if len(np.unique(classes)) < count:
            found.append([random.choice(np.flatnonzero(labels == label)) for label in classes])
    return np.array(found)


def sizes(data: Embeddings) -> Iterator[dict[str, Any]]:
    """Yield the scored groups of each class, size and pooling."""
    for label in range(10):
        random = np.random.default_rng(label)
        vectors = np.concatenate([data.train[data.train_labels == label], data.test[data.test_labels == label]])
        labels = np.full(len(vectors), label)
        train, test = np.split(random.permutation(len(vectors)), [6_000])
        cuts = np.repeat(list(SIZES), list(SIZES.values())).cumsum()
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            store = dn2.Store.open(folder)
            bank = embedded_groups(store, "train", vectors, labels, np.split(train, cuts[:-1]))
            for pooling in ("mean", "histogram"):
                config = GroupFitConfig(pooling=pooling, metric="cosine", false_alarm_rate=TARGET)
                record = dn2.fit_groups(bank, store, bank=pooling, config=config)
                for size in SIZES:
                    groups = [test[low : low + size] for low in range(0, len(test) - size + 1, size)]
                    batch = embedded_groups(store, f"test{size}", vectors, labels, groups)
                    rows = scored(store, dn2.score_groups(batch, store, bank=record), record)
                    yield filled(rows, "sizes", size, label, pooling, [False] * len(groups))
        print(f"sizes {label}", flush=True)


def embedded_groups(
    store: dn2.Store, name: str, vectors: np.ndarray, labels: np.ndarray, groups: list[np.ndarray]
) -> dn2.Embedded:
    """Return the images of some groups as an embedded dataset; a group is called by its number."""
    rows = np.concatenate(groups)
    names = [str(number) for number, group in enumerate(groups) for _ in group]
    return write_embedded(store, name, vectors[rows], labels[rows], names)


def scored(store: dn2.Store, report: GroupReport, bank: GroupBankVersion) -> dict[str, np.ndarray]:
    """Return the columns of a report's groups, and how many scores each one's threshold rests on."""
    table = read_table(store, f"{report.uri.removeprefix(f'{store.uri}/')}/{GROUPS_FILE}", GROUPS)
    calibration = GroupBank.open(store, bank).sizes.fewest(table["members"].to_numpy())
    return {
        **{name: table[name].to_numpy(zero_copy_only=False) for name in ("group_id", "score", "is_anomaly")},
        "calibration": np.full(table.num_rows, calibration),
    }


def filled(
    rows: dict[str, Any], protocol: str, case: int, seed: int, pooling: str, anomaly: list[bool]
) -> dict[str, Any]:
    """Return the columns of the Parquet file."""
    count = len(anomaly)
    return {
        "protocol": [protocol] * count,
        "case": [case] * count,
        "seed": [seed] * count,
        "pooling": [pooling] * count,
        "anomaly": anomaly,
        **{name: rows[name] for name in ("score", "is_anomaly", "calibration")},
    }


def figures_of_file() -> dict[str, float]:
    """Return areas and shares."""
    table = pq.read_table(FILE)
    rows = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    figures: dict[str, float] = {}
    for count in KINDS:
        for pooling, name in NAMES.items():
            mine = (rows["protocol"] == "kinds") & (rows["case"] == count) & (rows["pooling"] == pooling)
            by_seed = [mine & (rows["seed"] == seed) for seed in range(SEEDS)]
            areas = [roc_auc(rows["score"][one], rows["anomaly"][one]) for one in by_seed]
            figures[f"{name}_M{count}"] = 100 * float(np.mean(areas))
    for pooling, prefix in (("mean", "far_size"), ("histogram", "ours_far_size")):
        for size in SIZES:
            mine = (rows["protocol"] == "sizes") & (rows["case"] == size) & (rows["pooling"] == pooling)
            figures[f"{prefix}_{size}"] = float(rows["is_anomaly"][mine].mean())
            if pooling == "mean":
                low, high = band(rows["seed"][mine], rows["calibration"][mine])
                figures |= {f"far_size_{size}_low": low, f"far_size_{size}_high": high}
    return figures


def band(classes: np.ndarray, calibration: np.ndarray) -> tuple[float, float]:
    """Return between which false-alarm rates 95 % of perfectly calibrated thresholds lie.

    A threshold that leaves r of n calibration scores above it has a rate that follows the beta law (r, n + 1 - r).
    """
    random = np.random.default_rng(0)
    flagged = np.zeros(100_000)
    for label in np.unique(classes):
        groups, scores = int((classes == label).sum()), int(calibration[classes == label][0])
        allowed = max(1, int((scores + 1) * TARGET + 1e-9))
        flagged += random.binomial(groups, random.beta(allowed, scores + 1 - allowed, len(flagged)))
    low, high = np.quantile(flagged / len(classes), (0.025, 0.975))
    return float(low), float(high)


def measure_large(data: Embeddings) -> dict[str, float]:
    """Return time and memory of scoring one group of a million images."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        store = dn2.Store.open(folder)
        groups = [random.choice(len(data.train), 30, replace=False) for _ in range(50)]
        bank = embedded_groups(store, "train", data.train, data.train_labels, groups)
        dn2.fit_groups(bank, store, bank="large", config=GroupFitConfig(metric="cosine"))
        peaks = {}
        for name, shards in (("small", SMALL), ("large", LARGE)):
            for number in range(shards):
                rows = random.integers(0, len(data.train), SHARD)
                part = f"{name}-{number:04d}"
                write_embedded(store, part, data.train[rows], data.train_labels[rows], ["all"] * SHARD)
            command = [sys.executable, "-m", "benchmarks.groups", "--large", folder, name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  (our own)
            peaks[name] = json.loads(done.stdout)
    return {
        "group_1m_minutes": peaks["large"]["minutes"],
        "group_1m_peak_gb": peaks["large"]["peak_gb"],
        "group_1m_memory_ratio": peaks["large"]["peak_gb"] / peaks["small"]["peak_gb"],
    }


def large(folder: Path, name: str) -> None:
    """Score the one group of a dataset in a folder, and print what that took."""
    embedded = open_embedded(dn2.Store.open(folder), name)
    began = time.perf_counter()
    report = dn2.score_groups(embedded, folder, bank="large", config=GroupScoreConfig())
    minutes = (time.perf_counter() - began) / 60
    if (report.images, report.scored) != (SHARD * len(embedded.shards), 1):
        raise SystemExit(f"{folder}: got {report.images} images in {report.scored} groups, expected one group of all")
    print(json.dumps({"minutes": minutes, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


if __name__ == "__main__":
    main()
