"""What of a dataset is scored against a bank: one mark for each manifest part, written when its report is told."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dn2 import layout
from dn2.errors import NotFoundError
from dn2.images.manifest import is_merged, made_of
from dn2.records import AnyBank, AnyReport, Dataset
from dn2.store.documents import WATERMARK, write_document
from dn2.store.storage import Store


def unscored(
    dataset: Dataset,
    store: str | os.PathLike[str] | Store,
    *,
    bank: AnyBank,
    rescore: bool = False,
) -> tuple[str, ...]:
    """Return the manifest parts of a dataset that the bank has not scored yet, oldest first.

    Args:
        dataset: what `ingest` returned.
        store: where dn2 keeps its files.
        bank: the version that would score them.
        rescore: parts that only other versions of the bank have scored count as not scored.

    Raises:
        StoreError: the store cannot be read.
    """
    store = Store.open(store)
    marks = marks_in(store, bank.name, dataset.name)
    scored = {part for part, version in marks if not rescore or version == bank.version}
    return tuple(part for part in dataset.parts if not is_scored(store, dataset.name, part, scored))


def marks_in(store: Store, bank: str, dataset: str) -> set[tuple[str, str]]:
    """Return the marks of a dataset and a bank: each a manifest part, and a version that has scored it.

    Raises:
        StoreError: the store cannot be read.
    """
    folder = layout.watermarks(bank, dataset)
    known = (layout.watermark.parse(f"{folder}/{name}") for name in store.names(folder))
    return {(one["part"], one["version"]) for one in known if one}


def is_scored(store: Store, dataset: str, part: str, scored: set[str]) -> bool:
    """Return whether a part is marked, or was made while all the parts that it is made of were being scored.

    Args:
        store: where dn2 keeps its files.
        dataset: name of the dataset.
        part: one of its manifest parts. A merged one that is not there any more is scored only if it is marked.
        scored: the parts that are marked.

    Raises:
        SchemaError: a merged part is damaged.
        StoreError: the store cannot be read.
    """
    if part in scored or not is_merged(part):
        return part in scored
    try:
        below = made_of(store, dataset, part)
    except NotFoundError:  # merged once more, and pruned
        return False
    return all(is_scored(store, dataset, one, scored) for one in below)


def mark(
    dataset: Dataset,
    store: str | os.PathLike[str] | Store,
    *,
    bank: AnyBank,
    parts: Iterable[str],
    report: AnyReport | None,
) -> None:
    """Write down that a version of the bank has scored some manifest parts.

    A mark is one small file that nobody ever changes: two runs at once that score the same parts write the same marks,
    and neither can undo the other's.

    Args:
        dataset: the dataset the parts belong to.
        store: where dn2 keeps its files.
        bank: the version that scored them.
        parts: names of the parts.
        report: their report; None if they held no image (only tombstones).

    Raises:
        StoreError: the store cannot be written.
    """
    store = Store.open(store)
    for part in parts:
        content = {
            "bank": bank.name,
            "version": bank.version,
            "dataset": dataset.name,
            "source": dataset.source,
            "part": part,
            "report": report.uri.removeprefix(f"{store.uri}/") if report else None,
        }
        write_document(store, layout.watermark(bank.name, dataset.name, part, bank.version), WATERMARK, content)
