"""Do groups keep their promised rate where their images depend on each other?

Each pattern draws groups of normal images in 64 dimensions, for a bank and anew; `dn2.fit_groups` and
`dn2.score_groups` judge them, at a rate of 5 %. In each of 12 splits all is drawn anew, and 100 new groups of each kind
are scored.

* `groups_worst_ratio`: largest share of new groups that is flagged over the told rate, of all patterns;
* `groups_power_kept`: where all images are independent, share of groups moved by 1.2 spreads in one direction that is
  flagged, over the share that a bank which counts every image flags.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

import dn2
from benchmarks.embedded import write_embedded
from benchmarks.fashion import load
from dn2.config import GroupFitConfig, GroupScoreConfig
from dn2.layout import GROUPS_FILE
from dn2.store.schemas import GROUPS
from dn2.store.tables import read_table

SPLITS, NEW, RATE, DIM, MOVED = 12, 100, 0.05, 64, 1.2
Kind = tuple[int, int, float]  # units of a group, shots of a unit, how far they are apart: relative to the spread
PATTERNS: dict[str, tuple[int, Kind, tuple[Kind, ...]]] = {  # groups of the bank, their kind, and the new ones
    "six bursts of 5, jitter 0.1": (60, (6, 5, 0.1), ((1, 5, 0.1), (2, 5, 0.1), (6, 5, 0.1))),
    "six bursts of 5, jitter 0.3": (60, (6, 5, 0.3), ((1, 5, 0.3), (2, 5, 0.3), (6, 5, 0.3))),
    "six bursts of 5, jitter 0.5": (60, (6, 5, 0.5), ((1, 5, 0.5), (2, 5, 0.5), (6, 5, 0.5))),
    "thirty images": (60, (30, 1, 0.0), ((15, 2, 0.0), (10, 3, 0.0), (5, 6, 0.0), (5, 6, 0.1), (30, 1, 0.0))),
    "one burst of 5": (40, (1, 5, 0.3), ((1, 5, 0.3), (5, 1, 0.0), (10, 1, 0.0))),
    "six groups of one burst of 5": (6, (1, 5, 0.3), ((1, 5, 0.3), (5, 1, 0.0), (10, 1, 0.0))),
}
COLUMNS = pa.schema(
    [
        ("pattern", pa.string()),
        ("new", pa.string()),
        ("seed", pa.int32()),
        ("told", pa.float64()),
        ("observed", pa.float64()),
        ("effective", pa.float64()),
        ("power", pa.float64()),  # null where a pattern does not ask for it
        ("power_images", pa.float64()),
    ]
)


def measure(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures, and those of each pattern; every split is written to `groups-truth.parquet`."""
    load()
    path = folder / "groups-truth.parquet"
    todo = [(name, seed) for name in PATTERNS for seed in range(SPLITS)]
    with (
        pq.ParquetWriter(path, COLUMNS) as writer,
        ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool,
    ):
        for rows in pool.map(_split, todo):
            writer.write_table(pa.Table.from_pylist(rows, schema=COLUMNS))
    return figures_of(path)


def _split(todo: tuple[str, int]) -> list[dict[str, Any]]:
    """Return a row for each kind of new groups."""
    name, seed = todo
    count, kind, others = PATTERNS[name]
    random = np.random.default_rng([seed, 2])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = dn2.Store.open(folder)
        bank = written(store, "bank", [group(random, kind) for _ in range(count)])
        records = {
            units: dn2.fit_groups(
                bank, store, bank=units, config=GroupFitConfig(false_alarm_rate=RATE, units=units, max_rejects=0)
            )
            for units in ("auto", "images")
        }
        for number, other in enumerate(others):
            new = [group(random, other) for _ in range(NEW)]
            observed, effective = judged(store, records["auto"], written(store, f"new{number}", new))
            power = dict.fromkeys(records)
            if other[1] == kind[1] == 1:
                batch = written(store, f"moved{number}", [vectors + MOVED / np.sqrt(DIM) for vectors in new])
                power = {units: judged(store, record, batch)[0] for units, record in records.items()}
            rows.append(
                {
                    "pattern": name,
                    "new": "{} of {}, {}".format(*other),
                    "seed": seed,
                    "told": max(records["auto"].attainable_rate, RATE),
                    "observed": observed,
                    "effective": effective,
                    "power": power["auto"],
                    "power_images": power["images"],
                }
            )
    return rows


def group(random: np.random.Generator, kind: Kind) -> np.ndarray:
    """Return (units * shots, DIM) images of a group, in random order."""
    units, shots, jitter = kind
    base = np.repeat(random.standard_normal((units, DIM)), shots, axis=0)
    return random.permutation(base + jitter * random.standard_normal(base.shape))


def written(store: dn2.Store, name: str, groups: list[np.ndarray]) -> dn2.Embedded:
    """Return groups as an embedded dataset."""
    vectors = np.concatenate(groups).astype(np.float16)
    names = [f"{name}-{number}" for number, one in enumerate(groups) for _ in one]
    return write_embedded(store, name, vectors, np.zeros(len(vectors), np.uint8), names)


def judged(store: dn2.Store, bank: dn2.GroupBankVersion, batch: dn2.Embedded) -> tuple[float, float]:
    """Return the share of groups that is flagged, and what they count as on average."""
    report = dn2.score_groups(batch, store, bank=bank, config=GroupScoreConfig(report_groups=0))
    rows = read_table(store, f"{report.uri.removeprefix(f'{store.uri}/')}/{GROUPS_FILE}", GROUPS)
    effective = rows["effective"].drop_null().to_numpy()
    return report.anomalous / report.scored, float(effective.mean()) if len(effective) else np.nan


def figures_of(path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures that the file holds, and those of each pattern."""
    table = pq.read_table(path)
    patterns = {}
    for name, new in dict.fromkeys(zip(table["pattern"].to_pylist(), table["new"].to_pylist(), strict=True)):
        mine = table.filter(pc.and_(pc.equal(table["pattern"], name), pc.equal(table["new"], new)))
        mean = {column: pc.mean(mine[column]).as_py() for column in COLUMNS.names[3:]}
        patterns[f"{name}: {new}"] = mean | {"ratio": mean["observed"] / mean["told"]}
    independent = patterns["thirty images: 30 of 1, 0.0"]
    figures = {
        "groups_worst_ratio": max(one["ratio"] for one in patterns.values()),
        "groups_power_kept": independent["power"] / independent["power_images"],
    }
    return figures, {
        name: {key: round(value, 4) for key, value in one.items() if value is not None}
        for name, one in patterns.items()
    }
