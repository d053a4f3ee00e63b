"""Do thresholds and selections keep what they promise? `make bench-thresholds`, on all of Fashion-MNIST.

One class is normal. Fifty times its 6,000 training images are split at random into 3,000 for the bank, 2,000 for
calibration and 1,000 new ones (seeds 0 to 49); k = 2, squared L2. The figures are those of class 5, sandals;
those of the other nine, measured in the same way, stand beside them in the results: on classes that the network hardly
tells from others (0, 3, 6 and 8) few anomalies stand out, and what is found of them depends on chance.

* `far_splits_in_band`: splits whose false alarms at a target of 1 % lie in the central 95 % of the beta-binomial law
  that holds for exchangeable images: a new image is above the r-th largest of n calibration scores with a probability
  that is Beta(r, n + 1 - r) over the draws of the calibration;
* `mean_far`: the mean false-alarm rate;
* batches of 950 of the new images and 50 images of the other classes, drawn from the test images: Benjamini-Hochberg
  at 0.10. `mean_fdp_at_10` is the mean share of normal images among the selected ones, `fdp_bound_at_10` is 0.10 and
  two standard errors of that mean;
* `power_at_10`: mean share of the 50 that is selected. Beside it, what labels could do, as a ratio to three oracles:
  - `power_vs_oracle_at_10`: in each batch the best threshold with no larger share of normal images above it than our
    selection of that batch has. It is chosen with hindsight, batch by batch: no rule that knows no labels can follow;
  - `power_vs_fdr_oracle_at_10`: the same with at most 0.10 of them, however many our selection has;
  - `power_vs_fixed_oracle_at_10`: the best single threshold for all fifty batches with no larger mean share.

Every score and decision is written to `thresholds.parquet`, and the figures are computed from that file alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.stats import betabinom

from benchmarks.fashion import FOLDER, Embeddings, load
from benchmarks.results import write_results
from dn2.neighbors.exact import search
from dn2.scoring.scores import mean_distance, p_values, threshold_at
from dn2.scoring.selection import levels, q_values_of_levels

SPLITS, CLASSES, SHOWN, K = 50, 10, 5, 2
BANK, CALIBRATION, TEST = 3000, 2000, 1000  # of the 6,000 training images of a class
NORMAL, ANOMALIES = 950, 50  # of a batch
TARGET, RATE, BAND = 0.01, 0.10, 0.95
FILE = FOLDER / "thresholds.parquet"
COLUMNS = pa.schema(
    [
        ("split", pa.int32()),  # its seed
        ("class", pa.int32()),  # the normal one
        ("part", pa.string()),  # calibration, test or anomaly
        ("image", pa.int32()),  # row of the training images, for anomalies of the test images
        ("score", pa.float32()),
        ("p_value", pa.float64()),  # null for calibration
        ("q_value", pa.float64()),  # null for what is not in the batch
        ("selected", pa.bool_()),
        ("threshold", pa.float32()),
        ("is_anomaly", pa.bool_()),  # null for calibration
    ]
)


def main() -> None:
    """Measure, print and keep the figures."""
    measure(load())
    tell()


def measure(data: Embeddings) -> None:
    """Write all scores and decisions of all classes and splits to the file."""
    with pq.ParquetWriter(FILE, COLUMNS, compression="zstd") as writer:
        for normal in range(CLASSES):
            for seed in range(SPLITS):
                writer.write_table(pa.table(rows_of(data, normal, seed), schema=COLUMNS))


def tell() -> None:
    """Print and keep the figures that the file holds."""
    figures = {normal: figures_of(normal) for normal in range(CLASSES)}
    about = {
        "splits": SPLITS,
        "bank": BANK,
        "calibration": CALIBRATION,
        "test": TEST,
        "band": list(band()),
        "class_of_figures": SHOWN,
        "other_classes": {str(number): rounded(one) for number, one in figures.items() if number != SHOWN},
    }
    write_results("thresholds", figures[SHOWN], about)


def rows_of(data: Embeddings, normal: int, seed: int) -> dict[str, Any]:
    """Return the columns of one split: calibration, new normal images, anomalies."""
    random = np.random.default_rng(seed)
    mine = random.permutation(np.flatnonzero(data.train_labels == normal))
    others = random.choice(np.flatnonzero(data.test_labels != normal), ANOMALIES, replace=False)
    bank = data.train[mine[:BANK]]
    calibration, test = mine[BANK : BANK + CALIBRATION], mine[BANK + CALIBRATION : BANK + CALIBRATION + TEST]
    queries = np.concatenate([data.train[calibration], data.train[test], data.test[others]])
    scores = mean_distance(search(queries, bank, K).distances)
    known = np.sort(scores[:CALIBRATION])
    threshold, _ = threshold_at(known, TARGET)
    rare = p_values(known, scores)
    count = len(scores)
    in_batch = np.zeros(count, bool)
    in_batch[CALIBRATION : CALIBRATION + NORMAL] = True
    in_batch[CALIBRATION + TEST :] = True
    q = np.full(count, np.nan)
    mine = levels(rare[in_batch], CALIBRATION)
    q[in_batch] = q_values_of_levels(np.bincount(mine, minlength=CALIBRATION + 2))[mine]
    is_calibration = np.arange(count) < CALIBRATION
    return {
        "split": np.full(count, seed, np.int32),
        "class": np.full(count, normal, np.int32),
        "part": ["calibration"] * CALIBRATION + ["test"] * TEST + ["anomaly"] * ANOMALIES,
        "image": np.concatenate([calibration, test, others]).astype(np.int32),
        "score": scores,
        "p_value": np.ma.masked_array(rare, is_calibration),
        "q_value": np.ma.masked_array(q, ~in_batch),
        "selected": np.ma.masked_array(q <= RATE, ~in_batch),
        "threshold": np.full(count, threshold, np.float32),
        "is_anomaly": np.ma.masked_array(scores > np.float32(threshold), is_calibration),
    }


def band() -> tuple[int, int]:
    """Return the false alarms of a split between which the central 95 % of the beta-binomial law lie."""
    rank = math.floor((CALIBRATION + 1) * TARGET)
    law = betabinom(TEST, rank, CALIBRATION + 1 - rank)
    return int(law.ppf((1 - BAND) / 2)), int(law.ppf((1 + BAND) / 2))


def figures_of(normal: int) -> dict[str, float]:
    """Return the figures of one class, from the file."""
    low, high = band()
    rates, shares, powers, equals, betters, batches = [], [], [], [], [], []
    for split in splits_of(normal):
        alarms = int(split["is_anomaly"][split["part"] == "test"].sum())
        rates.append(alarms / TEST)
        batch = split["selected"] != None  # noqa: E711  (an array of objects)
        anomalous, scores = split["part"][batch] == "anomaly", split["score"][batch]
        selected = split["selected"][batch].astype(bool)
        share = float((selected & ~anomalous).sum() / max(selected.sum(), 1))
        shares.append(share)
        powers.append(float((selected & anomalous).sum() / ANOMALIES))
        equals.append(best_power(scores, anomalous, share))
        betters.append(best_power(scores, anomalous, RATE))
        batches.append((scores, anomalous))
    figures = {
        "far_splits_in_band": sum(low <= round(rate * TEST) <= high for rate in rates),
        "mean_far": float(np.mean(rates)),
        "mean_fdp_at_10": float(np.mean(shares)),
        "fdp_bound_at_10": RATE + 2 * float(np.std(shares, ddof=1)) / math.sqrt(SPLITS),
        "power_at_10": float(np.mean(powers)),
        "power_vs_oracle_at_10": float(np.mean(powers) / np.mean(equals)),
        "power_vs_fdr_oracle_at_10": float(np.mean(powers) / np.mean(betters)),
    }
    if fixed := fixed_power(batches, float(np.mean(shares))):  # 0: no single threshold finds any with so small a share
        figures["power_vs_fixed_oracle_at_10"] = float(np.mean(powers)) / fixed
    return figures


def splits_of(normal: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the columns of each split of a class, as they stand in the file."""
    table = pq.read_table(FILE, filters=[("class", "=", normal)])
    for seed in range(SPLITS):
        rows = table.filter(pc.equal(table["split"], seed))
        yield {name: np.asarray(rows[name].to_numpy(zero_copy_only=False)) for name in rows.column_names}


def best_power(scores: np.ndarray, anomalous: np.ndarray, share: float) -> float:
    """Return the largest share of the anomalies above a threshold with at most `share` normal images above it.

    Args:
        scores: (Q,) float32 of a batch.
        anomalous: (Q,) bool, what is known.
        share: of normal images among those above.
    """
    order = np.argsort(-scores, kind="stable")
    found, wrong = np.cumsum(anomalous[order]), np.cumsum(~anomalous[order])
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    allowed = last_of_ties & (wrong <= share * (found + wrong) + 1e-9)
    return float(found[allowed].max(initial=0) / anomalous.sum())


def fixed_power(batches: list[tuple[np.ndarray, np.ndarray]], share: float) -> float:
    """Return the largest mean share of the anomalies above one threshold, with a mean of at most `share` normal images.

    Args:
        batches: (Q,) float32 scores and (Q,) bool of each.
        share: of normal images among those above, averaged over the batches.
    """
    thresholds = np.unique(np.concatenate([scores for scores, _ in batches]))[:-1]  # something is above each
    powers, shares = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    for scores, anomalous in batches:
        found, wrong = (
            one.size - np.searchsorted(np.sort(one), thresholds, side="right")
            for one in (scores[anomalous], scores[~anomalous])
        )
        powers += found / anomalous.sum() / len(batches)
        shares += wrong / np.maximum(found + wrong, 1) / len(batches)
    return float(powers[shares <= share + 1e-9].max(initial=0))


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Return figures with four digits."""
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


if __name__ == "__main__":
    main()
