"""The versions of a bank: immutable files, and a pointer that names the current one."""

from __future__ import annotations

import os
import re
from dataclasses import MISSING, asdict, dataclass, fields, replace
from logging import getLogger
from typing import TypeVar

from dn2 import layout
from dn2.checks import check_name
from dn2.errors import BankError, ConfigError, NotFoundError, SchemaError
from dn2.neighbors.index import index_of
from dn2.records import AnyBank, BankFiles, BankVersion, GroupBankVersion
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
    BANK_VERSION: ["segments", *(one.name for one in fields(BankVersion) if one.default is MISSING)],  # others are new
    GROUP_BANK_VERSION: [
        "segments",
        "cells",
        *(one.name for one in fields(GroupBankVersion) if one.default is MISSING),
    ],
}
_SCHEMAS = {BankVersion: BANK_VERSION, GroupBankVersion: GROUP_BANK_VERSION}
T = TypeVar("T", BankVersion, GroupBankVersion)
_KINDS = {
    BANK_VERSION: "a bank of images (of dn2 train, for dn2 score)",
    GROUP_BANK_VERSION: "a bank of groups (of dn2 train-groups, for dn2 score-groups)",
}


@dataclass(frozen=True, slots=True)
class _Pointer:
    """What a bank's pointer says."""

    version: layout.Version


def open_bank(store: str | os.PathLike[str] | Store, name: str, *, version: str | None = None) -> BankVersion:
    """Return a version of a bank, by default the current one.

    Raises:
        ConfigError: the name is no valid name.
        NotFoundError: there is no such bank or version in the store.
        SchemaError: its pointer or version file is not one.
    """
    store, name = Store.open(store), check_name(name)
    version = version or current_version(store, name)
    return read_version(store, name, version, BankVersion)[0]


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


def read_version(store: Store, name: str, version: str, kind: type[T]) -> tuple[T, BankFiles]:
    """Return a version of a bank of images or of groups, and what it is made of.

    Raises:
        BankError: the bank is of the other kind.
        ConfigError: the version's name is none.
        NotFoundError: there is no such version.
        SchemaError: its file is not one.
    """
    got, expected = _schema_of(store, name, version), _SCHEMAS[kind]
    if got != expected and got in _KINDS:
        raise BankError(f"bank {name!r}: got {_KINDS[got]}, expected {_KINDS[expected]}; choose another bank")
    return _read(store, name, version, kind)


def _schema_of(store: Store, name: str, version: str) -> str | None:
    path = layout.bank_version(name, version)
    if layout.bank_version.parse(path) is None:
        raise ConfigError(f"bank {name!r}: got version {version!r:.60}, expected 16 hex digits")
    return schema_of(store, path)


def _read(store: Store, name: str, version: str, kind: type[T]) -> tuple[T, BankFiles]:
    path, schema = layout.bank_version(name, version), _SCHEMAS[kind]
    document, uri = read_document(store, path, schema, _NEEDED[schema]), store.uri_of(path)
    if (document["name"], document["version"]) != (name, version):
        raise SchemaError(
            f"{uri}: got bank {document['name']!r} version {document['version']!r}, "
            f"expected {name!r} version {version!r}"
        )
    return as_record(kind, document, uri), as_record(BankFiles, document, uri)


def version_names(store: Store, name: str) -> list[str]:
    """Return the versions of a bank that are whole, sorted; an unknown bank has none."""
    folder = layout.bank_versions(name)
    known = (layout.bank_version.parse(f"{folder}/{file}") for file in store.names(folder))
    return [one["version"] for one in known if one]


def open_version(store: Store, name: str, version: str) -> tuple[AnyBank, BankFiles]:
    """Return a version of a bank of images or of groups, and what it is made of.

    Raises:
        NotFoundError: there is no such version.
        SchemaError: its file is not one.
    """
    if _schema_of(store, name, version) == GROUP_BANK_VERSION:
        return _read(store, name, version, GroupBankVersion)
    return _read(store, name, version, BankVersion)


def check_kind(store: Store, name: str, kind: str) -> None:
    """Refuse to make a bank of groups out of one of images, or the other way round.

    Raises:
        BankError: a bank of this name is of the other kind.
    """
    version = _current(store, name)
    if version is not None and kind == BANK_VERSION:
        read_version(store, name, version, BankVersion)
    elif version is not None:
        read_version(store, name, version, GroupBankVersion)


def publish(store: Store, record: AnyBank, files: BankFiles) -> None:
    """Write a version file; everything it names must be in the store already.

    Args:
        store: where to.
        record: the version.
        files: what it is made of; its parent is the version that is the current one now.

    Raises:
        StoreError: the store cannot be written.
    """
    told = asdict(replace(files, parent=_current(store, record.name)))
    for name in ("held", "removed_ids", "grown", "flagged") if isinstance(record, GroupBankVersion) else ("cells",):
        del told[name]
    path = layout.bank_version(record.name, record.version)
    write_document(store, path, _SCHEMAS[type(record)], {**asdict(record), **told})


def make_current(store: Store, record: AnyBank) -> None:
    """Point a bank at one of its versions.

    Raises:
        StoreError: the store cannot be written.
    """
    if _current(store, record.name) != record.version:
        _point_at(store, record)


def _point_at(store: Store, record: AnyBank) -> None:
    write_document(store, layout.bank_pointer(record.name), BANK_POINTER, {"version": record.version})


def use_version(store: str | os.PathLike[str] | Store, bank: str, version: str) -> AnyBank:
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
        record, files = open_version(store, name, chosen)
        _check_whole(store, record, files)
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
            f"bank {name!r} in {store.uri}: got version {version!r}, which fits several: {', '.join(found)}; "
            f"give more of its characters"
        )
    return found[0]


def _check_whole(store: Store, record: AnyBank, files: BankFiles) -> None:
    """Refuse a version that nothing could be scored with, because some of its files were deleted."""
    name, version = record.name, record.version
    needed = [layout.bank_calibration(name, version), layout.bank_probes(name, version)]
    for segment in (*files.segments, *(files.held or ())):
        path = layout.bank_segment(name, segment)
        needed += [f"{path}.npy", f"{path}.parquet"]
        if files.cells is not None:
            needed.append(layout.bank_cells(path))
    for path in needed:
        _check_there(store, record, path)
    if isinstance(record, BankVersion) and record.scale != "none":
        _check_there(store, record, layout.bank_scales(name, version))
    if isinstance(record, BankVersion) and index_of(record.index).divided:
        for segment in files.segments:
            path = layout.bank_segment(name, segment)
            if read_config(store, f"{path}.parquet", BANK_ROWS).get("cells", False):
                _check_there(store, record, layout.segment_cells(path))


def _check_there(store: Store, record: AnyBank, path: str) -> None:
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
    seen = set()
    while version != root and version not in seen and store.exists(layout.bank_version(name, version)):
        seen.add(version)
        files = open_version(store, name, version)[1]
        if not files.grown or files.parent is None:
            return False
        version = files.parent
        if version == root:
            return True
    return False


def _current(store: Store, name: str) -> str | None:
    pointer = layout.bank_pointer(name)
    if not store.exists(pointer):
        return None
    document = read_document(store, pointer, BANK_POINTER, ["version"])
    return as_record(_Pointer, document, store.uri_of(pointer)).version
