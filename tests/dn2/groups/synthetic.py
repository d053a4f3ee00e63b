"""Groups of images that never were: mixtures of a few kinds, spread over the shards of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dn2.records import Embedded, GroupReport
from dn2.store.schemas import GROUPS, MEMBERS
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.scoring.synthetic import write_shards

DIM = 16


def images(count: int, *, seed: int, kind: int | None = None, dim: int = DIM) -> np.ndarray:
    """Return (count, dim) float16 around the centres of three kinds, drawn at random, or of one kind."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 3, count) if kind is None else np.full(count, kind)
    return (4 * np.eye(dim)[kinds] + random.normal(0, 0.5, (count, dim))).astype(np.float16)


def normal_groups(sizes: Sequence[int], *, seed: int, dim: int = DIM) -> dict[str, np.ndarray]:
    """Return groups of these sizes, all drawn from the same kinds, whatever the seed."""
    return {f"g{number:03d}": images(size, seed=1000 * seed + number, dim=dim) for number, size in enumerate(sizes)}


def write_groups(
    store: Store, groups: Mapping[str, np.ndarray], *, name: str = "normal", mixed: bool = True, **settings: Any
) -> Embedded:
    """Write the images of groups as a dataset; return its record.

    Args:
        store: where to.
        groups: (M, D) float16 images of each.
        name: of the dataset.
        mixed: in random order, so that a group lies in all shards; otherwise one group after the other.
        settings: of `write_shards`.
    """
    vectors = np.concatenate(list(groups.values()))
    names = [group for group, members in groups.items() for _ in members]
    order = np.random.default_rng(0).permutation(len(vectors)) if mixed else np.arange(len(vectors))
    return write_shards(store, vectors[order], name=name, groups=[names[row] for row in order], **settings)


def joined(first: Embedded, *others: Embedded) -> Embedded:
    """Return one dataset of the shards of several; each set of shards is a manifest part of its own."""
    parts = tuple(f"{number:06d}-part" for number in range(len(others) + 1))
    shards = [
        replace(shard, shard=replace(shard.shard, part=part, source=first.dataset.source))
        for part, one in zip(parts, (first, *others), strict=True)
        for shard in one.shards
    ]
    images = sum(one.dataset.images for one in (first, *others))
    return replace(first, dataset=replace(first.dataset, parts=parts, images=images), shards=tuple(shards))


def folder_of(report: GroupReport) -> Path:
    """Return a report's folder on this machine."""
    return Path(report.uri.removeprefix("file://"))


def groups_of(store: Store, report: GroupReport) -> list[dict[str, Any]]:
    """Return the rows of groups.parquet."""
    return read_table(store, f"{report.uri.removeprefix(store.uri + '/')}/groups.parquet", GROUPS).to_pylist()


def members_of(store: Store, report: GroupReport) -> list[dict[str, Any]]:
    """Return the rows of all part-*.parquet, in their order."""
    folder = report.uri.removeprefix(f"{store.uri}/")
    parts = [name for name in store.names(folder) if name.startswith("part-")]
    return [row for part in parts for row in read_table(store, f"{folder}/{part}", MEMBERS).to_pylist()]


def by_group(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return rows of groups by their names."""
    return {row["group_id"]: row for row in rows}
