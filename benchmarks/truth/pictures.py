"""Embeddings of pictures that never were, as datasets of a store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

import dn2
from dn2 import layout
from dn2.checks import fingerprint
from dn2.records import Dataset, Embedded, EmbeddedShard, Shard
from dn2.store.schemas import EMBEDDINGS, PROBES
from dn2.store.tables import vector_column, writing

_EMBEDDER = "synthetic-0123456789ab"


def write_pictures(store: dn2.Store, name: str, vectors: np.ndarray, contents: Sequence[str] | None = None) -> Embedded:
    """Return a dataset with one picture for each of the (N, D) float16 vectors, embedded in one shard.

    Args:
        store: where to.
        name: of the dataset.
        vectors: (N, D) float16.
        contents: what stands for their bytes; by default all differ.
    """
    count, part = len(vectors), f"000001-{fingerprint(name)}"
    if not store.exists(layout.probes(_EMBEDDER)):
        with writing(store, layout.probes(_EMBEDDER), PROBES.with_dim(vectors.shape[1]), {}) as file:
            file.write({"picture": [b"?"], "embedding": vector_column(vectors[:1], np.ones(1, bool))})
    names = [f"{name}-{row}" for row in range(count)]
    path = layout.embeddings(_EMBEDDER, name, part, 0, count, "01234567")
    with writing(store, path, EMBEDDINGS.with_dim(vectors.shape[1]), {}) as file:
        file.write(
            {
                "image_id": [hashlib.sha256(one.encode()).hexdigest()[:32] for one in names],
                "uri": [f"memory://{one}" for one in names],
                "group_id": [None] * count,
                "label": [None] * count,
                "embedding": vector_column(vectors, np.ones(count, bool)),
                "content_sha256": [hashlib.sha256(one.encode()).hexdigest() for one in contents or names],
                "width": [224] * count,
                "height": [224] * count,
                "size": [0] * count,
                "reject_reason": [None] * count,
            }
        )
    shards = (EmbeddedShard(Shard(name, f"memory://{name}", part, 0, count), path, count, 0),)
    return Embedded(Dataset(name, f"memory://{name}", (part,), count), _EMBEDDER, shards)
