"""Does cleaning ever harm, and what is it worth once its questions are answered? On 200 drawn sets of Fashion-MNIST.

Embeddings are turned to the 256 axes along which training images are longest, which hold 90 % of their variance: so all
sets are done in minutes. They are not moved, as cleaning compares angles. Each set is drawn by its number: 200 to
20,000 images (log-uniform), one to four normal classes of 5 to 9 of which the smallest holds 2 % or more, no impurities
in a quarter of the sets and up to 30 % in the others, from one class, three or all others. In a third of the sets units
are bursts of 1 to 15 shots, apart by 0.1 to 0.5 of the spread of the set; their files follow each other, and test
images are shots as well. No class has more than 6,000 images: sets that would need more are smaller. Banks have the
defaults (k = 2, squared L2), and 2,000 test images are scored, all test images of the normal classes being normal,
whatever their share in the set.

* `clean_never_harms`: unasked, share of sets whose area under the ROC curve is at least that without cleaning less 0.5
  points;
* `clean_answered`: the questions answered from the labels (a cluster is normal if most of its images are), share with
  at least the better of no cleaning and the paper's rule, less 0.5 points;
* `clean_interval_covers`, `clean_interval_width`: how often the interval of the contamination, answered, holds the true
  share of units that are impurities, and its mean width; `clean_interval_covers_unasked`: the same before;
* `clean_stopped`: share of sets in which the answers make cleaning stop: more than 40 % would be taken for anomalies;
* `clean_points_lost_auto`, `_worst`, `_paper`, `_drop`: mean (and largest) loss against no cleaning, on the sets
  without impurities, of the rule auto unasked, of paper and of auto with `clusters` drop.

The rule's constants were chosen on classes 0 to 4 (`python -m benchmarks.truth.cleaning tune`) and synthetic sets.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
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
from dn2.config import CleanConfig
from dn2.errors import BankError
from dn2.evaluation.metrics import roc_auc
from dn2.neighbors.reverse import distances_to
from dn2.scoring.asking import asked, examined
from dn2.scoring.judged import Images, Judged
from dn2.scoring.ranking import ranked

SETS, TESTED, K, DIM = 200, 2_000, 2, 256
REPORTED, TUNED = (5, 6, 7, 8, 9), (0, 1, 2, 3, 4)
ALLOWED = 0.5  # points of area under the ROC curve


@dataclass(frozen=True, slots=True)
class Drawn:
    """A training set.

    Attributes:
        classes: normal ones.
        rows: (U,) int64 rows of the training images, one for each unit.
        impure: (U,) bool, the truth.
        unit_of: (N,) int64.
        jitter: how far shots of a unit are apart, relative to the spread of the set; 0 where there are no bursts.
        about: what else the table of trials holds.
    """

    classes: tuple[int, ...]
    rows: np.ndarray
    impure: np.ndarray
    unit_of: np.ndarray
    jitter: float
    about: dict[str, Any]


def drawn(labels: np.ndarray, number: int, normal: tuple[int, ...]) -> Drawn:
    """Return the set of a number, the same in every run."""
    random = np.random.default_rng([number, *normal])
    wanted = np.exp(random.uniform(np.log(200), np.log(20_000)))
    bursts, count = bool(random.random() < 1 / 3), int(random.choice([1, 2, 3, 4], p=[0.25, 0.35, 0.25, 0.15]))
    classes = random.choice(normal, count, replace=False)
    least = np.exp(random.uniform(np.log(0.02), np.log(1 / count))) if count > 1 else 1.0
    modes = np.append(np.maximum(random.dirichlet(np.full(count - 1, 2.0)) * (1 - least), 0.02), least)
    modes /= modes.sum()
    share = 0.0 if random.random() < 0.25 else random.uniform(0.005, 0.3)
    others = np.setdiff1d(np.arange(10), classes)
    foreign = random.choice(others, int(random.choice([1, 3, len(others)])), replace=False)
    shots = random.uniform(2, 8) if bursts else 1.0
    most = 0.98 * np.bincount(labels).min()
    units = int(
        min(max(40, wanted / shots), most / ((1 - share) * modes.max()), most * len(foreign) / max(share, 1e-9))
    )
    impurities = round(share * units)
    per_class = [round(mode * (units - impurities)) for mode in modes]
    per_class += [len(part) for part in np.array_split(np.arange(impurities), len(foreign))]
    rows = np.concatenate(
        [
            random.choice(np.flatnonzero(labels == label), max(1, size) if place < count else size, replace=False)
            for place, (label, size) in enumerate(zip([*classes, *foreign], per_class, strict=True))
        ]
    )
    rows = random.permutation(rows)
    sizes = random.integers(1, int(2 * shots), len(rows)) if bursts else np.ones(len(rows), int)
    impure = ~np.isin(labels[rows], classes)
    about = {"set": number, "modes": count, "least": float(modes.min()), "foreign": len(foreign), "bursts": bursts}
    unit_of = np.repeat(np.arange(len(rows)), sizes)
    about |= {"units": len(rows), "images": len(unit_of), "share": float(impure.mean())}
    jitter = random.uniform(0.1, 0.5) if bursts else 0.0
    return Drawn(tuple(classes.tolist()), rows, impure, unit_of, jitter, about)


def shots_of(one: Drawn, train: np.ndarray) -> np.ndarray:
    """Return (N, D) float16, the embeddings of a set."""
    base = train[one.rows].astype(np.float32)
    found = base[one.unit_of]
    if one.jitter:
        random = np.random.default_rng(one.about["set"])
        found += one.jitter * base.std(axis=0) * random.standard_normal(found.shape, np.float32)
    return found.astype(np.float16)


def trial(number: int, normal: tuple[int, ...]) -> dict[str, Any]:
    """Return what was measured of one set."""
    data = loaded()
    one = drawn(data.train_labels, number, normal)
    vectors, impure = shots_of(one, data.train), one.impure[one.unit_of]
    found: dict[str, Any] = dict(one.about)
    banks = {"none": np.ones(len(vectors), bool), "reference": ~impure}
    with tempfile.TemporaryDirectory() as folder:
        store = dn2.Store.open(folder)
        images = Images(write_embedded(store, "set", vectors, impure.astype(np.uint8)), store)
        seen = examined(images)
        unasked = asked(images, seen, CleanConfig(rule="auto"))
        keep, drop = answers(unasked.cluster_of, impure)
        answers_given = CleanConfig(rule="auto", keep=keep, drop_cluster=drop)
        answered, stopped = unasked, False
        if keep or drop:
            try:
                answered = asked(images, seen, answers_given)
            except BankError:  # too many are taken for anomalies: it says so, and the set stays as it is
                stopped = True
        half = CleanConfig(rule="paper", contamination=0)  # what it takes for anomalies does not change what it drops
        judged = {"unasked": unasked, "answered": answered, "paper": ranked(images, half)}
        if not found["share"]:
            judged["drop"] = ranked(images, CleanConfig(rule="auto", clusters="drop"))
        banks |= {name: kept(one, images) for name, one in judged.items()}
    found |= dict.fromkeys(("drop",)) | areas(data, one, vectors, banks)
    for name in ("unasked", "answered"):
        low, high = judged[name].interval or (0.0, 0.5)
        found |= {f"{name}_low": low, f"{name}_high": high, f"{name}_dropped": int((~banks[name]).sum())}
    found |= {"questions": len(unasked.clusters), "found_units": unasked.units, "foreign_clusters": len(drop)}
    return found | {"stopped": stopped}


def kept(judged: Judged, images: Images) -> np.ndarray:
    """Return (N,) which images a rule keeps."""
    return judged.table(images.rows)[0]["kept"].to_numpy(zero_copy_only=False)


def answers(cluster_of: np.ndarray, impure: np.ndarray) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the clusters that are kept and those that are dropped: most of their images tell."""
    foreign = {name: impure[cluster_of == name].mean() > 0.5 for name in set(cluster_of.tolist()) - {None}}
    return tuple(name for name in foreign if not foreign[name]), tuple(name for name in foreign if foreign[name])


def areas(data: Embeddings, one: Drawn, vectors: np.ndarray, banks: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the area under the ROC curve, in percent, of each bank: (N,) bool, which rows it holds.

    Where training images are shots, so are the test images: one of each part.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.test))[:TESTED])
    anomaly = ~np.isin(data.test_labels[chosen], one.classes)
    noise = np.random.default_rng(one.about["set"] + 1).standard_normal(data.test[chosen].shape, np.float32)
    spread = data.train[one.rows].astype(np.float32).std(axis=0)
    test = (data.test[chosen].astype(np.float32) + one.jitter * spread * noise).astype(np.float16)
    none = [np.full((1, len(rows)), -1, np.int64) for rows in (chosen, vectors)]
    scores: dict[str, list[np.ndarray]] = {name: [] for name in banks}
    columns = {name: torch.from_numpy(np.flatnonzero(rows)) for name, rows in banks.items()}
    for distances in distances_to(test, none[0], vectors, none[1]):
        for name, rows in columns.items():
            nearest = torch.from_numpy(distances)[:, rows].topk(K, dim=1, largest=False, sorted=False)
            scores[name].append(nearest.values.mean(dim=1).numpy())
    return {name: 100 * float(roc_auc(np.concatenate(parts), anomaly)) for name, parts in scores.items()}


@cache
def loaded() -> Embeddings:
    """Return the embeddings' principal components, made once by each process."""
    data = load()
    some = data.train[::6].astype(np.float64)
    components = np.linalg.eigh(some.T @ some)[1][:, ::-1][:, :DIM].astype(np.float32)
    turned = [(one.astype(np.float32) @ components).astype(np.float16) for one in (data.train, data.test)]
    return Embeddings(turned[0], data.train_labels, turned[1], data.test_labels)


def _one_thread() -> None:
    torch.set_num_threads(1)


def measure(
    folder: Path, *, normal: tuple[int, ...] = REPORTED, sets: int = SETS
) -> tuple[dict[str, float], dict[str, Any]]:
    """Write every trial to cleaning.parquet in a folder; return the figures, and what else a reader should know."""
    load()
    path, trials = folder / "cleaning.parquet", []
    with ProcessPoolExecutor(2, get_context("spawn"), _one_thread) as pool:
        for one in pool.map(partial(trial, normal=normal), range(sets)):
            trials.append(one)
            pq.write_table(pa.Table.from_pylist(trials), path)
    return figures_of(path), {"sets": sets, "normal": list(normal), "tested": TESTED}


def figures_of(path: Path) -> dict[str, float]:
    """Return the figures of a file of trials."""
    table = pq.read_table(path)
    of = {name: table[name].to_numpy(zero_copy_only=False).astype(float) for name in table.column_names}
    best = np.maximum(of["none"], of["paper"])
    figures = {
        "clean_never_harms": float((of["unasked"] >= of["none"] - ALLOWED).mean()),
        "clean_answered": float((of["answered"] >= best - ALLOWED).mean()),
    }
    for name, called in (("answered", ""), ("unasked", "_unasked")):
        low, high = of[f"{name}_low"], of[f"{name}_high"]
        figures[f"clean_interval_covers{called}"] = float(((low <= of["share"]) & (of["share"] <= high)).mean())
        figures[f"clean_interval_width{called}"] = float((high - low).mean())
    clean = of["share"] == 0
    lost = {name: (of["none"] - of[name])[clean] for name in ("unasked", "paper", "drop")}
    figures |= {
        "clean_points_lost_auto": float(lost["unasked"].mean()),
        "clean_points_lost_worst": float(lost["unasked"].max()),
        "clean_points_lost_paper": float(lost["paper"].mean()),
        "clean_points_lost_paper_worst": float(lost["paper"].max()),
        "clean_points_lost_drop": float(lost["drop"].mean()),
        "clean_points_lost_drop_worst": float(lost["drop"].max()),
        "clean_questions": float(of["questions"].mean()),
        "clean_stopped": float(of["stopped"].mean()),
    }
    for name in ("none", "paper", "unasked", "answered", "reference"):
        figures[f"clean_auc_{name}"] = float(of[name].mean())
    return figures


if __name__ == "__main__":
    (FOLDER / "truth").mkdir(parents=True, exist_ok=True)
    tunes = sys.argv[1:2] == ["tune"]
    done, known = measure(FOLDER / "truth", normal=TUNED if tunes else REPORTED, sets=100 if tunes else SETS)
    for name, value in done.items():
        print(f"{name}: {value:.3f}")
