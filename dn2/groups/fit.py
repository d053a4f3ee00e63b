"""Make a bank of normal groups, with thresholds for every size."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.checks import check_name, fingerprint
from dn2.config import GroupFitConfig
from dn2.errors import BankError
from dn2.groups.bank import group_keys, open_group_bank, open_sizes
from dn2.groups.grouping import Grouping
from dn2.groups.parts import Parts
from dn2.groups.pooling import Pooling, make_pooling
from dn2.neighbors.exact import search
from dn2.neighbors.vectors import write_vectors
from dn2.neighbors.versions import check_kind, make_current, publish
from dn2.records import BankFiles, Doubt, Embedded, GroupBankVersion, GroupCells
from dn2.scoring.rows import check_rejects, described, living_rows
from dn2.scoring.scores import mean_distance
from dn2.store.documents import GROUP_BANK_VERSION
from dn2.store.lock import locked
from dn2.store.schemas import BANK_GROUPS, GROUP_CALIBRATION
from dn2.store.storage import Store
from dn2.store.tables import writing

log = getLogger(__name__)
_EXAMPLES = 4  # images of each group that are kept to be shown


def fit_groups(
    embedded: Embedded, store: str | os.PathLike[str] | Store, *, bank: str, config: GroupFitConfig | None = None
) -> GroupBankVersion:
    """Make a version of a bank of groups from embedded groups of normal images, and make it the current one.

    Each group becomes one vector. To know what is normal for a group of any size, the groups are also cut into parts of
    many sizes, each of which is scored against the other groups (see `dn2.groups.sizes`). The same embeddings and
    settings give the same version, which is made once; one bank has one writer at a time.

    Args:
        embedded: what `embed` returned, of a source whose groups are known: by a pattern or from a table.
        store: where dn2 keeps its files.
        bank: the bank's name.
        config: pooling, neighbours, smallest group, false-alarm rate.

    Raises:
        RejectedError: too many images could not be read; their list is written to the store first.
        BankError: too few groups for k, or too many for the memory budget; or the pooling is concat and the groups
            differ in size; or the bank is one of images.
        ConfigError: no image belongs to a group.
        StoreError: the store cannot be written, or another run has been writing the same bank for an hour.
    """
    store, config = Store.open(store), config or GroupFitConfig()
    name = check_name(bank)
    check_rejects(embedded, store, config)
    with locked(store, layout.bank(name)):
        check_kind(store, name, GROUP_BANK_VERSION)
        record = _version(embedded, store, name, config)
        make_current(store, record)
    for doubt in record.doubts:
        log.warning("bank %s: %s [%s]", record.name, doubt.message, doubt.code)
    return record


def _version(embedded: Embedded, store: Store, name: str, config: GroupFitConfig) -> GroupBankVersion:
    """Return the version that these embeddings and settings make, from the store if it is there already."""
    settings = config.identity()
    version = fingerprint([name, embedded.embedder, embedded.dataset.source, described(embedded), settings])
    if store.exists(layout.bank_version(name, version)):
        return open_group_bank(store, name, version=version)
    grouping = Grouping.of(embedded, store)
    large = grouping.members >= config.min_size
    _check_groups(grouping, large, embedded.dataset.source, config)
    parts = Parts(embedded, store, grouping, large, config)
    pooling = make_pooling(embedded, store, parts.groups >= 0, config)
    vectors, part_vectors = parts.pooled(embedded, store, pooling, config)
    names = [one for one, kept in zip(grouping.group_ids, large, strict=True) if kept]
    segment = fingerprint([version])
    path, footer = layout.bank_segment(name, segment), {"embedder": embedded.embedder, **settings}
    checksum = write_vectors(store, f"{path}.npy", vectors.shape, [vectors])
    with writing(store, f"{path}.parquet", BANK_GROUPS, {**footer, "vectors_crc32": checksum}) as file:
        file.write(_group_rows(embedded, store, grouping, large))
    keys = group_keys(embedded.dataset.source, names, grouping.contents[large])
    distances = [
        _distances(one, vectors, config, keys[:, groups], keys)
        for one, groups in zip(part_vectors, parts.part_groups, strict=True)
    ]
    group_of, effective = np.concatenate(parts.part_groups), np.concatenate(parts.effective)
    with writing(store, layout.bank_calibration(name, version), GROUP_CALIBRATION, footer) as file:
        file.write(
            {
                "size": np.repeat(parts.sizes, [len(one) for one in distances]),
                "group_id": [names[group] for group in group_of],
                "distance": np.concatenate(distances),
                "effective": [None] * len(group_of) if parts.near is None else effective,
            }
        )
    store.write(layout.bank_probes(name, version), store.read(layout.probes(embedded.embedder)))
    sizes = open_sizes(store, name, version, parts.sizes, names, grouping.contents[large])
    _, attainable = sizes.thresholds(sizes.sizes, config.false_alarm_rate)
    attainable = max(attainable, 1 / (len(names) + 1))  # parts of one group are not independent
    record = GroupBankVersion(
        name=name,
        version=version,
        embedder=embedded.embedder,
        pooling=config.pooling,
        groups=len(names),
        members=int(grouping.members[large].sum()),
        dim=vectors.shape[1],
        k=config.k,
        metric=config.metric,
        min_size=config.min_size,
        sizes=parts.sizes,
        false_alarm_rate=config.false_alarm_rate,
        attainable_rate=attainable,
        small=int((~large).sum()),
        ungrouped=grouping.ungrouped,
        rejected=embedded.rejected,
        weights=embedded.weights,
        units=None if parts.near is None else parts.units,
        near=parts.near,
    )
    record = replace(record, doubts=tuple(_doubts(record)))
    cells = _write_cells(pooling, store, path)
    content = config.model_dump(mode="json")
    publish(store, record, BankFiles((segment,), config=content, cells=cells))
    return record


def _check_groups(grouping: Grouping, large: npt.NDArray[np.bool_], source: str, config: GroupFitConfig) -> None:
    if large.sum() < config.k + 1:
        raise BankError(
            f"k: got {config.k} with {large.sum()} of {len(large)} groups with {config.min_size} or more readable "
            f"images in {source}, expected at least {config.k + 1}; give more groups, or a smaller k or min_size"
        )
    if (different := len(np.unique(grouping.contents[large]))) < config.k + 1:
        raise BankError(
            f"k: got {config.k} with {different} different normal groups in {source}, expected at least "
            f"{config.k + 1}: a group is never its own neighbour; give more groups, or a smaller k"
        )
    if config.pooling == "concat" and len(names := np.unique(grouping.members[large])) > 1:
        raise BankError(
            f"pooling: got concat with groups of {names[0]} to {names[-1]} images, expected groups of one size; use "
            f"mean or histogram"
        )


def _distances(
    parts: npt.NDArray[np.float16],
    vectors: npt.NDArray[np.float16],
    config: GroupFitConfig,
    part_keys: npt.NDArray[np.int64],
    keys: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Return the distances of parts to the groups they were not cut from."""
    found = search(parts, vectors, config.k, query_keys=part_keys, bank_keys=keys, memory_mb=config.search_memory_mb)
    return mean_distance(found.distances)


def _write_cells(pooling: Pooling, store: Store, segment: str) -> GroupCells | None:
    """Write the cells of a histogram beside a segment; return what a reader needs besides."""
    if pooling.cells is None:
        return None
    checksum = write_vectors(store, layout.bank_cells(segment), pooling.cells.shape, [pooling.cells])
    return GroupCells(checksum, pooling.width, pooling.reach)


def _group_rows(embedded: Embedded, store: Store, grouping: Grouping, large: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return the columns of the segment's table: a row for each group that is kept."""
    kept = np.flatnonzero(large)
    return {
        "group_id": [grouping.group_ids[group] for group in kept],
        "label": [grouping.labels[group] for group in kept],
        "source": [embedded.dataset.source] * len(kept),
        "members": grouping.members[large],
        "content": grouping.contents[large],
        **_examples(embedded, store, grouping, large),
    }


def _examples(embedded: Embedded, store: Store, grouping: Grouping, large: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return ids and shards of the first images of each group that is kept."""
    ids: list[list[str]] = [[] for _ in grouping.group_ids]
    shards: list[list[str]] = [[] for _ in grouping.group_ids]
    for shard, groups, readable in zip(embedded.shards, grouping.group_of, grouping.readable, strict=True):
        names = None
        for row in np.flatnonzero((groups >= 0) & readable):
            if len(ids[groups[row]]) < _EXAMPLES:
                names = names or living_rows(shard, store, ["image_id"])["image_id"].to_pylist()
                ids[groups[row]].append(names[row])
                shards[groups[row]].append(shard.path)
    kept = np.flatnonzero(large)
    return {"example_ids": [ids[group] for group in kept], "example_shards": [shards[group] for group in kept]}


def _doubts(record: GroupBankVersion) -> Iterator[Doubt]:
    """Yield what the bank cannot promise, and what it leaves out."""
    if record.attainable_rate > record.false_alarm_rate:
        enough = math.ceil(1 / record.false_alarm_rate - 1e-9) - 1
        yield Doubt(
            "rate-not-kept",
            f"{record.groups} normal groups cannot promise a false-alarm rate of {record.false_alarm_rate:.2%}, only "
            f"{record.attainable_rate:.2%}; {enough} groups would do",
            {"groups": record.groups, "asked": record.false_alarm_rate, "promised": record.attainable_rate},
        )
    if record.small or record.ungrouped:
        yield Doubt(
            "left-out",
            f"left out {record.small} groups of fewer than {record.min_size} readable images, and {record.ungrouped} "
            f"images that belong to no group",
            {"groups": record.small, "images": record.ungrouped},
        )
