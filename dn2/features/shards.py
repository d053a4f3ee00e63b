"""Cut the manifest parts of a dataset into shards."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Sequence

from dn2 import layout
from dn2.checks import fingerprint
from dn2.images.manifest import ManifestIndex
from dn2.records import Dataset, Shard
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import count_rows


def plan_shards(
    dataset: Dataset,
    store: str | os.PathLike[str] | Store,
    *,
    shard_size: int = 2000,
    parts: Collection[str] | None = None,
) -> tuple[Shard, ...]:
    """Return the shards that hold every image of a dataset once, in manifest order.

    A shard is a slice of one part, so a new part never moves the shards of older ones. Slices without a living image
    are left out.

    Args:
        dataset: what `ingest` returned.
        store: where dn2 keeps its files.
        shard_size: rows of a slice, at most.
        parts: manifest parts whose images are wanted; by default all.

    Raises:
        NotFoundError: a manifest part is missing.
    """
    store = Store.open(store)
    sizes = [count_rows(store, layout.manifest(dataset.name, part), MANIFEST) for part in dataset.parts]
    with ManifestIndex.of(store, dataset.name, dataset.parts) as index:
        return tuple(
            Shard(dataset.name, dataset.source, dataset.parts[part], start, stop, superseded, dataset.pattern)
            for part, start, stop, superseded in slices(sizes, index.live_rows(), shard_size)
            if parts is None or dataset.parts[part] in parts
        )


def shard_path(embedder: str, dataset: str, part: str, start: int, stop: int, settings: str) -> str:
    """Return the path of an embedding shard.

    Args:
        embedder: id of the embedder.
        dataset: name of the dataset.
        part: manifest part.
        start: first row of the slice.
        stop: one past its last row.
        settings: fingerprint of those that change what a shard holds, see `EmbedConfig.shard_fingerprint`.
    """
    digits = fingerprint([dataset, part, settings], length=8)
    return layout.embeddings(embedder, dataset, part, start, stop, digits)


def slices(
    sizes: Sequence[int], live_rows: Iterable[tuple[int, int]], shard_size: int
) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
    """Yield (part, start, stop, dead rows counted from start) for each slice with a living row.

    Args:
        sizes: rows of each part.
        live_rows: (part, row) of each living row, in order.
        shard_size: rows of a slice; the last one of a part may be shorter.
    """
    for (part, number), rows in itertools.groupby(live_rows, key=lambda at: (at[0], at[1] // shard_size)):
        start = number * shard_size
        stop = min(start + shard_size, sizes[part])
        living = {row for _, row in rows}
        yield part, start, stop, tuple(row - start for row in range(start, stop) if row not in living)
