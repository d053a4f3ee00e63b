"""Images drawn from a scored batch, evenly and always the same: what the whole of the batch is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2.neighbors.bank import prepared
from dn2.neighbors.segments import keys, keys_of
from dn2.records import BankVersion, Scored, ScoredShard
from dn2.scoring.rows import image_vector
from dn2.scoring.units import one_of_each, units_of
from dn2.store.schemas import EMBEDDINGS, SCORES
from dn2.store.storage import Store
from dn2.store.tables import column_vectors, read_table

_ROWS = 2_000  # images at most: enough for every difference that matters


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Images of a batch, of those that depend on each other one.

    Attributes:
        vectors: (N, D) float16, as the bank's metric has them; of an image that is cut into tiles their mean.
        scores: (N,) float32.
        p_values: (N,) float64.
        images: how many were drawn, of which these are the units.
    """

    vectors: npt.NDArray[np.float16]
    scores: npt.NDArray[np.float32]
    p_values: npt.NDArray[np.float64]
    images: int


def drawn(scored: Scored, store: Store, bank: BankVersion, *, memory_mb: int) -> Sample:
    """Return at most 2,000 images of a batch; which ones does not depend on how it is cut into shards.

    Args:
        scored: the finished scores.
        store: where dn2 keeps its files.
        bank: the version they were made with.
        memory_mb: working memory.

    Raises:
        NotFoundError: scores or embeddings are missing.
        SchemaError: they are damaged.
        StoreError: the store cannot be read.
    """
    step, seen = -(-scored.scored // _ROWS) or 1, 0
    parts = []
    for part in scored.parts:
        rows = np.arange(-seen % step, part.scored, step)
        seen += part.scored
        if len(rows):
            parts.append(_of_part(part, rows, store, bank))
    if not parts:
        empty = np.empty((0, bank.dim), np.float16)
        return Sample(empty, np.empty(0, np.float32), np.empty(0), 0)
    vectors, scores, p_values, own = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    units = one_of_each(units_of([vectors], own[:, 0], own[:, 1], memory_mb=memory_mb))
    return Sample(vectors[units], scores[units], p_values[units], len(vectors))


def _of_part(part: ScoredShard, rows: npt.NDArray[np.int64], store: Store, bank: BankVersion) -> tuple[Any, ...]:
    """Return vectors, scores, p-values, and keys of content and group, of some scored rows."""
    table = read_table(store, part.path, SCORES, ["image_id", "group_id", "score", "p_value"])
    table = table.filter(table["score"].is_valid()).take(rows)
    embedded = read_table(store, part.shard, EMBEDDINGS, ["image_id", "content_sha256", "embedding"])
    place = {name: row for row, name in enumerate(embedded["image_id"].to_pylist())}
    mine = embedded.take([place[name] for name in table["image_id"].to_pylist()])
    tiles = prepared(column_vectors(mine["embedding"])[0].reshape(-1, bank.dim), bank.metric)
    tiles = tiles.reshape(len(rows), bank.tiles, bank.dim)
    own = np.stack([keys_of(mine, ["content_sha256"])[0], keys(table["group_id"].to_pylist())], axis=1)
    return image_vector(tiles), table["score"].to_numpy(), table["p_value"].to_numpy(), own
