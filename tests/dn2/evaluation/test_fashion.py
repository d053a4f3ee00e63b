from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dn2
from dn2.config import EmbedConfig
from dn2.evaluation.fashion import Fashion, read_fashion, write_pictures
from dn2.evaluation.metrics import roc_auc
from dn2.neighbors.exact import search
from dn2.scoring.scores import mean_distance
from dn2.store.schemas import EMBEDDINGS
from dn2.store.storage import Store
from dn2.store.tables import column_vectors, read_table

PER_CLASS, TEST = 250, 1000
MEAN = 93.14
BY_CLASS = [89.77, 99.55, 90.09, 88.86, 89.34, 97.26, 82.59, 98.26, 97.92, 97.78]


@pytest.fixture(scope="module")
def areas(fashion: Fashion, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """DN2's protocol on real data: each class in turn is normal, k = 2, squared L2; ROC AUC by class, in percent.

    The bank of a class are its first 250 training images; the first 1,000 test images are scored.
    """
    folder = tmp_path_factory.mktemp("fashion")
    first = [np.flatnonzero(fashion.train_labels == label)[:PER_CLASS] for label in range(10)]
    bank = embed(folder / "train", fashion.train_images[np.concatenate(first)])
    batch = embed(folder / "test", fashion.test_images[:TEST])
    found = []
    for label in range(10):
        nearest = search(batch, bank[label * PER_CLASS : (label + 1) * PER_CLASS], 2)
        found.append(100 * roc_auc(mean_distance(nearest.distances), fashion.test_labels[:TEST] != label))
    print(f"ROC AUC {np.mean(found):.3f}, by class {[round(area, 2) for area in found]}")
    return found


def embed(folder: Path, images: np.ndarray) -> np.ndarray:
    """Take pictures the whole way: files, manifest, several shards, and back in their order."""
    write_pictures(folder, images)
    store = folder.with_name(f"{folder.name}-store")
    done = dn2.embed(
        dn2.ingest(folder, store), store, config=EmbedConfig(backbone="efficientnet_lite0", shard_size=900)
    )
    tables = [read_table(Store.open(store), shard.path, EMBEDDINGS, ["uri", "embedding"]) for shard in done.shards]
    uris = [uri for table in tables for uri in table["uri"].to_pylist()]
    assert uris == [f"file://{folder}/{number:05d}.png" for number in range(len(images))]
    return np.concatenate([column_vectors(table["embedding"])[0] for table in tables])


@pytest.mark.slow
def test_mean_is_that_of_the_reference(areas: list[float]):
    """Those figures come from a second implementation: torch, torchvision's resizing, scikit-learn's neighbours."""
    assert np.mean(areas) == pytest.approx(MEAN, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("label", range(10))
def test_class_against_the_rest_is_as_good_as_the_reference(areas: list[float], label: int):
    assert areas[label] == pytest.approx(BY_CLASS[label], abs=0.3)


def test_sizes_and_classes_are_those_that_were_published(fashion: Fashion):
    assert (fashion.train_images.shape, fashion.test_images.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert np.bincount(fashion.train_labels).tolist() == [6000] * 10
    assert np.bincount(fashion.test_labels).tolist() == [1000] * 10


def test_missing_file_names_the_package_that_holds_it(tmp_path: Path):
    message = "train-images-idx3-ubyte.gz: nothing is there, .*; install Debian's package dataset-fashion-mnist"
    with pytest.raises(dn2.NotFoundError, match=message):
        read_fashion(tmp_path)
