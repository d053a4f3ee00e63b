"""The versions of a bank: immutable files, and a pointer that names the current one."""

from __future__ import annotations

import os
import re
from dataclasses import MISSING, asdict, fields
from logging import getLogger
from typing import Any

from dn2.config import check_name
from dn2.errors import BankError, ConfigError, NotFoundError, SchemaError
from dn2.neighbors.index import EXACT, index_of
from dn2.records import BankVersion, GroupBankVersion
from dn2.store import layout
from dn2.store.documents import (
    BANK_POINTER,
    BANK_VERSION,
    GROUP_BANK_VERSION,
    as_record,
    read_document,
    schema_of,
    write_document,
)
from dn2.store.lock import locked
from dn2.store.schemas import BANK_ROWS
from dn2.store.storage import Store
from dn2.store.tables import read_config

log = getLogger(__name__)
_NEEDED = {
    BANK_VERSION: [
        "segments",
        *(field.name for field in fields(BankVersion) if field.default is MISSING),
    ],  # others are new
    GROUP_BANK_VERSION: ["segments", "cells", *(field.name for field in fields(GroupBankVersion))],
}
_VERSION = re.compile(r"([0-9a-f]{16})\.json")
_KINDS = {
    BANK_VERSION: "a bank of images (of dn2 train, for dn2 score)",
    GROUP_BANK_VERSION: "a bank of groups (of dn2 train-groups, for dn2 score-groups)",
}


def open_bank(store: str | os.PathLike[str] | Store, name: str, *, version: str | None = None) -> BankVersion:
    """Return a version of a bank, by default the current one.

    Raises:
        ConfigError: the name is no valid name.
        NotFoundError: there is no such bank or version in the store.
        SchemaError: its pointer or version file is not one.
    """
    store, name = Store.open(store), check_name(name)
    version = version or current_version(store, name)
    document = read_version(store, name, version)
    return as_record(BankVersion, document, store.uri_of(layout.bank_version(name, version)))


def current_version(store: Store, name: str) -> str:
    """Return the version that a bank points at.

    Raises:
        NotFoundError: there is no such bank in the store.
        SchemaError: its pointer is not one.
    """
    version = _current(store, name)
    if version is None:
        raise _no_bank(store, name)
    return version


def _no_bank(store: Store, name: str) -> NotFoundError:
    banks = store.names("banks")  # one whose first training did not end has no pointer yet
    names = ", ".join(bank for bank in banks if store.exists(layout.bank_pointer(bank))) or "none"
    return NotFoundError(
        f"bank {name!r}: not in store {store.uri}, which has: {names}; make it with dn2 train or dn2 train-groups"
    )


def read_version(store: Store, name: str, version: str, kind: str = BANK_VERSION) -> dict[str, Any]:
    """Return the version file of a bank of images or of groups.

    Raises:
        BankError: the bank is of the other kind.
        NotFoundError: there is no such version.
        SchemaError: the file is not one.
    """
    path = layout.bank_version(name, version)
    got = schema_of(store, path)
    if got != kind and got in _KINDS:
        raise BankError(f"bank {name!r}: got {_KINDS[got]}, expected {_KINDS[kind]}; choose another bank")
    return _read(store, name, version, kind)


def _read(store: Store, name: str, version: str, kind: str) -> dict[str, Any]:
    path = layout.bank_version(name, version)
    document = read_document(store, path, kind, _NEEDED[kind])
    if (document["name"], document["version"]) != (name, version):
        raise SchemaError(
            f"{store.uri_of(path)}: got bank {document['name']!r} version {document['version']!r}, "
            f"expected {name!r} version {version!r}"
        )
    return document


def version_names(store: Store, name: str) -> list[str]:
    """Return the versions of a bank that are whole, sorted; an unknown bank has none."""
    return [found[1] for file in store.names(layout.bank_versions(name)) if (found := _VERSION.fullmatch(file))]


def open_version(store: Store, name: str, version: str) -> tuple[BankVersion | GroupBankVersion, dict[str, Any]]:
    """Return a version of a bank of images or of groups, and all that its file says.

    Raises:
        NotFoundError: there is no such version.
        SchemaError: its file is not one.
    """
    path = layout.bank_version(name, version)
    uri = store.uri_of(path)
    if schema_of(store, path) == GROUP_BANK_VERSION:
        document = _read(store, name, version, GROUP_BANK_VERSION)
        return as_record(GroupBankVersion, document, uri), document
    document = _read(store, name, version, BANK_VERSION)
    return as_record(BankVersion, document, uri), document


def check_kind(store: Store, name: str, kind: str) -> None:
    """Refuse to make a bank of groups out of one of images, or the other way round.

    Raises:
        BankError: a bank of this name is of the other kind.
    """
    version = _current(store, name)
    if version is not None:
        read_version(store, name, version, kind)


def publish(
    store: Store,
    record: BankVersion | GroupBankVersion,
    *,
    segments: list[str],
    config: dict[str, Any],
    kind: str = BANK_VERSION,
    **more: Any,
) -> None:
    """Write a version file; everything it names must be in the store already.

    Args:
        store: where to.
        record: the version.
        segments: names of its segments.
        config: settings it was made with.
        kind: a bank of images or of groups.
        more: further fields of the file.

    Raises:
        StoreError: the store cannot be written.
    """
    content = {"parent": _current(store, record.name), **asdict(record), "segments": segments, "config": config, **more}
    write_document(store, layout.bank_version(record.name, record.version), kind, content)


def make_current(store: Store, record: BankVersion | GroupBankVersion) -> None:
    """Point a bank at one of its versions.

    Raises:
        StoreError: the store cannot be written.
    """
    if _current(store, record.name) != record.version:
        _point_at(store, record)


def _point_at(store: Store, record: BankVersion | GroupBankVersion) -> None:
    write_document(store, layout.bank_pointer(record.name), BANK_POINTER, {"version": record.version})


def use_version(store: str | os.PathLike[str] | Store, bank: str, version: str) -> BankVersion | GroupBankVersion:
    """Make a version of a bank, of images or of groups, the current one again; return it.

    Only the pointer is written, and not even that if it names the version already. A pointer that is damaged or gone
    is mended.

    Args:
        store: where dn2 keeps its files.
        bank: the bank's name.
        version: the version's name, or how it begins: four characters or more, as many as tell it from the others.

    Raises:
        ConfigError: the bank's name is none, or the version could be none or several of those there are.
        NotFoundError: there is no such bank or version, or a file of the version is missing.
        SchemaError: the version's file is damaged.
        StoreError: the store cannot be written, or another run has been writing the same bank for an hour.
    """
    store, name = Store.open(store), check_name(bank)
    chosen = _the_one(store, name, version)
    with locked(store, layout.bank(name)):
        record, document = open_version(store, name, chosen)
        _check_whole(store, record, document)
        if pointed_at(store, name) == chosen:
            log.info("bank %s: version %s is the current one already", name, chosen)
        else:
            _point_at(store, record)
            log.info("bank %s: version %s is the current one now", name, chosen)
    return record


def _the_one(store: Store, name: str, version: str) -> str:
    """Return the version of a bank whose name begins so."""
    if not re.fullmatch(r"[0-9a-f]{4,16}", version):
        raise ConfigError(f"version: got {version!r}, expected 4 to 16 of the characters 0 to 9 and a to f")
    names = version_names(store, name)
    if not names:
        raise _no_bank(store, name)
    found = [one for one in names if one.startswith(version)]
    if not found:
        raise NotFoundError(
            f"bank {name!r} in {store.uri}: got version {version!r}, expected one of: {', '.join(names)}"
        )
    if len(found) > 1:
        raise ConfigError(
            f"bank {name!r} in {store.uri}: got version {version!r}, how several begin: {', '.join(found)}; "
            f"give more of its characters"
        )
    return found[0]


def _check_whole(store: Store, record: BankVersion | GroupBankVersion, document: dict[str, Any]) -> None:
    """Refuse a version that nothing could be scored with, because some of its files were deleted."""
    name, version = record.name, record.version
    needed = [layout.bank_calibration(name, version), layout.bank_probes(name, version)]
    segments = document["segments"]
    if not isinstance(segments, list) or not all(isinstance(segment, str) for segment in segments):
        uri = store.uri_of(layout.bank_version(name, version))
        raise SchemaError(f"{uri}: got segments = {segments!r:.60}, expected a list of names")
    for segment in [*segments, *document.get("held", ())]:
        path = layout.bank_segment(name, segment)
        needed += [f"{path}.npy", f"{path}.parquet"]
        if document.get("cells") is not None:
            needed.append(layout.bank_cells(path))
    for path in needed:
        _check_there(store, record, path)
    if index_of(document.get("index", EXACT.name)).divided:
        for segment in segments:
            path = layout.bank_segment(name, segment)
            if read_config(store, f"{path}.parquet", BANK_ROWS).get("cells", False):
                _check_there(store, record, layout.segment_cells(path))


def _check_there(store: Store, record: BankVersion | GroupBankVersion, path: str) -> None:
    if not store.exists(path):
        raise NotFoundError(
            f"bank {record.name!r} version {record.version}: its file {store.uri_of(path)} is missing; use another "
            f"version, or train the bank again"
        )


def pointed_at(store: Store, name: str) -> str | None:
    """Return the version that a bank points at; None if its pointer is damaged or not there."""
    try:
        return _current(store, name)
    except SchemaError:
        return None


def grown_from(store: Store, name: str, version: str, root: str) -> bool:
    """Return whether a version of a bank was made from another one by adding and removing images.

    Raises:
        SchemaError: a version's file is not one.
    """
    while version != root and store.exists(layout.bank_version(name, version)):
        document = read_document(store, layout.bank_version(name, version), BANK_VERSION, ["parent"])
        if not document.get("grown", False):
            return False
        version = str(document["parent"])
        if version == root:
            return True
    return False


def _current(store: Store, name: str) -> str | None:
    pointer = layout.bank_pointer(name)
    if not store.exists(pointer):
        return None
    return str(read_document(store, pointer, BANK_POINTER, ["version"])["version"])
