"""What tests of ingests share: a quick source, and what a store says about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dn2
from dn2 import layout
from dn2.features.shards import plan_shards
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import read_table


def touch(folder: Path, *names: str, content: bytes = b"") -> None:
    """Write files that only look like pictures: an ingest never opens them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def part_rows(store: Store, dataset: dn2.Dataset, number: int = -1) -> list[dict[str, Any]]:
    """Rows of one manifest part, by default the last one."""
    return read_table(store, layout.manifest(dataset.name, dataset.parts[number]), MANIFEST).to_pylist()


def live_uris(store: Store, dataset: dn2.Dataset) -> list[str]:
    """URI of each row that the shards of a dataset hold, one entry for each row, sorted."""
    return sorted(
        read_table(store, layout.manifest(shard.dataset, shard.part), MANIFEST)["uri"][row].as_py()
        for shard in plan_shards(dataset, store, shard_size=3)
        for row in range(shard.start, shard.stop)
        if row - shard.start not in shard.superseded
    )


def names(dataset: dn2.Dataset, uris: list[str]) -> list[str]:
    """Paths below the source."""
    return [uri.removeprefix(f"{dataset.source}/") for uri in uris]
