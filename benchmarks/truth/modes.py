"""Are rare and wide kinds of normal images flagged as seldom as was promised? `make bench-truth`, part modes.

A bank of 1,000 normal images has four kinds of 92, 5, 2 and 1 %, and promises 1 %, calibrated by leaving one out.

* Mixtures are Gaussian, in 16 and 64 dimensions, in five patterns of spread. Their kinds lie apart, at three times the
  root of the dimension from the origin, unless they `touch`, at twice. Anomalies lie around the kinds, 1.4 times as
  far.
* Classes are four of Fashion-MNIST, the rarest one of 5 to 9; new normal images are test images, anomalies test images
  of the other classes.
* Single are classes 5 to 9 alone, 200 and 2,000 images of each, against the other classes: what a scale costs where no
  kind is rare.

Figures, with --scale local unless they end in `_unscaled`:

* `zoo_mode_worst`: percent flagged of the kind that has 1 %, of the worst pattern of mixtures that lie apart, or of the
  classes, whichever is more; `zoo_mode_touching`: of mixtures that touch, the worst pattern; there the nearest images
  of a wide kind are those of another one, and no scale of theirs can tell;
* `mode_auc_mixtures`, `_classes`, `_single`: area under the ROC curve in percent, every kind weighted by its share;
* `mode_power_...`: percent of the anomalies above the threshold.

Every trial is a row of `modes.parquet`; the figures are computed from that file.
"""

from __future__ import annotations

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

from benchmarks.fashion import FOLDER, Embeddings, load
from dn2.neighbors.exact import search
from dn2.scoring.calibration import Calibration
from dn2.scoring.scale import NEIGHBOURS, relative, scales_of, spreads
from dn2.scoring.scores import mean_distance

K, TARGET, ROWS, NEW, ODD = 2, 0.01, 1000, 300, 500
SHARES = (0.92, 0.05, 0.02, 0.01)
SPREADS = {
    "alike": (1, 1, 1, 1),
    "rare-wide": (1, 1.25, 1.5, 2),
    "rare-narrow": (1, 0.8, 0.6, 0.5),
    "mixed": (1, 0.5, 2, 1.5),
    "one-wide": (1, 1, 1, 1.5),
}
SPLITS, DRAWS = 10, 30
COLUMNS = pa.schema(
    [
        ("data", pa.string()),  # mixtures, touching, classes or single
        ("pattern", pa.string()),  # of spread; of classes which ones
        ("dim", pa.int32()),
        ("rows", pa.int32()),
        ("seed", pa.int32()),
        ("scale", pa.string()),
        ("flagged", pa.list_(pa.float64())),  # share of the new images of each kind
        ("auc", pa.float64()),
        ("power", pa.float64()),
        ("threshold", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is normal: kinds of images, and how they are drawn."""

    data: str
    pattern: str
    dim: int
    rows: int
    seed: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Images of each kind in the bank."""
        return (self.rows,) if self.data == "single" else tuple(round(share * self.rows) for share in SHARES)

    def draw(self) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """Return (rows, D) float16 of the bank, those of new images of each kind, and those of anomalies."""
        random = np.random.default_rng([self.seed, self.dim])
        return self._of_classes(random) if self.dim == 1280 else self._of_mixture(random)

    def _of_mixture(self, random: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        centres = random.normal(size=(len(SHARES), self.dim))
        far = 2 if self.data == "touching" else 3
        centres *= far * np.sqrt(self.dim) / np.linalg.norm(centres, axis=1, keepdims=True)
        spread = np.array(SPREADS[self.pattern])

        def drawn(kinds: np.ndarray, wider: float = 1) -> np.ndarray:
            noise = random.normal(size=(len(kinds), self.dim))
            found: np.ndarray = (centres[kinds] + wider * spread[kinds, None] * noise).astype(np.float16)
            return found

        bank = drawn(np.repeat(np.arange(len(SHARES)), self.counts))
        new = [drawn(np.full(NEW, kind)) for kind in range(len(SHARES))]
        return bank, new, drawn(random.choice(len(SHARES), ODD, p=SHARES), wider=1.4)

    def _of_classes(self, random: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        data, classes = loaded(), [int(number) for number in self.pattern.split("+")]
        mine = [random.permutation(np.flatnonzero(data.train_labels == number)) for number in classes]
        bank = data.train[np.concatenate([rows[:count] for rows, count in zip(mine, self.counts, strict=True)])]
        new = [data.test[data.test_labels == number][:ODD] for number in classes]
        others = np.flatnonzero(~np.isin(data.test_labels, classes))
        return bank, new, data.test[random.choice(others, 2 * ODD, replace=False)]


def trials() -> Iterator[Trial]:
    """Yield what is tried."""
    for seed in range(SPLITS):
        for dim in (16, 64):
            for pattern in SPREADS:
                yield Trial("mixtures", pattern, dim, ROWS, seed)
                yield Trial("touching", pattern, dim, ROWS, seed)
    for seed in range(DRAWS):
        random = np.random.default_rng(seed)
        rare = 5 + seed % 5
        others = random.permutation([number for number in range(10) if number != rare])[:3]
        yield Trial("classes", "+".join(map(str, [*others, rare])), 1280, ROWS, seed)
    for number in range(5, 10):
        for rows in (200, 2000):
            yield Trial("single", str(number), 1280, rows, 0)


@cache
def loaded() -> Embeddings:
    """Return the embeddings, read once by each process."""
    return load()


def run(trial: Trial) -> list[dict[str, Any]]:
    """Return what each scale makes of a trial."""
    bank, new, odd = trial.draw()
    own = np.arange(len(bank), dtype=np.int64)[None]
    near = search(bank, bank, NEIGHBOURS, query_keys=own, bank_keys=own)
    found = search(np.concatenate([*new, odd]), bank, K)
    scales = scales_of(near.rows, spreads(near))
    nearest = type(near)(near.rows[:, :K], near.distances[:, :K])
    told = []
    for scale, by in (("none", None), ("local", scales)):
        known, scores = (mean_distance(relative(side, by)) for side in (nearest, found))
        threshold = Calibration.of(known).threshold(TARGET)[0]
        *kinds, odd_scores = np.split(scores, np.cumsum([len(kind) for kind in new]))
        areas = [_area(kind, odd_scores) for kind in kinds]
        told.append(
            {
                "scale": scale,
                "flagged": [float((kind > np.float32(threshold)).mean()) for kind in kinds],
                "auc": float(np.average(areas, weights=trial.counts)),
                "power": float((odd_scores > np.float32(threshold)).mean()),
                "threshold": threshold,
            }
        )
    return told


def _area(normal: np.ndarray, odd: np.ndarray) -> float:
    """Return how often an anomaly has a higher score than a normal image; a tie counts half."""
    ascending = np.sort(normal)
    below = np.searchsorted(ascending, odd, "left") + np.searchsorted(ascending, odd, "right")
    return float(below.mean() / (2 * len(normal)))


def measure(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Write every trial to a file of the folder; return the figures that it holds, and the share flagged of each kind.

    Args:
        folder: for `modes.parquet`.
    """
    load()  # makes the embeddings, if they are not there yet, on all cores
    with (
        pq.ParquetWriter(folder / "modes.parquet", COLUMNS) as file,
        ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool,
    ):
        for trial, found in zip(trials(), pool.map(run, trials(), chunksize=4), strict=True):
            file.write_table(pa.Table.from_pylist([asdict(trial) | one for one in found], schema=COLUMNS))
    return figures_of(folder / "modes.parquet")


def figures_of(path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures of a file, and percent flagged of each kind by data, pattern, dimensions and scale."""
    rows = pq.read_table(path).to_pylist()
    figures: dict[str, float] = {}
    about: dict[str, Any] = {"target": TARGET, "shares": SHARES, "flagged": {}, "auc": {}}
    for scale, ending in (("local", ""), ("none", "_unscaled")):
        worst: dict[str, float] = {}
        for data in ("mixtures", "touching", "classes", "single"):
            mine = [row for row in rows if (row["data"], row["scale"]) == (data, scale)]
            by = {(row["pattern"], row["dim"], row["rows"]) for row in mine}
            sets = {"classes": [mine]}.get(
                data, [[row for row in mine if (row["pattern"], row["dim"], row["rows"]) == key] for key in sorted(by)]
            )
            for part in sets:
                flagged = 100 * np.mean([row["flagged"] for row in part], axis=0)
                pattern = "all" if data == "classes" else f"{part[0]['pattern']}, {part[0]['dim']} dimensions"
                name = f"{data}, {pattern}, {part[0]['rows']} rows, {scale}"
                about["flagged"][name] = np.round(flagged, 2).tolist()
                about["auc"][name] = round(100 * float(np.mean([row["auc"] for row in part])), 2)
                worst[data] = max(worst.get(data, 0), float(flagged[-1]))
            if data != "touching":
                figures[f"mode_auc_{data}{ending}"] = 100 * float(np.mean([row["auc"] for row in mine]))
                figures[f"mode_power_{data}{ending}"] = 100 * float(np.mean([row["power"] for row in mine]))
        figures[f"zoo_mode_worst{ending}"] = max(worst["mixtures"], worst["classes"])
        figures[f"zoo_mode_touching{ending}"] = worst["touching"]
    return figures, about


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, value in measure(FOLDER)[0].items():
        print(f"{name}: {value:.4g}")
