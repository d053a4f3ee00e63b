"""The images of an embedded dataset, one row each, as training and scoring take them from its shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.config import TrainingLimits
from dn2.errors import RejectedError
from dn2.records import Embedded, EmbeddedShard, Shard
from dn2.sources.pattern import Pattern, below
from dn2.store.schemas import BANK_ROWS, EMBEDDINGS, REJECTS
from dn2.store.storage import Store
from dn2.store.tables import (
    column_vectors,
    concat,
    keep_rows,
    read_table,
    reading,
    replaced,
    with_columns,
    with_constant,
    writing,
)

_ROW_COLUMNS = ["image_id", "uri", "content_sha256", "group_id", "label"]
_FROM_PATTERN = ("group_id", "label")


def check_rejects(embedded: Embedded, store: Store, config: TrainingLimits) -> None:
    """Refuse training images of which too many could not be read.

    Raises:
        RejectedError: more than the limits allow, or all; their list is written to the store first.
    """
    rejected, images = embedded.rejected, embedded.embedded + embedded.rejected
    too_many = rejected > config.max_rejects and rejected > config.max_reject_rate * images
    if not too_many and embedded.embedded:
        return
    path = layout.rejects(embedded.dataset.name, embedded.dataset.fingerprint)
    with writing(store, path, REJECTS, config.model_dump(mode="json")) as file:
        for shard in embedded.shards:
            table = living_rows(shard, store, REJECTS.columns.names)
            table = keep_rows(table, table["reject_reason"].is_valid().to_numpy())
            file.write({column: table[column].combine_chunks() for column in table.column_names})
    limit = max(config.max_rejects, int(config.max_reject_rate * images))
    expected = f"at most {limit}" if embedded.embedded else "some that can"
    raise RejectedError(
        f"training images from {embedded.dataset.source}: got {rejected} of {images} that cannot be read, expected "
        f"{expected}; see {store.uri_of(path)}; repair or leave them out"
        + (", or raise max_reject_rate or max_rejects" if embedded.embedded else "")
    )


def living_rows(shard: EmbeddedShard, store: Store, columns: Sequence[str]) -> Any:
    """Return an Arrow table of the rows of a shard that stand for an image of the dataset as it is now.

    Where the dataset has a pattern, group and label are what it makes of the URIs.

    Args:
        shard: embedded images.
        store: where the shard lies.
        columns: of EMBEDDINGS; in this order.
    """
    known = [name for name in _FROM_PATTERN if name in columns and shard.shard.pattern is not None]
    table = read_table(store, shard.path, EMBEDDINGS, [*columns, *(["uri"] if known and "uri" not in columns else [])])
    mask = np.ones(table.num_rows, bool)
    mask[list(shard.shard.superseded)] = False
    table = keep_rows(table, mask)
    if known:
        told = _told(shard.shard, table["uri"].to_pylist())
        table = replaced(table, {name: told[name] for name in known})
    return table.select(list(columns))


def _told(shard: Shard, uris: list[str]) -> dict[str, list[str | None]]:
    """Return what the pattern of a shard tells of its images: group ids and labels."""
    pattern = Pattern.parse(cast(str, shard.pattern))
    found = [pattern.match(below(uri, shard.source)) or (None, None) for uri in uris]
    return {name: [values[place] for values in found] for place, name in enumerate(_FROM_PATTERN)}


def described(embedded: Embedded) -> list[list[Any]]:
    """Return which rows of which shards the images are: what the names of all that is made of them depend on."""
    return [
        [shard.path, *shard.shard.superseded, *([] if shard.shard.pattern is None else [shard.shard.pattern])]
        for shard in embedded.shards
    ]


def image_rows(embedded: Embedded, store: Store) -> Any:
    """Return an Arrow table with one row for each embedding, in shard order."""
    tables = []
    for shard in embedded.shards:
        table = living_rows(shard, store, [*_ROW_COLUMNS, "reject_reason"])
        table = keep_rows(table, ~table["reject_reason"].is_valid().to_numpy()).select(_ROW_COLUMNS)
        tables.append(with_constant(table, "shard", shard.path))
    return concat(tables)


def tile_rows(images: Any, tiles: int) -> Any:
    """Return an Arrow table with a row for each tile of some images, one image after the other.

    Args:
        images: Arrow table of N images.
        tiles: T that an image is cut into, numbered row by row from 0; 1 for images that are whole.
    """
    count = images.num_rows
    table = images if tiles == 1 else images.take(np.repeat(np.arange(count), tiles))
    numbers = [None] * count if tiles == 1 else np.tile(np.arange(tiles), count)
    return with_columns(table, {"tile": numbers}, BANK_ROWS)


def tile_vectors(embedded: Embedded, store: Store) -> Iterator[npt.NDArray[np.float16]]:
    """Yield the embeddings of each shard, (M, T, D) float16 of M images of T tiles, in the order of `image_rows`."""
    for shard in embedded.shards:
        vectors, _ = column_vectors(living_rows(shard, store, ["embedding"])["embedding"])
        yield vectors.reshape(len(vectors), embedded.tiles, vectors.shape[1] // embedded.tiles)


def image_vectors(embedded: Embedded, store: Store) -> Iterator[npt.NDArray[np.float16]]:
    """Yield one vector for each image of each shard, (M, D) float16: of an image that is cut into tiles their mean."""
    for vectors in tile_vectors(embedded, store):
        yield image_vector(vectors)


def image_vector(tiles: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """Return (N, D) float16, one vector for each image: the mean of its (N, T, D) tiles."""
    return tiles[:, 0] if tiles.shape[1] == 1 else tiles.mean(1, dtype=np.float32).astype(np.float16)


def dim_of(embedded: Embedded, store: Store) -> int:
    """Return the length of an embedding."""
    with reading(store, embedded.shards[0].path, EMBEDDINGS) as file:
        length: int = file.schema_arrow.field("embedding").type.list_size
    return length // embedded.tiles
