"""Does cleaning find the impurities of a training set, and keep the rest? `make bench-cleaning`, on Fashion-MNIST.

A set holds all 6,000 training images of each normal class, and impurities drawn evenly from all other classes; p is
their share. Bank and threshold are made by `dn2.clean` and `dn2.fit` with their defaults (k = 2, squared L2, nothing is
told of p), and all 10,000 test images are scored. Each figure is printed for the rule auto as it is answered from the
labels (a cluster is normal if most of its images are), as `unasked_...` for the same before anybody has answered, as
`drop_...` for `clusters` drop, and as `paper_...` for the paper's rule. The rule's constants were chosen on classes 0
to 4 with seed 0 and on six sets of two or three classes drawn with seed 0. Reported are:

* classes 5 to 9 alone, impurities drawn with seeds 1 and 2, p = 5, 10, 20 %: `recovered_unimodal_05`, `_10`, `_20`;
* five sets of two classes and five of three, drawn with seeds 1 and 2 in turn, p = 5, 10 %:
  `recovered_multimodal_mean`, `_worst`;
* the same without impurities: `clean_loss_points` of the single classes, `clean_loss_multimodal_points` of the others,
  and the `_worst` of each: what cleaning costs where there was nothing to clean.

recovered = (cleaned - uncleaned) / (clean reference - uncleaned), areas under the ROC curve, as a ratio of their means
over the sets; the worst is that of one set at one p. The loss is that of classes 5 to 9, for all rules alike.

* `far_after_cleaning_00`, `_05`, `_20`: false-alarm rate on the normal test images of classes 5 to 9 at a target of
  1 %, when the share of impurities is told (with `clusters` drop); `far_estimated_00` and so on, when it is estimated;
* `clean_200k_minutes`, `clean_200k_peak_gb`: `dn2.clean` alone on 200,000 images, in a process of its own.

Two Parquet files hold a row for every training image (kept or dropped by each rule) and every test image (scores with
each bank); the figures are computed from them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import dn2
from benchmarks.embedded import open_embedded, write_embedded
from benchmarks.fashion import FOLDER, Embeddings, load
from benchmarks.results import write_results
from benchmarks.truth.cleaning import answers
from dn2 import layout
from dn2.config import CleanConfig
from dn2.evaluation.metrics import roc_auc
from dn2.neighbors.reverse import distances_to
from dn2.records import Cleaning
from dn2.store.schemas import CLEANING
from dn2.store.tables import read_table

K, ROWS = 2, 200_000
RULES = {"answered": "", "unasked": "unasked_", "drop": "drop_", "paper": "paper_"}  # and how their figures are called
BANKS = ("uncleaned", "reference", *RULES, "told")
CALIBRATED = ("drop", "answered", "told")
TRAIN, TEST = FOLDER / "cleaning-train.parquet", FOLDER / "cleaning-test.parquet"
SET = [("set", pa.string()), ("classes", pa.int32()), ("p", pa.float64())]
TRAIN_COLUMNS = pa.schema(
    [
        *SET,
        ("image", pa.int32()),  # row of the training images
        ("impurity", pa.bool_()),  # the truth
        *((f"{rule}_score", pa.float32()) for rule in BANKS[2:]),
        *((f"{rule}_kept", pa.bool_()) for rule in BANKS[2:]),
        ("estimated", pa.float64()),  # contamination of the whole set
    ]
)
TEST_COLUMNS = pa.schema(
    [
        *SET,
        ("image", pa.int32()),  # row of the test images
        ("anomaly", pa.bool_()),  # the truth
        *((name, pa.float32()) for name in BANKS),  # scores with each bank
        *((f"threshold_{name}", pa.float32()) for name in CALIBRATED),  # NaN where none was asked for
    ]
)


@dataclass(frozen=True, slots=True)
class Mixture:
    """A training set: normal classes, the share of impurities, and the seed they are drawn with."""

    classes: tuple[int, ...]
    share: float
    seed: int

    @property
    def name(self) -> str:
        """What identifies it in the files, but for the share."""
        return f"{'+'.join(map(str, self.classes))}/{self.seed}"

    @property
    def is_calibrated(self) -> bool:
        """Whether its threshold is looked at."""
        return len(self.classes) == 1 and self.share != 0.10

    def draw(self, labels: np.ndarray) -> np.ndarray:
        """Return (N,) row numbers of training images, in random order."""
        random = np.random.default_rng(self.seed)
        normal = np.flatnonzero(np.isin(labels, self.classes))
        others = [label for label in range(10) if label not in self.classes]
        count = round(self.share / (1 - self.share) * len(normal))
        shares = [count // len(others) + (place < count % len(others)) for place in range(len(others))]
        drawn = [
            random.choice(np.flatnonzero(labels == label), share, replace=False)
            for label, share in zip(others, shares, strict=True)
        ]
        return random.permutation(np.concatenate([normal, *drawn]))


def mixtures() -> Iterator[Mixture]:
    """Yield what is reported; a set without impurities is the same with every seed."""
    for label in range(5, 10):
        yield Mixture((label,), 0.0, 1)
        for seed in (1, 2):
            for share in (0.05, 0.10, 0.20):
                yield Mixture((label,), share, seed)
    drawn: set[tuple[int, ...]] = set()
    random = {seed: np.random.default_rng(seed) for seed in (1, 2)}
    for count in (2, 3):
        for number in range(5):
            seed = 1 + number % 2
            classes: tuple[int, ...] = ()
            while not classes or classes in drawn:
                classes = tuple(sorted(random[seed].choice(10, count, replace=False).tolist()))
            drawn.add(classes)
            for share in (0.0, 0.05, 0.10):
                yield Mixture(classes, share, seed)


def main() -> None:
    """Measure, print and keep the figures."""
    if sys.argv[1:2] == ["--large"]:
        return large(Path(sys.argv[2]))
    load()  # makes the embeddings, if they are not there yet, on all cores
    todo = list(mixtures())
    with (
        pq.ParquetWriter(TRAIN, TRAIN_COLUMNS) as train,
        pq.ParquetWriter(TEST, TEST_COLUMNS) as test,
        ProcessPoolExecutor(2, get_context("spawn"), _one_thread) as pool,
    ):
        for mixture, (trained, tested) in zip(todo, pool.map(measure, todo), strict=True):
            train.write_table(pa.table(trained, schema=TRAIN_COLUMNS))
            test.write_table(pa.table(tested, schema=TEST_COLUMNS))
            print(f"{mixture.name} {mixture.share:.0%}", flush=True)
    figures, by_set = figures_of_files()
    write_results("cleaning", figures | measure_large(), {"sets": by_set, "test_images": 10_000, "k": K})


def _one_thread() -> None:
    """Let a worker keep to one core: most of the work is done by one thread anyway."""
    torch.set_num_threads(1)


@cache
def loaded() -> Embeddings:
    """Return the embeddings, read once by each process."""
    return load()


def measure(mixture: Mixture) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of one training set, and those of the test images scored with it."""
    data = loaded()
    rows = mixture.draw(data.train_labels)
    vectors, labels = data.train[rows], data.train_labels[rows]
    impurity = ~np.isin(labels, mixture.classes)
    about = {"set": mixture.name, "classes": len(mixture.classes), "p": mixture.share}
    trained: dict[str, Any] = {"image": rows, "impurity": impurity}
    banks = {"uncleaned": np.ones(len(rows), bool), "reference": ~impurity}
    tested: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        store = dn2.Store.open(folder)
        embedded = write_embedded(store, "set", vectors, labels)
        configs = {
            "unasked": {},
            "drop": {"clusters": "drop"},
            "paper": {"rule": "paper"},
            "answered": {},  # with what the unasked one asks about
        }
        if mixture.is_calibrated:
            configs["told"] = {"contamination": mixture.share, "clusters": "drop"}
        for rule, settings in configs.items():
            cleaning = dn2.clean(embedded, store, config=CleanConfig(**{"rule": "auto"} | settings))
            table = _rows(store, cleaning)
            banks[rule] = table["kept"]
            trained |= {f"{rule}_score": table["score"], f"{rule}_kept": table["kept"]}
            if rule == "unasked":
                configs["answered"] = dict(
                    zip(("keep", "drop_cluster"), answers(table["cluster"], impurity), strict=True)
                )
            if rule == "answered":
                trained["estimated"] = np.full(len(rows), cleaning.contamination)
            if rule in CALIBRATED and mixture.is_calibrated:
                bank = dn2.fit(embedded, store, bank=rule, cleaning=cleaning)
                tested[f"threshold_{rule}"] = bank.threshold
    tested |= test_scores(data, vectors, banks)
    tested |= {"image": np.arange(len(data.test)), "anomaly": ~np.isin(data.test_labels, mixture.classes)}
    return filled(trained | about, TRAIN_COLUMNS), filled(tested | about, TEST_COLUMNS)


def _rows(store: dn2.Store, cleaning: Cleaning) -> dict[str, np.ndarray]:
    table = read_table(store, layout.cleaning_rows(cleaning.fingerprint), CLEANING)
    order = np.argsort(table["image_id"].to_pylist())
    return {name: table[name].to_numpy(zero_copy_only=False)[order] for name in ("score", "kept", "cluster")}


def filled(columns: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """Return one array for each column of the schema: a single value in every row, null where nothing was measured."""
    count = len(columns["image"])
    return {name: columns[name] if np.ndim(columns.get(name)) else [columns.get(name)] * count for name in schema.names}


def test_scores(data: Embeddings, vectors: np.ndarray, banks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return (10000,) float32 scores of the test images with each bank: the distances to all rows are computed once.

    Args:
        data: the test images.
        vectors: (N, D) float16, the training set.
        banks: (N,) bool each: which rows of it are in the bank.
    """
    none = [np.full((1, len(one)), -1, np.int64) for one in (data.test, vectors)]
    found: dict[str, list[np.ndarray]] = {name: [] for name in banks}
    in_bank = {name: torch.from_numpy(np.flatnonzero(rows)) for name, rows in banks.items()}
    for distances in distances_to(data.test, none[0], vectors, none[1]):
        for name, rows in in_bank.items():
            nearest = torch.from_numpy(distances)[:, rows].topk(K, dim=1, largest=False, sorted=False)
            found[name].append(nearest.values.mean(dim=1).numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def figures_of_files() -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures, and what they are made of set by set, from the two files."""
    areas: dict[tuple[int, float], list[dict[str, float]]] = {}
    by_set: dict[str, Any] = {}
    estimates = {(name, share): column["estimated"][0] for name, share, column in parts_of(TRAIN, ["estimated"])}
    for name, share, columns in parts_of(TEST, TEST_COLUMNS.names[1:]):
        anomaly, alone = columns["anomaly"].astype(bool), columns["classes"][0] == 1
        banks = [bank for bank in BANKS if not np.isnan(columns[bank].astype(float)).any()]
        area = {bank: 100 * roc_auc(columns[bank], anomaly) for bank in banks}
        if "told" in banks:
            for bank in CALIBRATED:
                area[f"far_{bank}"] = float((columns[bank] > columns[f"threshold_{bank}"])[~anomaly].mean())
        area["estimated"] = float(estimates[name, share])
        areas.setdefault((1 if alone else 2, share), []).append(area)
        by_set[f"{name} {share:.0%}"] = {key: round(value, 4) for key, value in area.items()}
    figures: dict[str, float] = {}
    for rule, prefix in RULES.items():
        for share in (0.05, 0.10, 0.20):
            figures[f"{prefix}recovered_unimodal_{share * 100:02.0f}"] = recovered(areas[1, share], rule)
        several = [*areas[2, 0.05], *areas[2, 0.10]]
        figures[f"{prefix}recovered_multimodal_mean"] = recovered(several, rule)
        figures[f"{prefix}recovered_multimodal_worst"] = min(recovered([one], rule) for one in several)
        for name, clean in (("clean_loss_points", areas[1, 0.0]), ("clean_loss_multimodal_points", areas[2, 0.0])):
            lost = [one["reference"] - one[rule] for one in clean]
            figures[f"{prefix}{name}"], figures[f"{prefix}{name}_worst"] = float(np.mean(lost)), max(lost)
    names = {"told": "far_after_cleaning", "answered": "far_estimated", "drop": "drop_far_estimated"}
    for bank, name in names.items():
        for share in (0.0, 0.05, 0.20):
            rates = [one[f"far_{bank}"] for one in areas[1, share]]
            figures[f"{name}_{share * 100:02.0f}"] = float(np.mean(rates))
    return figures, by_set


def parts_of(path: Path, names: list[str]) -> Iterator[tuple[str, float, dict[str, np.ndarray]]]:
    """Yield set, share of impurities and columns of each part of a file."""
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            part = file.read_row_group(number, columns=["set", "p", *names])
            columns = {name: part[name].to_numpy(zero_copy_only=False) for name in part.column_names}
            yield columns["set"][0], float(columns["p"][0]), columns


def recovered(areas: list[dict[str, float]], rule: str) -> float:
    """Return the share of what impurities cost that a rule gives back, as a ratio of means."""
    mean = {name: np.mean([one[name] for one in areas]) for name in ("uncleaned", "reference", rule)}
    return float((mean[rule] - mean["uncleaned"]) / (mean["reference"] - mean["uncleaned"]))


def measure_large() -> dict[str, float]:
    """Return time and memory of cleaning 200,000 images: training images, each several times and slightly changed."""
    data, random = loaded(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        rows = random.integers(0, len(data.train), ROWS)
        vectors = np.empty((ROWS, data.train.shape[1]), np.float16)
        for low in range(0, ROWS, 10_000):
            block = data.train[rows[low : low + 10_000]]
            vectors[low : low + 10_000] = block + 0.05 * random.standard_normal(block.shape, np.float32)
        write_embedded(dn2.Store.open(folder), "large", vectors, data.train_labels[rows])
        command = [sys.executable, "-m", "benchmarks.cleaning", "--large", folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  (our own)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def large(folder: Path) -> None:
    """Clean the large set in a folder, and print what that took."""
    embedded = open_embedded(dn2.Store.open(folder), "large")
    began = time.perf_counter()
    done = dn2.clean(embedded, folder)
    minutes = (time.perf_counter() - began) / 60
    if done.images != ROWS:
        raise SystemExit(f"{folder}: cleaned {done.images} images, expected {ROWS}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"clean_200k_minutes": minutes, "clean_200k_peak_gb": peak}))


if __name__ == "__main__":
    main()
