"""List a source once and write down what is new, what changed and what is gone."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from logging import getLogger
from typing import Any

from dn2 import layout
from dn2.checks import check_name
from dn2.errors import ConfigError, EmptySourceError
from dn2.images.manifest import ManifestIndex, number_of, part_names
from dn2.progress import advance
from dn2.records import Dataset
from dn2.sources.opening import open_source
from dn2.sources.pattern import Pattern, below
from dn2.sources.source import ListedFile, Source
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import ROW_GROUP, read_config, writing

log = getLogger(__name__)


@dataclass(slots=True)
class _Seen:
    """What is counted while a listing streams by.

    Attributes:
        files: images listed.
        ungrouped: those that the pattern does not fit.
        example: path of one of them.
    """

    files: int = 0
    ungrouped: int = 0
    example: str = ""


def ingest(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str] | Store,
    *,
    dataset: str | None = None,
    pattern: str | None = None,
    split: str | None = None,
) -> Dataset:
    """Bring a dataset's manifest up to date with its source.

    Writes one immutable manifest part with the new and changed images and a tombstone for each vanished one; a source
    that did not change writes nothing. The listing is streamed through a temporary file: memory does not grow with it.

    Args:
        source: where the images are, see `dn2.sources.opening.source_words`; folders are searched recursively.
        store: where dn2 keeps its files.
        dataset: name of the dataset; by default derived from the source's URI.
        pattern: what the paths below the source say about group and label, see `dn2.sources.pattern`. It is not written
            down: another one changes nothing but how the images are read from now on.
        split: only the rows of a table whose column `split` has this value.

    Returns:
        the dataset as it is now.

    Raises:
        NotFoundError: there is no such source.
        EmptySourceError: it holds no image.
        SourceError: it cannot be listed, or two of its images have the same URI.
        ConfigError: the name is no valid name, or belongs to a dataset of another source; the pattern is none, or fits
            no image; a file of images or the table is none, or says two things about one image.
        StoreError: the store cannot be written.
    """
    expected = None if pattern is None else Pattern.parse(pattern)
    opened, store = open_source(source, split=split), Store.open(store)
    if expected is not None and not opened.takes_pattern:
        raise ConfigError(
            f"source {opened.uri}: got the pattern {pattern!r} with a {opened.noun}, expected groups "
            f"and labels in its {opened.tells}; leave the pattern out"
        )
    name = opened.default_name if dataset is None else check_name(dataset)
    parts = part_names(store, name)
    origin = {"source": opened.uri} if split is None else {"source": opened.uri, "split": split}
    _check_origin(store, name, parts, origin)
    with ManifestIndex.of(store, name, parts) as index:
        seen = _Seen()
        images = index.find(_counted(opened.walk(without=store.uri), opened.uri, expected, seen))
        _check_listing(opened, index, images, pattern, seen)
        counts, digest = _summary(index)
        if any(counts.values()):
            number = max((number_of(part) for part in parts), default=0) + 1
            part = f"{number:06d}-{digest}"
            footer = {"dataset": name, **origin, "images": images}
            with writing(store, layout.manifest(name, part), MANIFEST, footer) as file:
                for rows in _batches(_changes(index)):
                    file.write(rows)
            parts = (*parts, part)
    log.info("dataset %s: %d images in %s; %s", name, images, opened.uri, _in_words(counts))
    if seen.ungrouped:
        log.warning(
            "dataset %s: %d of %d images fit no group: the pattern %r does not match, for example, %r",
            name,
            seen.ungrouped,
            images,
            pattern,
            seen.example,
        )
    return Dataset(
        name,
        opened.uri,
        parts,
        images,
        ignored=opened.ignored,
        pattern=pattern,
        ungrouped=seen.ungrouped,
        **counts,
    )


def _in_words(counts: dict[str, int]) -> str:
    if not any(counts.values()):
        return "nothing changed, nothing written"
    return ", ".join(f"{number} {what}" for what, number in counts.items())


def _check_origin(store: Store, name: str, parts: tuple[str, ...], origin: dict[str, str]) -> None:
    """Refuse the name of a dataset that was made from another source, or from another split of the same table."""
    if not parts:
        return
    known = read_config(store, layout.manifest(name, parts[-1]), MANIFEST)
    got, expected = (_origin_in_words(one) for one in (origin, known))
    if got != expected:
        raise ConfigError(
            f"dataset {name!r} in {store.uri}: got source {got}, expected {expected}; "
            f"choose another dataset name for another source"
        )


def _origin_in_words(origin: dict[str, Any]) -> str:
    split = origin.get("split")
    return str(origin["source"]) if split is None else f"{origin['source']} with split {split!r}"


def _counted(files: Iterator[ListedFile], source: str, pattern: Pattern | None, seen: _Seen) -> Iterator[ListedFile]:
    for file in files:
        seen.files += 1
        if pattern is not None and pattern.match(below(file.uri, source)) is None:
            seen.ungrouped += 1
            seen.example = seen.example or below(file.uri, source)
        advance("ingest", 1)
        yield file


def _check_listing(opened: Source, index: ManifestIndex, images: int, pattern: str | None, seen: _Seen) -> None:
    """Refuse a listing that says two things about one image, or that says nothing."""
    if seen.files > images:
        _check_twice(opened, index)
    if not images:
        raise EmptySourceError(
            f"source {opened.uri}: got no image ({opened.ignored} other files), expected {opened.expected}"
        )
    if seen.ungrouped == seen.files and pattern is not None:
        raise ConfigError(
            f"source {opened.uri}: got the pattern {pattern!r}, which fits no image there, expected one that fits "
            f"paths such as {seen.example!r}"
        )


def _check_twice(opened: Source, index: ManifestIndex) -> None:
    uri = index.twice()
    wrong = None if uri is None else opened.twice(uri)
    if wrong is not None:
        raise wrong
    clash = index.clash()
    if clash is not None:
        uri, *both = clash
        first, second = (f"group_id {group_id!r} and label {label!r}" for group_id, label in both)
        raise ConfigError(
            f"table {opened.uri}: got {uri} with {first}, and again with {second}: expected one row for each image"
        )


def _changes(index: ManifestIndex) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the next part in a fixed order, each with the kind of change it stands for."""
    for file, identity, was_known in index.new_or_changed():
        yield "changed" if was_known else "added", _row(identity, file, present=True)
    for uri, identity in index.vanished():
        yield "vanished", _row(identity, ListedFile(uri, "", 0), present=False)


def _row(identity: str, file: ListedFile, *, present: bool) -> dict[str, Any]:
    row = {"image_id": identity, "uri": file.uri, "version": file.version, "size": file.size, "present": present}
    return {**row, "group_id": file.group_id, "label": file.label}


def _summary(index: ManifestIndex) -> tuple[dict[str, int], str]:
    """Count the changes by kind, and return 16 hex digits that name them: the same changes get the same name."""
    counts = {"added": 0, "changed": 0, "vanished": 0}
    digest = hashlib.sha256()
    for kind, row in _changes(index):
        counts[kind] += 1
        digest.update(f"{row['image_id']}{row['present']:d}".encode())
        known = [row["group_id"], row["label"]]
        if known != [None, None]:
            digest.update(json.dumps(known).encode())
    return counts, digest.hexdigest()[:16]


def _batches(changes: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[dict[str, list[Any]]]:
    """Yield the rows as columns, at most ROW_GROUP rows at a time."""
    while batch := [row for _, row in itertools.islice(changes, ROW_GROUP)]:
        yield {name: [row[name] for row in batch] for name in batch[0]}
