"""Embedding shards of images that never were: written with the store's own writers, read by the real steps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import dn2
from dn2 import layout
from dn2.checks import fingerprint
from dn2.records import Dataset, Embedded, EmbeddedShard, Shard
from dn2.store.schemas import CALIBRATION, EMBEDDINGS, PROBES
from dn2.store.storage import Store
from dn2.store.tables import read_table, vector_column, writing

EMBEDDER = "synthetic-0123456789ab"


def normal_vectors(count: int, *, seed: int, dim: int = 16) -> np.ndarray:
    """Return (count, dim) float16 drawn from one distribution, whatever the seed."""
    random = np.random.default_rng(seed)
    return np.abs(random.normal(1, 0.5, (count, dim))).astype(np.float16)


def mode(count: int, *, seed: int, spread: float, dim: int = 64) -> np.ndarray:
    """Return (count, dim) float64 around a random centre of length 1, at about `spread` of it."""
    random = np.random.default_rng(seed)
    center = random.normal(size=dim)
    return center / np.linalg.norm(center) + spread * random.normal(size=(count, dim)) / np.sqrt(dim)


def clusters(count: int, size: int, *, seed: int = 1000) -> np.ndarray:
    """Return (count * size, 64) float64: small tight clusters, each elsewhere."""
    return np.concatenate([mode(size, seed=seed + number, spread=0.2) for number in range(count)])


def write_probes(store: Store, vectors: np.ndarray, *, embedder: str = EMBEDDER) -> None:
    """Write the probe pictures' embeddings that a bank carries with it."""
    with writing(store, layout.probes(embedder), PROBES.with_dim(vectors.shape[1]), {}) as file:
        file.write({"picture": [b"?"] * len(vectors), "embedding": vector_column(vectors, np.ones(len(vectors), bool))})


def write_shards(
    store: Store,
    vectors: np.ndarray,
    *,
    name: str = "normal",
    contents: Sequence[str] | None = None,
    groups: Sequence[str | None] | None = None,
    labels: Sequence[str | None] | None = None,
    rejected: Sequence[int] = (),
    superseded: Sequence[int] = (),
    shard_rows: int = 2000,
    embedder: str = EMBEDDER,
) -> Embedded:
    """Write a dataset whose images have these (N, D) float16 embeddings; return its record.

    Args:
        store: where to.
        vectors: one for each image, also for those that are rejected.
        name: of the dataset.
        contents: text that is equal for copies; by default all differ.
        groups: group ids.
        labels: what is known about each image.
        rejected: images that could not be read.
        superseded: rows that stand for no image any more.
        shard_rows: rows of a shard.
        embedder: its id.
    """
    count, dim = vectors.shape
    if not store.exists(layout.probes(embedder)):
        write_probes(store, normal_vectors(4, seed=99, dim=dim), embedder=embedder)
    contents = contents or [f"{name}-{row}" for row in range(count)]
    valid = ~np.isin(np.arange(count), rejected)
    shards, part = [], f"000001-{fingerprint(name)}"
    for start in range(0, count, shard_rows):
        rows = range(start, min(start + shard_rows, count))
        gone = tuple(row - start for row in superseded if row in rows)
        path = layout.embeddings(embedder, name, part, start, rows.stop, "01234567")
        with writing(store, path, EMBEDDINGS.with_dim(dim), {}) as file:
            file.write(
                {
                    "image_id": [hashlib.sha256(f"{name}-{row}".encode()).hexdigest()[:32] for row in rows],
                    "uri": [f"file:///{name}/{row}.png" for row in rows],
                    "group_id": [groups[row] if groups else None for row in rows],
                    "label": [labels[row] if labels else None for row in rows],
                    "embedding": vector_column(vectors[rows.start : rows.stop], valid[rows.start : rows.stop]),
                    "content_sha256": [hashlib.sha256(contents[row].encode()).hexdigest() for row in rows],
                    "width": [64 for _ in rows],
                    "height": [64 for _ in rows],
                    "size": [100 for _ in rows],
                    "reject_reason": [None if valid[row] else "the file is empty" for row in rows],
                }
            )
        shard = Shard(name, f"file:///{name}", part, start, rows.stop, gone)
        living = [row for row in rows if row - start not in gone]
        embedded = int(valid[living].sum())
        shards.append(EmbeddedShard(shard, path, embedded, len(living) - embedded))
    dataset = Dataset(name, f"file:///{name}", (part,), count - len(superseded))
    return Embedded(dataset, embedder, tuple(shards))


def calibration(store: Store, record: dn2.BankVersion) -> dict[str, float]:
    """Return the calibration scores by image id."""
    table = read_table(store, f"banks/{record.name}/versions/{record.version}.calibration.parquet", CALIBRATION)
    return dict(zip(table["image_id"].to_pylist(), table["score"].to_pylist(), strict=True))


def modified(folder: Path) -> dict[Path, int]:
    """Return when each file was written; a lock is no result."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in files}
