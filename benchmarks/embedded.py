"""Embeddings from memory as an embedded dataset in a store, as if `dn2.embed` had made it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

import dn2
from benchmarks.fashion import FOLDER
from dn2 import layout
from dn2.records import Dataset, Embedded, EmbeddedShard, Shard
from dn2.store.schemas import EMBEDDINGS
from dn2.store.tables import count_rows, vector_column, writing

_ROWS = 20_000  # of a shard
_PART, _SHARD = "000001-0000000000000000", "00000000"  # as dn2 names them


def write_embedded(
    store: dn2.Store, name: str, vectors: np.ndarray, labels: np.ndarray, groups: Sequence[str] | None = None
) -> Embedded:
    """Return a dataset with one image for each of the (N, D) float16 vectors; its label is told, its bytes are new.

    Args:
        store: where to, an empty one.
        name: the dataset's name.
        vectors: (N, D) float16 of EfficientNet-Lite0.
        labels: (N,) what is known of each image.
        groups: N names of the groups they belong to.
    """
    source = dn2.Store.open(FOLDER / "store")
    (embedder,) = source.names("embeddings")
    store.write(layout.probes(embedder), source.read(layout.probes(embedder)))
    first = 0 if groups is None else zlib.crc32(name.encode()) << 64  # groups of equal ids would be the same group
    for start in range(0, len(vectors), _ROWS):
        stop = min(start + _ROWS, len(vectors))
        ids = [f"{first + row:032x}" for row in range(start, stop)]
        path, rows = layout.embeddings(embedder, name, _PART, start, stop, _SHARD), stop - start
        with writing(store, path, EMBEDDINGS.with_dim(vectors.shape[1]), {}) as file:
            file.write(
                {
                    "image_id": ids,
                    "uri": [f"memory://{name}/{row}" for row in range(start, stop)],
                    "group_id": [None] * rows if groups is None else list(groups[start:stop]),
                    "label": [str(label) for label in labels[start:stop]],
                    "embedding": vector_column(vectors[start:stop], np.ones(rows, bool)),
                    "content_sha256": ids,
                    "width": np.full(rows, 28, np.int32),
                    "height": np.full(rows, 28, np.int32),
                    "size": np.zeros(rows, np.int64),
                    "reject_reason": [None] * rows,
                }
            )
    return open_embedded(store, name)


def open_embedded(store: dn2.Store, name: str) -> Embedded:
    """Return a dataset that `write_embedded` has written."""
    (embedder,) = store.names("embeddings")
    shards = []
    for file in sorted(store.names(f"embeddings/{embedder}/{name}")):
        path = f"embeddings/{embedder}/{name}/{file}"
        rows = count_rows(store, path, EMBEDDINGS)
        start = shards[-1].shard.stop if shards else 0
        shard = Shard(name, f"memory://{name}", _PART, start, start + rows)
        shards.append(EmbeddedShard(shard, path, rows, 0))
    images = sum(shard.embedded for shard in shards)
    return Embedded(Dataset(name, f"memory://{name}", (_PART,), images, added=images), embedder, tuple(shards))
