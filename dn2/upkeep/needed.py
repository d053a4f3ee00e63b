"""What the versions of all banks and the finished reports of a store need, read from their own files."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from dn2 import layout
from dn2.errors import SchemaError
from dn2.layout import SUMMARY
from dn2.neighbors.versions import open_version, pointed_at, version_names
from dn2.records import BankVersion, GroupBankVersion, Scored
from dn2.store.documents import (
    GROUP_REPORT_SUMMARY,
    REPORT_SUMMARY,
    as_record,
    check_shard,
    read_document,
    schema_of,
)
from dn2.store.schema import Schema
from dn2.store.schemas import ANOMALIES, BANK_GROUPS, BANK_ROWS
from dn2.store.storage import Store
from dn2.store.tables import iter_rows


@dataclass(slots=True)
class Needed:
    """What must stay.

    Attributes:
        versions: how many versions the banks have.
        embedders: ids of those that made a version.
        cleanings: folders of the cleanings that a version names.
        shards: embedding shards, with their thumbnails, that a version's rows or a bank's anomalies name.
    """

    versions: int = 0
    embedders: set[str] = field(default_factory=set)
    cleanings: set[str] = field(default_factory=set)
    shards: set[str] = field(default_factory=set)


def needed_by_banks(store: Store, *, rows: bool = True) -> Needed:
    """Return what all versions of all banks need, the current ones and the others.

    Args:
        store: where dn2 keeps its files.
        rows: also read the rows of their segments, to know the shards.

    Raises:
        NotFoundError: a file of a version is missing.
        SchemaError: one is damaged. Then nobody can know what is needed.
        StoreError: the store cannot be read.
    """
    found = Needed()
    for bank in store.names("banks"):
        if rows and store.exists(layout.bank_anomalies(bank)):
            found.shards |= _shards_in(store, layout.bank_anomalies(bank), ANOMALIES, "shard")
        names = version_names(store, bank)
        if names:  # a damaged pointer says that something is wrong with this bank
            _check_pointer(store, bank, names)
        read: set[str] = set()
        for name in names:
            version, files = open_version(store, bank, name)
            found.versions += 1
            found.embedders.add(version.embedder)
            if isinstance(version, BankVersion) and version.cleaning is not None:
                found.cleanings.add(version.cleaning)
            if not rows:
                continue
            for segment in (*files.segments, *(files.held or ())):
                if segment not in read:
                    read.add(segment)
                    path = f"{layout.bank_segment(bank, segment)}.parquet"
                    groups = isinstance(version, GroupBankVersion)
                    schema, column = (BANK_GROUPS, "example_shards") if groups else (BANK_ROWS, "shard")
                    found.shards |= _shards_in(store, path, schema, column)
    return found


def _check_pointer(store: Store, bank: str, names: Collection[str]) -> None:
    path = layout.bank_pointer(bank)
    if store.exists(path) and pointed_at(store, bank) not in names:
        raise SchemaError(
            f"{store.uri_of(path)}: got a pointer that names no version of bank {bank!r}, expected one of: "
            f"{', '.join(names)}; repair it with dn2 bank use"
        )


def _shards_in(store: Store, path: str, schema: Schema, column: str) -> set[str]:
    found: set[str] = set()
    for rows in iter_rows(store, path, schema, [column]):
        for value in rows[column]:
            found.update(value if isinstance(value, list) else () if value is None else (value,))
    for shard in found:
        check_shard(store, shard)
    return found


def scores_of(store: Store, report: str) -> Scored | None:
    """Return the scores of which a finished report was made, and with them the shards of its pictures.

    Returns:
        None for one of groups, and for one of an older dn2, which kept no scores: nothing can be made of them anew.

    Raises:
        NotFoundError: there is no such report.
        SchemaError: its summary is damaged.
    """
    path = f"{report}/{SUMMARY}"
    groups = schema_of(store, path) == GROUP_REPORT_SUMMARY
    document = read_document(store, path, GROUP_REPORT_SUMMARY if groups else REPORT_SUMMARY, [])
    if groups or "scores" not in document:
        return None
    if not isinstance(document["scores"], dict):
        raise SchemaError(f"{store.uri_of(path)}: got scores = {document['scores']!r:.60}, expected an object")
    return as_record(Scored, document["scores"], f"{store.uri_of(path)}: scores")
