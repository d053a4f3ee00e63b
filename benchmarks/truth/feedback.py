"""Do false-alarm rate and power last when a bank is fed with its own false alarms? `make bench-truth`, part feedback.

A bank of 400 normal images (1,000 where a fifth is held out), asked for 5 % false alarms, scores ten batches of 200 new
normal images. After each, the images that the report flagged are added to the bank under other names, as people add
confirmed false alarms: nothing is told of them. Before and after, the current version judges 2,000 other normal images
(of Fashion-MNIST the rest of the class, at least 3,000) and 500 anomalies.

Normal images come from Gaussian mixtures (8, 16 or 64 dimensions, one mode or five) and from classes 5 to 9 of
Fashion-MNIST; anomalies are normal images moved by four to six times the spread, or images of the other classes. Half
of the trials calibrate by leave-one-out, half by held-out images.

* `feedback_rate_ratio`: mean false-alarm rate after ten rounds, over the target; of the trials fed with false alarms;
* `feedback_rate_kept`: the same, over the rate before: without the luck of each calibration;
* `feedback_power_loss`: mean power before, less that after;
* `feedback_passed_rate_ratio`: the same ratio where each round adds what was passed instead, as a nightly job would.

Every trial is a row of `feedback.parquet`; the figures are computed from that file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import dn2
from benchmarks.fashion import Embeddings, load
from benchmarks.truth.pictures import write_pictures
from dn2.neighbors.bank import Bank
from dn2.scoring.scores import image_scores
from dn2.store.schemas import REPORT
from dn2.store.tables import read_table

TARGET, BATCH, ROUNDS, NORMAL, ODD = 0.05, 200, 10, 2000, 500
TRAINED = {"leave-one-out": 400, "held-out": 1000}
SEEDS = 1
COLUMNS = pa.schema(
    [
        ("data", pa.string()),
        ("dim", pa.int32()),
        ("modes", pa.int32()),  # of the mixture; of Fashion-MNIST the class
        ("calibration", pa.string()),
        ("fed", pa.string()),  # what is added after each round: flagged or passed
        ("seed", pa.int32()),
        *((f"{name}_{when}", pa.float64()) for when in ("before", "after") for name in ("rate", "power", "promised")),
        ("rows_after", pa.int32()),
        ("calibration_rows_after", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is normal, how it is calibrated, what is fed back."""

    data: str
    dim: int
    modes: int
    calibration: str
    fed: str
    seed: int

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, D) float16 of normal images, those of training and batches first, and (M, D) of anomalies."""
        random = np.random.default_rng([self.seed, self.dim, self.modes])
        needed = TRAINED[self.calibration] + ROUNDS * BATCH
        if self.data == "fashion":
            data = loaded()
            mine = random.permutation(np.flatnonzero(data.train_labels == self.modes))
            others = random.choice(np.flatnonzero(data.test_labels != self.modes), ODD, replace=False)
            return data.train[mine], data.test[others]
        centres = 3 * random.normal(size=(self.modes, self.dim))
        normal = centres[random.integers(self.modes, size=needed + NORMAL + ODD)]
        normal += random.normal(size=normal.shape)
        away = random.normal(size=(ODD, self.dim))
        shift = {8: 3.5, 16: 4.0, 64: 6.0}[self.dim]
        odd = normal[needed + NORMAL :] + shift * away / np.linalg.norm(away, axis=1)[:, None]
        return normal[: needed + NORMAL].astype(np.float16), odd.astype(np.float16)


def trials() -> Iterator[Trial]:
    """Yield what is tried."""
    for calibration in ("leave-one-out", "held-out"):
        for seed in range(SEEDS):
            for dim in (8, 16, 64):
                for modes in (1, 5):
                    yield Trial("mixture", dim, modes, calibration, "flagged", seed)
            yield Trial("mixture", 16, 5, calibration, "passed", seed)
            for label in range(5, 10):
                yield Trial("fashion", 1280, label, calibration, "flagged", seed)


@cache
def loaded() -> Embeddings:
    """Return the embeddings, read once by each process."""
    return load()


def measure(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Write every trial to a file of the folder; return the figures that it holds, and those of each kind of trial.

    Args:
        folder: for `feedback.parquet`.
    """
    load()  # makes the embeddings, if they are not there yet, on all cores
    with (
        pq.ParquetWriter(folder / "feedback.parquet", COLUMNS) as file,
        ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool,
    ):
        for trial, found in zip(trials(), pool.map(run, trials()), strict=True):
            file.write_table(pa.Table.from_pylist([asdict(trial) | found], schema=COLUMNS))
    return figures_of(folder / "feedback.parquet")


def run(trial: Trial) -> dict[str, float]:
    """Return rate, power and promise of a trial, before and after ten rounds."""
    normal, odd = trial.draw()
    trained = TRAINED[trial.calibration]
    rest = normal[trained + ROUNDS * BATCH :]
    config = dn2.FitConfig(false_alarm_rate=TARGET, calibration=trial.calibration)
    with tempfile.TemporaryDirectory() as folder:
        store = dn2.Store.open(folder)
        bank = dn2.fit(write_pictures(store, "trained", normal[:trained]), store, bank="parts", config=config)
        before = judged(store, bank, rest, odd)
        for number in range(ROUNDS):
            low = trained + number * BATCH
            vectors = normal[low : low + BATCH]
            batch = write_pictures(store, f"batch{number}", vectors)
            report = dn2.score(batch, store, bank=bank, config=dn2.ScoreConfig(report_images=0))
            part = f"{report.uri.removeprefix(store.uri)[1:]}/part-00000.parquet"
            table = read_table(store, part, REPORT, ["is_anomaly", "selected"])
            flagged = table["is_anomaly"].to_numpy() | table["selected"].to_numpy()
            rows = np.flatnonzero(flagged == (trial.fed == "flagged"))
            if len(rows):
                contents = [f"batch{number}-{row}" for row in rows]
                copies = write_pictures(store, f"confirmed{number}", vectors[rows], contents)
                bank = dn2.add(copies, store, bank="parts").bank
        after = judged(store, bank, rest, odd)
    told = {f"{name}_before": value for name, value in before.items()}
    told |= {f"{name}_after": value for name, value in after.items()}
    return told | {"rows_after": bank.rows, "calibration_rows_after": bank.calibration_rows}


def judged(store: dn2.Store, bank: dn2.BankVersion, normal: np.ndarray, odd: np.ndarray) -> dict[str, float]:
    """Return the share of each kind above a version's threshold, and the rate that it promises."""
    opened = Bank.open(store, bank, memory_gb=1)

    def share(vectors: np.ndarray) -> float:
        found = opened.nearest(vectors, np.full((2, len(vectors)), -1, np.int64), memory_mb=64)
        return float((image_scores(found.distances, 1)[0] > np.float32(bank.threshold)).mean())

    return {"rate": share(normal), "power": share(odd), "promised": bank.attainable_rate}


def figures_of(path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures, and rate ratio and power loss of each kind of trial, from the file."""
    rows = pq.read_table(path).to_pylist()
    fed = [row for row in rows if row["fed"] == "flagged"]
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(f"{row['data']} {row['dim']} {row['calibration']} {row['fed']}", []).append(row)
    figures = {
        "feedback_rate_ratio": _ratio(fed),
        "feedback_rate_kept": _ratio(fed) / _ratio(fed, "before"),
        "feedback_power_loss": _loss(fed),
        "feedback_passed_rate_ratio": _ratio([row for row in rows if row["fed"] == "passed"]),
    }
    told = {
        name: {"rate_ratio": _ratio(mine), "rate_ratio_before": _ratio(mine, "before"), "power_loss": _loss(mine)}
        for name, mine in kinds.items()
    }
    return figures, {"trials": len(rows), "rounds": ROUNDS, "target": TARGET, "kinds": told}


def _ratio(rows: list[dict[str, Any]], when: str = "after") -> float:
    return float(np.mean([row[f"rate_{when}"] for row in rows]) / TARGET)


def _loss(rows: list[dict[str, Any]]) -> float:
    return float(np.mean([row["power_before"] - row["power_after"] for row in rows]))
