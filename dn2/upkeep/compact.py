"""Merge the manifest parts of a dataset into one: no image id changes, and nothing is embedded or scored again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import groupby
from logging import getLogger
from typing import Any

from dn2 import layout
from dn2.checks import check_name
from dn2.errors import ConfigError, NotFoundError, SchemaError
from dn2.images.manifest import ManifestIndex, all_parts
from dn2.neighbors.versions import current_version, open_version
from dn2.records import Compacted, Size
from dn2.store.lock import locked
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import count_rows, iter_rows, read_config, writing
from dn2.upkeep.alike import ALL, NONE, Alike, longest_prefix
from dn2.upkeep.copies import Settings, copy_shards, found_settings
from dn2.upkeep.marks import Marks, marks_of

log = getLogger(__name__)


def compact(store: str | os.PathLike[str] | Store, *, dataset: str) -> Compacted:
    """Merge the manifest parts of a dataset, with their embedding shards and marks, into one part.

    First the shards of the merged part are written, copied row by row from those of its parts; then the marks of the
    banks that have scored all of it; the part itself last. Until then everyone sees the parts, afterwards the merged
    part, and never both. The old files stay for the runs that are under way; `prune` removes them. Merged are as many
    parts, from the oldest on, as can be without any image being embedded or scored again.

    Args:
        store: where dn2 keeps its files.
        dataset: the dataset's name.

    Returns:
        what was merged; where there is nothing to merge, nothing was written.

    Raises:
        ConfigError: the name is no valid name.
        NotFoundError: there is no such dataset.
        SchemaError: a file of the dataset, or of a bank's current version, is damaged.
        StoreError: the store cannot be read or written, or another run has been merging the dataset for an hour.
    """
    store, name = Store.open(store), check_name(dataset)
    if not all_parts(store, name).counted:
        known = ", ".join(store.names("manifests")) or "none"
        raise NotFoundError(f"dataset {name!r}: not in store {store.uri}, which has: {known}")
    with locked(store, layout.manifests(name)):
        done = _compacted(store, name)
    for note in done.notes:
        log.warning("dataset %s: %s", name, note)
    return done


def dataset_names(store: str | os.PathLike[str] | Store) -> list[str]:
    """Return the names of the datasets of a store that have a manifest part: sorted, but damaged ones last.

    Whoever merges one after the other has merged the others when a damaged one stops it. A folder with a name that no
    dataset has is passed over with a warning.

    Raises:
        StoreError: the store cannot be read.
    """
    store = Store.open(store)
    sound, damaged = [], []
    for name in store.names("manifests"):
        try:
            parts = all_parts(store, check_name(name)).counted
            for part in parts:
                count_rows(store, layout.manifest(name, part), MANIFEST)
        except ConfigError as error:
            log.warning("store %s: a folder of manifests was passed over: %s", store.uri, error)
        except SchemaError:
            damaged.append(name)
        else:
            sound += [name] if parts else []
    return [*sound, *damaged]


def _compacted(store: Store, dataset: str) -> Compacted:
    known = all_parts(store, dataset)
    parts = known.counted
    if len(parts) < 2:
        return Compacted(dataset)
    sizes = [count_rows(store, layout.manifest(dataset, part), MANIFEST) for part in parts]
    with ManifestIndex.of(store, dataset, parts) as index:
        living = [0] * len(parts)
        for number, _ in index.live_rows():
            living[number] += 1
        settings = found_settings(store, dataset, parts, sizes, index)
        marks = marks_of(store, dataset, parts)
        chosen = longest_prefix(_rules(store, marks, settings, parts, living), parts)
        if chosen.count < 2:
            return Compacted(dataset, notes=chosen.notes)
        merged = parts[: chosen.count]
        images = sum(living[: chosen.count])
        part = f"{merged[-1].partition('-')[0]}-{_digest(dataset, merged, index)}-all"
        path = layout.manifest(dataset, part)
        notes = [*chosen.notes]
        shards, size = 0, Size()
        for one in settings:
            state = one.state[: chosen.count]
            if one.covers(chosen.count):
                written, taken = copy_shards(store, dataset, merged, sizes, index, one, part, images)
                shards, size = shards + written, size + taken
            elif any(part_state > 0 for part_state in state):
                count = sum(one.images[: chosen.count])
                notes.append(
                    f"{count} images of {images} have embeddings of {one.embedder} with shard_size {one.shard_size}, "
                    f"which were left apart: they would be embedded again with these settings"
                )
        marks.write(store, merged, living, part, source=_source(store, dataset, merged[-1]))
        _write_part(store, dataset, merged, index, path, images, known.replaced)
    size += next((Size(1, file.size) for file in store.walk(layout.manifests(dataset)) if file.path == path), Size())
    log.info("dataset %s: %d manifest parts merged into %s, %d images", dataset, len(merged), part, images)
    return Compacted(dataset, part, merged, images, shards, size, tuple(notes))


def _rules(
    store: Store, marks: Marks, settings: list[Settings], parts: tuple[str, ...], living: list[int]
) -> list[Alike]:
    """Return what must be alike for all parts that are merged: by each bank, and by each embedder in use."""
    empty = [count == 0 for count in living]
    rules = [
        Alike(
            f"bank {bank!r} has scored only some of them", [[ALL if part in scored else NONE for part in parts]], empty
        )
        for bank, scored in marks.by_bank.items()
    ]
    here = {one.embedder for one in settings}
    for embedder in sorted(_embedders_in_use(store) & here or here):
        states = [one.state for one in settings if one.embedder == embedder]
        why = f"embedder {embedder} has embedded only some of them, or with different settings"
        rules.append(Alike(why, states, empty))
    return rules


def _embedders_in_use(store: Store) -> set[str]:
    """Return the embedders of all banks' current versions."""
    banks = [bank for bank in store.names("banks") if store.exists(layout.bank_pointer(bank))]
    return {open_version(store, bank, current_version(store, bank))[0].embedder for bank in banks}


def _source(store: Store, dataset: str, part: str) -> str:
    return str(read_config(store, layout.manifest(dataset, part), MANIFEST).get("source"))


def _digest(dataset: str, merged: tuple[str, ...], index: ManifestIndex) -> str:
    """Return 16 hex digits over the rows of a merged part: parts never change, so their places name them."""
    digest = hashlib.sha256(json.dumps([dataset, *merged]).encode())
    for part, row in index.live_rows():
        if part < len(merged):
            digest.update(f"{part} {row},".encode())
    return digest.hexdigest()[:16]


def _write_part(
    store: Store,
    dataset: str,
    merged: tuple[str, ...],
    index: ManifestIndex,
    path: str,
    images: int,
    replaced: dict[str, str],
) -> None:
    """Write the merged part: the living rows in the order of the parts, and in the footer what it stands for."""
    footer = read_config(store, layout.manifest(dataset, merged[-1]), MANIFEST)
    older = [one for one, by in replaced.items() if by in merged]
    replaces = [*merged, *(one for one in older if one not in merged)]
    footer |= {"images": images, "made_of": list(merged), "replaces": replaces}
    with writing(store, path, MANIFEST, footer) as file:
        for number, rows in groupby(index.live_rows(), key=lambda place: place[0]):
            if number >= len(merged):
                break
            for piece in _living(store, layout.manifest(dataset, merged[number]), (row for _, row in rows)):
                file.write(piece)


def _living(store: Store, path: str, rows: Iterator[int]) -> Iterator[dict[str, list[Any]]]:
    """Yield some rows of a manifest part, given in order, as columns."""
    first, wanted = 0, next(rows, None)
    for piece in iter_rows(store, path, MANIFEST, list(MANIFEST.columns.names)):
        count, places = len(piece["uri"]), []
        while wanted is not None and wanted < first + count:
            places.append(wanted - first)
            wanted = next(rows, None)
        if places:
            yield {name: [values[place] for place in places] for name, values in piece.items()}
        first += count
