"""Does dn2 doubt what is beyond doubt? Twenty clean sets of different kinds, each trained with and scored.

Sets are drawn from classes 5 to 9 of Fashion-MNIST, from photographs of textures, and from distributions, 30 to 3,000
images each, some in bursts that are named as groups. A batch of other images of the same set is scored against them.

* `doubt_false_warnings`: share of the sets for which the bank or the batch is doubted, a set counting by the share of
  its draws. What a calibration is too small for (codes rate-not-kept and none-selected) is said where it is so, and
  does not count here.

Beside it, on the sets that are drawn from memory, what is planted in them: `doubt_known_found`, share of batches in
which 10 % of training images are told; `doubt_another_found`, share of batches of another class or distribution that
are told.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from skimage import data as photographs

import dn2
from benchmarks.embedded import write_embedded
from benchmarks.fashion import FOLDER, Embeddings, load
from dn2.evaluation.bricks import blocks
from dn2.evaluation.fashion import read_fashion, write_pictures
from dn2.records import BankVersion, Embedded, Report

DRAWS, MOST = 2, 300  # of each set that is not of pictures; images of a batch
PROMISES = {"rate-not-kept", "none-selected"}
Drawn = tuple[np.ndarray, list[str] | None]  # vectors, and names of groups
Draw = Callable[[np.random.Generator, int, bool], Drawn]


@cache
def fashion() -> Embeddings:
    """Return the embeddings, read once by each process."""
    return load()


def classes(*labels: int) -> Draw:
    """Return what draws images of some classes in equal shares, or of one that is none of them."""
    away = next(5 + (labels[0] - 2 + more) % 5 for more in range(5) if 5 + (labels[0] - 2 + more) % 5 not in labels)

    def draw(random: np.random.Generator, count: int, other: bool) -> Drawn:
        wanted = [away] if other else list(labels)
        mine = np.flatnonzero(np.isin(fashion().train_labels, wanted))
        return fashion().train[random.choice(mine, count, replace=False)], None

    return draw


def modes(dim: int, spreads: tuple[float, ...], shares: tuple[float, ...], freedom: float = np.inf) -> Draw:
    """Return what draws from a mixture of normal distributions, or of t distributions, or from one somewhere else."""

    def draw(random: np.random.Generator, count: int, other: bool) -> Drawn:
        centres = 4 * np.random.default_rng(7 + other).normal(size=(len(spreads), dim))
        mode = random.choice(len(spreads), count, p=shares)
        values = random.normal(size=(count, dim)) * np.array(spreads)[mode][:, None]
        if np.isfinite(freedom):
            values *= np.sqrt(freedom / random.chisquare(freedom, count))[:, None]
        return (centres[mode] + values).astype(np.float16), None

    return draw


def bursts(draw: Draw, size: int, jitter: float) -> Draw:
    """Return what draws bursts that are named: so many shots of each image, moved by a share of the images' spread."""

    def drawn(random: np.random.Generator, count: int, other: bool) -> Drawn:
        parts, _ = draw(random, -(-count // size), other)
        wide = parts.astype(np.float32)
        shots = np.repeat(wide, size, axis=0) + jitter * wide.std() * random.normal(
            size=(size * len(wide), wide.shape[1])
        )
        return shots[:count].astype(np.float16), [f"part-{row // size}" for row in range(count)]

    return drawn


def textures(name: str) -> np.ndarray:
    """Return (N, 64, 64) uint8 patches of a photograph."""
    return np.stack(list(blocks(getattr(photographs, name)()).values()))


def garments(label: int) -> np.ndarray:
    """Return (N, 28, 28) uint8 pictures of a class."""
    read = read_fashion()
    return read.train_images[read.train_labels == label][:90]


SETS: dict[str, tuple[int, Draw]] = {
    "sandals": (3000, classes(5)),
    "shirts": (1000, classes(6)),
    "sneakers": (300, classes(7)),
    "bags": (100, classes(8)),
    "boots": (30, classes(9)),
    "sandals and sneakers": (600, classes(5, 7)),
    "shirts, bags and boots": (2000, classes(6, 8, 9)),
    "bursts of sneakers": (400, bursts(classes(7), 4, 0.3)),
    "bursts of bags": (1200, bursts(classes(8), 6, 0.1)),
    "normal, 64 dimensions": (30, modes(64, (1,), (1,))),
    "normal, 16 dimensions": (300, modes(16, (1,), (1,))),
    "normal, 8 dimensions": (3000, modes(8, (1,), (1,))),
    "three modes": (900, modes(32, (1, 1, 1), (0.5, 0.3, 0.2))),
    "two modes of unequal spread": (500, modes(32, (1, 1.25), (0.8, 0.2))),
    "heavy tails": (1000, modes(32, (1,), (1,), freedom=8)),
    "bursts, normal": (200, bursts(modes(64, (1,), (1,)), 4, 0.2)),
}
PICTURES: dict[str, Callable[[], np.ndarray]] = {
    "brick": partial(textures, "brick"),
    "grass": partial(textures, "grass"),
    "gravel": partial(textures, "gravel"),
    "pictures of boots": partial(garments, 9),
}


def measure(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures, and which sets are doubted; keep every trial in a Parquet file.

    Args:
        folder: where to.
    """
    fashion()  # makes the embeddings, if they are not there yet
    todo = [(name, seed) for name in SETS for seed in range(DRAWS)] + [(name, 0) for name in PICTURES]
    with ProcessPoolExecutor(2, get_context("spawn"), partial(torch.set_num_threads, 1)) as pool:
        rows = [row for found in pool.map(trials, todo) for row in found]
    path = folder / "doubts.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return figures_of(path)


def figures_of(path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures of a file of trials, and the doubts about clean sets."""
    rows = pq.read_table(path).to_pylist()
    clean = [row for row in rows if row["planted"] == ""]
    shares = [
        np.mean([bool(row["codes"]) for row in clean if row["set"] == name]) for name in {row["set"] for row in clean}
    ]
    figures = {"doubt_false_warnings": float(np.mean(shares))}
    for planted, code in (("known", "known-images"), ("another", "another-kind")):
        mine = [row for row in rows if row["planted"] == planted]
        figures[f"doubt_{planted}_found"] = float(np.mean([code in row["codes"] for row in mine]))
    doubted = {f"{row['set']}, {row['seed']}": row["codes"] for row in clean if row["codes"]}
    return figures, {"sets": len(shares), "trials": len(rows), "doubted": doubted}


def trials(todo: tuple[str, int]) -> list[dict[str, Any]]:
    """Return a row for each batch that is scored against a set."""
    name, seed = todo
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        return _of_pictures(name, Path(folder)) if name in PICTURES else _drawn(name, seed, dn2.Store.open(folder))


def _of_pictures(name: str, folder: Path) -> list[dict[str, Any]]:
    pictures = np.random.default_rng(0).permutation(PICTURES[name]())
    normal = 2 * len(pictures) // 3
    write_pictures(folder / "normal", pictures[:normal])
    write_pictures(folder / "batch", pictures[normal:])
    store, config = dn2.Store.open(folder / "store"), dn2.EmbedConfig(backbone="efficientnet_lite0")
    embedded = [dn2.embed(dn2.ingest(folder / part, store), store, config=config) for part in ("normal", "batch")]
    bank = dn2.fit(embedded[0], store, bank="parts")
    return [_row(name, 0, "", bank, dn2.score(embedded[1], store, bank=bank))]


def _drawn(name: str, seed: int, store: dn2.Store) -> list[dict[str, Any]]:
    count, draw = SETS[name]
    batch = min(MOST, max(20, count // 3))
    random = np.random.default_rng([seed, *name.encode()])
    vectors, groups = draw(random, count + batch, False)

    def written(part: str, rows: np.ndarray, names: list[str] | None) -> Embedded:
        alone = [f"{part}-{row}" for row in range(len(rows))]  # an image of no group is a group of its own
        return write_embedded(store, part, rows, np.zeros(len(rows)), names or alone)

    bank = dn2.fit(written("normal", vectors[:count], groups and groups[:count]), store, bank="parts")
    other, other_groups = draw(random, batch, True)
    mixed = np.concatenate([vectors[count:], vectors[: batch // 10 + 1]])
    planted = {
        "": (vectors[count:], groups and groups[count:]),
        "known": (mixed, None),
        "another": (other, other_groups),
    }
    return [
        _row(name, seed, what, bank, dn2.score(written(f"batch-{what}", *found), store, bank=bank))
        for what, found in planted.items()
    ]


def _row(name: str, seed: int, planted: str, bank: BankVersion, report: Report) -> dict[str, Any]:
    codes = {doubt.code for doubt in (*bank.doubts, *report.doubts)} - PROMISES
    return {"set": name, "seed": seed, "planted": planted, "codes": sorted(codes), "images": bank.images}


if __name__ == "__main__":
    print(*measure(FOLDER), sep="\n")
