"""All of Fashion-MNIST as EfficientNet-Lite0 embeddings: made by dn2 the first time, read from its store afterwards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dn2
from dn2.config import EmbedConfig
from dn2.evaluation.fashion import read_fashion, write_pictures
from dn2.features.embed import embedder_id
from dn2.store.schemas import EMBEDDINGS
from dn2.store.tables import column_vectors, read_table

FOLDER = Path(os.environ.get("DN2_BENCH_DIR", "dn2-bench")).absolute()  # pictures and store: 400 MB


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings and classes, in the data set's order.

    Attributes:
        train: (60000, 1280) float16.
        train_labels: (60000,) uint8.
        test: (10000, 1280) float16.
        test_labels: (10000,) uint8.
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def load() -> Embeddings:
    """Return the embeddings; the first time this takes about seven minutes on two cores."""
    pictures = read_fashion()
    return Embeddings(
        _embedded("train", pictures.train_images),
        pictures.train_labels,
        _embedded("test", pictures.test_images),
        pictures.test_labels,
    )


def _embedded(part: str, images: np.ndarray) -> np.ndarray:
    config = EmbedConfig(backbone="efficientnet_lite0", crop="center")
    kept = FOLDER / f"{part}-{embedder_id(config)}.npy"  # a listing of 60,000 pictures takes ten seconds
    if not kept.exists():
        _keep(kept, part, images, config)
    return np.load(kept)


def _keep(kept: Path, part: str, images: np.ndarray, config: EmbedConfig) -> None:
    folder, store = FOLDER / part, FOLDER / "store"
    if not (folder / f"{len(images) - 1:05d}.png").exists():  # the last one
        write_pictures(folder, images)
    done = dn2.embed(dn2.ingest(folder, store), store, config=config)
    if done.embedded != len(images):
        raise SystemExit(f"{FOLDER}: got {done.embedded} embeddings of {len(images)} pictures; remove it, begin again")
    tables = [read_table(dn2.Store.open(store), one.path, EMBEDDINGS, ["uri", "embedding"]) for one in done.shards]
    uris = [uri.rpartition("/")[2] for table in tables for uri in table["uri"].to_pylist()]
    vectors = np.concatenate([column_vectors(table["embedding"])[0] for table in tables])[np.argsort(uris)]
    written = kept.with_name(f"{kept.name}.{os.getpid()}.npy")
    np.save(written, vectors)
    written.replace(kept)
