"""JSON files that explain themselves: a schema, a producer and the fields a reader needs, checked on reading."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from dn2 import layout
from dn2.errors import Dn2Error, SchemaError
from dn2.store.storage import Store
from dn2.store.tables import producer

BANK_POINTER = "dn2.bank_pointer"
BANK_VERSION = "dn2.bank_version"
CLEANING_SUMMARY = "dn2.cleaning_summary"
DROP = "dn2.drop"
GROUP_BANK_VERSION = "dn2.group_bank_version"
GROUP_REPORT_SUMMARY = "dn2.group_report_summary"
REPORT_SUMMARY = "dn2.report_summary"
WATCH = "dn2.watch"
WATERMARK = "dn2.watermark"
_VERSION = 1
T = TypeVar("T")


def write_document(store: Store, path: str, schema: str, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its schema and producer.

    Raises:
        StoreError: the store cannot be written.
    """
    document = {"schema": schema, "schema_version": _VERSION, "producer": producer(), **content}
    store.write(path, json.dumps(document, indent=1).encode())


def read_document(store: Store, path: str, schema: str, fields: Iterable[str]) -> dict[str, Any]:
    """Return a JSON object that says it is what `schema` names, and has the fields asked for.

    Raises:
        NotFoundError: there is no such file.
        SchemaError: it is no JSON object, another kind of document, or lacks a field.
    """
    uri = store.uri_of(path)
    try:
        document = json.loads(store.read(path))
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"{uri}: got a damaged file, expected JSON: {error}") from error
    if not isinstance(document, dict):
        raise SchemaError(f"{uri}: got {document!r:.60}, expected a JSON object")
    got = (document.get("schema"), document.get("schema_version"))
    if got != (schema, _VERSION):
        raise SchemaError(f"{uri}: got schema {got[0]} version {got[1]}, expected {schema} version {_VERSION}")
    missing = sorted(set(fields) - document.keys())
    if missing:
        raise SchemaError(f"{uri}: got {schema} without {', '.join(missing)}")
    return document


def needed(kind: type[Any]) -> list[str]:
    """Return the fields of a record that a document must have: those without a default; others are newer."""
    return [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]


def schema_of(store: Store, path: str) -> str | None:
    """Return what a JSON file says it is; None where it does not say.

    Raises:
        NotFoundError: there is no such file.
    """
    try:
        document = json.loads(store.read(path))
    except (ValueError, RecursionError):
        return None
    schema = document.get("schema") if isinstance(document, dict) else None
    return schema if isinstance(schema, str) else None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what makes records of a kind: building it takes longer than making a thousand."""
    return TypeAdapter(kind)


def as_record(kind: type[T], document: Mapping[str, Any], uri: str) -> T:
    """Return a record made from the fields of a document that it names.

    Raises:
        SchemaError: a field has a value of another type.
    """
    names = [field.name for field in fields(cast(Any, kind))]
    try:
        known = {name: document[name] for name in names if name in document}
        return cast(T, _adapter(cast(Any, kind)).validate_python(known))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = first.get("ctx", {}).get("error")
        if isinstance(reason, Dn2Error):  # a name that dn2 does not give
            raise SchemaError(f"{uri}: {place}: {reason}; put back what dn2 wrote there") from error
        raise SchemaError(f"{uri}: got {place} = {first['input']!r:.60}: {first['msg']}") from error


def check_shard(store: Store, path: str) -> str:
    """Return the path of an embedding shard that was read from the rows of a bank, if it is one.

    Raises:
        SchemaError: it is not.
    """
    try:
        return layout.embeddings.check(path)
    except SchemaError as error:
        raise SchemaError(f"store {store.uri}: rows of a bank: {error}; train the bank again") from error
