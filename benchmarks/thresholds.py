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

**Leave-one-out**, the default up to 10,000 images: the 3,000 images of each bank calibrate it, each scored against the
others. `loo_splits_in_band` and `loo_mean_far` are as above, with n = 3,000. And twenty banks of all ten classes, 600
images of each: `mixed_mean_far` is the rate over 500 new images of each class, `mixed_far_of_classes` the rate of each
class. They are written to `leave-one-out.parquet`.
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
from dn2.scoring.calibration import Calibration
from dn2.scoring.scores import mean_distance
from dn2.scoring.selection import q_values_by_rank

SPLITS, CLASSES, SHOWN, K = 50, 10, 5, 2
BANK, CALIBRATION, TEST = 3000, 2000, 1000  # of the 6,000 training images of a class
NORMAL, ANOMALIES = 950, 50  # of a batch
TARGET, RATE, BAND = 0.01, 0.10, 0.95
MIXED, MIXED_BANK, MIXED_TEST = 20, 600, 500  # splits; images of each class
FILE, LEFT_OUT = FOLDER / "thresholds.parquet", FOLDER / "leave-one-out.parquet"
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
    data = load()
    measure(data)
    pq.write_table(pa.Table.from_pylist([*left_out(data), *left_out_of_mixtures(data)]), LEFT_OUT)
    tell()


def measure(data: Embeddings) -> None:
    """Write all scores and decisions of all classes and splits to the file."""
    with pq.ParquetWriter(FILE, COLUMNS, compression="zstd") as writer:
        for normal in range(CLASSES):
            for seed in range(SPLITS):
                writer.write_table(pa.table(rows_of(data, normal, seed), schema=COLUMNS))


def left_out(data: Embeddings) -> Iterator[dict[str, Any]]:
    """Yield the false alarms of each class and split, with calibration scores of the bank's own images."""
    for normal in range(CLASSES):
        for seed in range(SPLITS):
            mine = np.random.default_rng(seed).permutation(np.flatnonzero(data.train_labels == normal))
            test = mine[BANK + CALIBRATION : BANK + CALIBRATION + TEST]
            above = _above(data.train[mine[:BANK]], data.train[test])
            yield {"mixed": False, "split": seed, "class": normal, "alarms": int(above.sum()), "images": TEST}


def left_out_of_mixtures(data: Embeddings) -> Iterator[dict[str, Any]]:
    """Yield the false alarms of each class in banks of all classes."""
    for seed in range(MIXED):
        random = np.random.default_rng(seed)
        drawn = [
            random.permutation(np.flatnonzero(data.train_labels == one))[: MIXED_BANK + MIXED_TEST]
            for one in range(CLASSES)
        ]
        bank = np.concatenate([data.train[rows[:MIXED_BANK]] for rows in drawn])
        above = _above(bank, np.concatenate([data.train[rows[MIXED_BANK:]] for rows in drawn]))
        for one, alarms in enumerate(above.reshape(CLASSES, MIXED_TEST).sum(axis=1)):
            yield {"mixed": True, "split": seed, "class": one, "alarms": int(alarms), "images": MIXED_TEST}


def _above(bank: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return (Q,) bool: which new images are above the threshold of a bank that calibrates itself."""
    own = np.arange(len(bank), dtype=np.int64)[None]
    known = mean_distance(search(bank, bank, K, query_keys=own, bank_keys=own).distances)
    return mean_distance(search(test, bank, K).distances) > np.float32(Calibration.of(known).threshold(TARGET)[0])


def left_out_figures() -> tuple[dict[int, dict[str, float]], dict[str, Any]]:
    """Return the figures of each class, and those of the mixtures, from the file."""
    table = pq.read_table(LEFT_OUT)
    low, high = band(BANK)
    found = {}
    for normal in range(CLASSES):
        alarms = table.filter((pc.field("class") == normal) & ~pc.field("mixed"))["alarms"].to_numpy()
        inside = int(((low <= alarms) & (alarms <= high)).sum())
        found[normal] = {"loo_splits_in_band": inside, "loo_mean_far": float(alarms.mean() / TEST)}
    mixed = table.filter(pc.field("mixed"))
    classes = [
        mixed.filter(pc.field("class") == one)["alarms"].to_numpy().mean() / MIXED_TEST for one in range(CLASSES)
    ]
    return found, {
        "mixed_mean_far": float(f"{np.mean(classes):.4g}"),
        "mixed_far_of_classes": {str(one): float(f"{rate:.4g}") for one, rate in enumerate(classes)},
    }


def tell() -> None:
    """Print and keep the figures that the files hold."""
    alone, mixed = left_out_figures()
    figures = {normal: figures_of(normal) | alone[normal] for normal in range(CLASSES)}
    about = {
        "splits": SPLITS,
        "bank": BANK,
        "calibration": CALIBRATION,
        "test": TEST,
        "band": list(band(CALIBRATION)),
        "loo_band": list(band(BANK)),
        **mixed,
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
    known = Calibration.of(scores[:CALIBRATION])
    threshold, _ = known.threshold(TARGET)
    rare = known.p_values(scores)
    count = len(scores)
    in_batch = np.zeros(count, bool)
    in_batch[CALIBRATION : CALIBRATION + NORMAL] = True
    in_batch[CALIBRATION + TEST :] = True
    q = np.full(count, np.nan)
    ranks = known.ranks(scores[in_batch])
    q[in_batch] = q_values_by_rank(np.bincount(ranks, minlength=CALIBRATION + 1), known)[ranks]
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


def band(calibration: int) -> tuple[int, int]:
    """Return the false alarms of a split between which the central 95 % of the beta-binomial law lie.

    Args:
        calibration: images that calibrate.
    """
    rank = math.floor((calibration + 1) * TARGET)
    law = betabinom(TEST, rank, calibration + 1 - rank)
    return int(law.ppf((1 - BAND) / 2)), int(law.ppf((1 + BAND) / 2))


def figures_of(normal: int) -> dict[str, float]:
    """Return the figures of one class, from the file."""
    low, high = band(CALIBRATION)
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
