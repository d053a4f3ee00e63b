"""Look at what lies in a store, file by file: what is damaged is named, and the rest is told all the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dn2 import layout
from dn2.checks import check_name
from dn2.errors import ConfigError, Dn2Error, NotFoundError, StoreError
from dn2.images.manifest import number_of, part_names
from dn2.layout import SUMMARY
from dn2.neighbors.versions import current_version, open_version, version_names
from dn2.records import AnyReport, BankVersion, Cleaning, GroupReport, Report
from dn2.reports.history import past
from dn2.store.documents import (
    CLEANING_SUMMARY,
    GROUP_REPORT_SUMMARY,
    REPORT_SUMMARY,
    as_record,
    needed,
    read_document,
    schema_of,
)
from dn2.store.schemas import MANIFEST
from dn2.store.several import each
from dn2.store.storage import Store
from dn2.store.tables import read_footer
from dn2.upkeep.inventory import Inventory
from dn2.upkeep.limits import Limits
from dn2.upkeep.overview import (
    BankOverview,
    CleaningOverview,
    CleaningsOverview,
    DatasetOverview,
    EmbedderOverview,
    Overview,
    ReportOverview,
    ReportsOverview,
    VersionOverview,
)
from dn2.upkeep.prune import legible, summary
from dn2.upkeep.stale import plan

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Origin:
    """What the footer of a manifest part says of its dataset; the number of images is new."""

    source: str
    split: str | None = None
    images: int | None = None


def show(store: str | os.PathLike[str] | Store, *, newest: int = 10) -> Overview:
    """Return what lies in a store, with sizes, and what `prune` would delete but for shards of vanished images.

    Nothing is written. Of Parquet files only footers are read, unless there is something that only the rows of a bank
    can tell to be of use; of reports and cleanings the newest ones. The others are looked up, to count them and to
    know when they were written.

    Args:
        store: where dn2 keeps its files.
        newest: how many reports and past batches of each bank, and cleanings, to read.

    Raises:
        ConfigError: `newest` is negative.
        NotFoundError: nothing is there that dn2 has made.
        StoreError: the store cannot be listed.
    """
    store = Store.open(store)
    seen = Inventory.of(store)
    found = _looked(store, newest, seen)
    try:
        return replace(found, stale=summary(store, plan(store, Limits(), seen=seen, quick=True)))
    except Dn2Error as error:
        return replace(found, stale_error=legible(str(error)))


def _looked(store: Store, newest: int, seen: Inventory) -> Overview:
    """Return what lies in a store: datasets, embedders, banks with all their versions, reports and cleanings."""
    if newest < 0:
        raise ConfigError(f"newest: got {newest}, expected 0 or more reports to show")
    datasets, banks, reported = (store.names(folder) for folder in ("manifests", "banks", "reports"))
    cleaned = [name for name in store.names("cleaning") if layout.cleaning.parse(layout.cleaning(name))]
    if not (datasets or banks or reported or cleaned):
        raise NotFoundError(
            f"store {store.uri}: got nothing that dn2 has made, expected datasets, banks or reports; check --store, or "
            f"begin with dn2 train"
        )
    told = tuple(replace(_bank(store, name, newest), size=seen.size("banks", name)) for name in banks)
    return Overview(
        store.uri,
        datasets=tuple(
            replace(found, size=seen.size("manifests", name))
            for name, found in zip(datasets, each(store, lambda name: _dataset(store, name), datasets), strict=True)
        ),
        banks=told,
        reports=tuple(
            replace(found, size=seen.size("reports", name), scores=seen.size("scores", name))
            for name in reported
            if (found := _reports(store, name, newest)) is not None
        ),
        cleanings=replace(_cleanings(store, cleaned, newest), size=seen.size("cleaning")),
        embedders=tuple(_embedder(name, seen, told) for name in seen.below("embeddings")),
        size=seen.total,
    )


def _embedder(name: str, seen: Inventory, banks: Sequence[BankOverview]) -> EmbedderOverview:
    used_by = tuple(
        (bank.name, version.version)
        for bank in banks
        for version in bank.versions
        if version.made is not None and version.made.embedder == name
    )
    files = (file.path.split("/") for file in seen.files["embeddings"])
    shards = sum(path[1] == name and len(path) > 3 and not path[-1].endswith(".thumbnails.parquet") for path in files)
    return EmbedderOverview(legible(name), shards, seen.size("embeddings", name), used_by)


def _dataset(store: Store, name: str) -> DatasetOverview:
    found = DatasetOverview(legible(name))
    try:
        parts = part_names(store, check_name(name))
        found = replace(found, parts=len(parts))
        if not parts:  # its first listing has not ended
            return found
        last = layout.manifest(name, parts[-1])
        found = replace(found, changed=store.modified(last))
        footer, rows = read_footer(store, last, MANIFEST)
        origin = as_record(_Origin, footer, store.uri_of(last))
    except Dn2Error as error:
        return replace(found, error=legible(str(error)))
    images = rows if len(parts) == 1 else origin.images  # a first part has no tombstones
    if len({number_of(part) for part in parts[-2:]}) < len(parts[-2:]):
        images = None  # two listings at once, which saw different images: the next one will tell
    return replace(found, source=origin.source, split=origin.split, images=images)


def _bank(store: Store, name: str, newest: int) -> BankOverview:
    found, names = BankOverview(legible(name)), []
    try:
        names = version_names(store, check_name(name))
        if store.exists(layout.bank_pointer(name)):
            found = replace(found, current=current_version(store, name))
        found = replace(found, history=tuple(past(store, name, newest)))
    except Dn2Error as error:
        found = replace(found, error=legible(str(error)))
    versions = each(store, lambda version: _version(store, name, version, found.current), names)
    if found.current is not None and found.current not in names:
        missing = store.uri_of(layout.bank_version(name, found.current))
        found = replace(found, error=f"bank {name!r}: it points at version {found.current}, but {missing} is missing")
    versions.sort(key=lambda one: (one.written or _NEVER, one.version), reverse=True)
    known = [one.made for one in sorted(versions, key=lambda one: not one.current) if one.made is not None]
    kind = None if not known else "images" if isinstance(known[0], BankVersion) else "groups"
    return replace(found, kind=kind, versions=tuple(versions))


def _version(store: Store, bank: str, version: str, current: str | None) -> VersionOverview:
    found = VersionOverview(version, current=version == current)
    try:
        found = replace(found, written=store.modified(layout.bank_version(bank, version)))
        made, files = open_version(store, bank, version)
    except Dn2Error as error:
        return replace(found, error=legible(str(error)))
    return replace(found, parent=files.parent, made=made)


def _written(store: Store, folders: Sequence[str]) -> list[tuple[str, datetime | None]]:
    """Return the folders that are whole, and when they became so, the last one first."""

    def look(folder: str) -> tuple[str, datetime | None] | None:
        try:
            return folder, store.modified(f"{folder}/{SUMMARY}")
        except NotFoundError:
            return None
        except StoreError:  # reading it will say why
            return folder, None

    found = [one for one in each(store, look, folders) if one is not None]
    return sorted(found, key=lambda one: (one[1] or _NEVER, one[0]), reverse=True)


def _reports(store: Store, bank: str, newest: int) -> ReportsOverview | None:
    """Return the finished reports of a bank; None if there is none."""
    try:
        folders = [layout.report(bank, name) for name in store.names(layout.reports(check_name(bank)))]
        whole = _written(store, [folder for folder in folders if layout.report.parse(folder)])
    except Dn2Error as error:
        return ReportsOverview(legible(bank), error=legible(str(error)))
    if not whole:
        return None
    return ReportsOverview(bank, len(whole), tuple(each(store, lambda one: _report(store, *one), whole[:newest])))


def _report(store: Store, folder: str, written: datetime | None) -> ReportOverview:
    found, path = ReportOverview(store.uri_of(folder), written), f"{folder}/{SUMMARY}"
    made: AnyReport
    try:
        groups = schema_of(store, path) == GROUP_REPORT_SUMMARY
        kind: type[Report] | type[GroupReport] = GroupReport if groups else Report
        document = read_document(store, path, GROUP_REPORT_SUMMARY if groups else REPORT_SUMMARY, needed(kind))
        made = as_record(kind, {**document, "uri": found.uri, "worst": ()}, store.uri_of(path))
    except Dn2Error as error:
        return replace(found, error=legible(str(error)))
    return replace(found, made=made)


def _cleanings(store: Store, names: Sequence[str], newest: int) -> CleaningsOverview:
    whole = _written(store, [layout.cleaning(name) for name in names])
    return CleaningsOverview(len(whole), tuple(each(store, lambda one: _cleaning(store, *one), whole[:newest])))


def _cleaning(store: Store, folder: str, written: datetime | None) -> CleaningOverview:
    found, path = CleaningOverview(store.uri_of(folder), written), f"{folder}/{SUMMARY}"
    try:
        document = read_document(store, path, CLEANING_SUMMARY, needed(Cleaning))
        made = as_record(Cleaning, {**document, "uri": found.uri}, store.uri_of(path))
    except Dn2Error as error:
        return replace(found, error=legible(str(error)))
    return replace(found, made=made)
