"""List a source once and write down what is new, what changed and what is gone."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from logging import getLogger
from typing import Any

from dn2.config import check_name
from dn2.errors import ConfigError, EmptySourceError, SourceError
from dn2.images.manifest import ManifestIndex, part_names
from dn2.images.source import SUFFIXES, ListedFile, Source
from dn2.progress import advance
from dn2.records import Dataset
from dn2.store import layout
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import ROW_GROUP, read_config, writing

log = getLogger(__name__)


def ingest(
    source: str | os.PathLike[str], store: str | os.PathLike[str] | Store, *, dataset: str | None = None
) -> Dataset:
    """Bring a dataset's manifest up to date with its source.

    Writes one immutable manifest part with the new and changed images and a tombstone for each vanished one; a source
    that did not change writes nothing. The listing is streamed through a temporary file: memory does not grow with it.

    Args:
        source: folder or fsspec URL with images (.jpg, .jpeg, .png), searched recursively.
        store: where dn2 keeps its files.
        dataset: name of the dataset; by default derived from the source's URI.

    Returns:
        the dataset as it is now.

    Raises:
        NotFoundError: there is no such source.
        EmptySourceError: it holds no image.
        SourceError: it cannot be listed, or two of its images have the same URI.
        ConfigError: the name is no valid name, or belongs to a dataset of another source.
        StoreError: the store cannot be written.
    """
    opened, store = Source.open(source), Store.open(store)
    name = opened.default_name if dataset is None else check_name(dataset)
    parts = part_names(store, name)
    _check_source(store, name, parts, opened.uri)
    with ManifestIndex.of(store, name, parts) as index:
        seen = [0]
        images = index.find(_counted(opened.walk(without=store.uri), seen))
        if seen[0] > images:
            raise SourceError(
                f"source {opened.uri}: got {seen[0]} images with {images} different URIs: names that are not UTF-8 are "
                f"written like names that other images have; rename them"
            )
        if not images:
            raise EmptySourceError(
                f"source {opened.uri}: got no image ({opened.ignored} other files), "
                f"expected files named {', '.join('*' + suffix for suffix in SUFFIXES)} in it or below it"
            )
        counts, digest = _summary(index)
        if any(counts.values()):
            number = max((int(part.partition("-")[0]) for part in parts), default=0) + 1
            part = f"{number:06d}-{digest}"
            with writing(store, layout.manifest(name, part), MANIFEST, {"dataset": name, "source": opened.uri}) as file:
                for rows in _batches(_changes(index)):
                    file.write(rows)
            parts = (*parts, part)
    log.info("dataset %s: %d images in %s; %s", name, images, opened.uri, _in_words(counts))
    return Dataset(name, opened.uri, parts, images, ignored=opened.ignored, **counts)


def _in_words(counts: dict[str, int]) -> str:
    if not any(counts.values()):
        return "nothing changed, nothing written"
    return ", ".join(f"{number} {what}" for what, number in counts.items())


def _check_source(store: Store, name: str, parts: tuple[str, ...], uri: str) -> None:
    if not parts:
        return
    known = read_config(store, layout.manifest(name, parts[-1]), MANIFEST)["source"]
    if known != uri:
        raise ConfigError(
            f"dataset {name!r} in {store.uri}: got source {uri}, expected {known}; "
            f"choose another dataset name for another source"
        )


def _counted(files: Iterator[ListedFile], seen: list[int]) -> Iterator[ListedFile]:
    for file in files:
        seen[0] += 1
        advance("ingest", 1)
        yield file


def _changes(index: ManifestIndex) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the next part in a fixed order, each with the kind of change it stands for."""
    for file, identity, was_known in index.new_or_changed():
        row = _row(identity, file.uri, file.version, file.size, present=True)
        yield "changed" if was_known else "added", row
    for uri, identity in index.vanished():
        yield "vanished", _row(identity, uri, "", 0, present=False)


def _row(identity: str, uri: str, version: str, size: int, *, present: bool) -> dict[str, Any]:
    row = {"image_id": identity, "uri": uri, "version": version, "size": size, "present": present}
    return {**row, "group_id": None, "label": None}


def _summary(index: ManifestIndex) -> tuple[dict[str, int], str]:
    """Count the changes by kind, and return 16 hex digits that name them: the same changes get the same name."""
    counts = {"added": 0, "changed": 0, "vanished": 0}
    digest = hashlib.sha256()
    for kind, row in _changes(index):
        counts[kind] += 1
        digest.update(f"{row['image_id']}{row['present']:d}".encode())
    return counts, digest.hexdigest()[:16]


def _batches(changes: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[dict[str, list[Any]]]:
    """Yield the rows as columns, at most ROW_GROUP rows at a time."""
    while batch := [row for _, row in itertools.islice(changes, ROW_GROUP)]:
        yield {name: [row[name] for row in batch] for name in batch[0]}
