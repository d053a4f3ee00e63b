"""What a finished report says of itself, wherever it lies: in a store, or copied out of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dn2 import layout
from dn2.config import ScoreConfig
from dn2.errors import ConfigError, NotFoundError, SchemaError
from dn2.fields import explain
from dn2.layout import PAGE, SUMMARY
from dn2.records import BankVersion, Report, Scored
from dn2.store.documents import GROUP_REPORT_SUMMARY, REPORT_SUMMARY, as_record, read_document, schema_of
from dn2.store.files import locate
from dn2.store.storage import Store


@dataclass(frozen=True, slots=True)
class FinishedReport:
    """What a finished report was made of, and with which settings.

    Attributes:
        uri: absolute URI of the folder it was found in.
        store: absolute URI of the store that holds its scores.
        scored: the scores.
        bank: the version they were made with.
        config: the settings of the report.
        copy: the local folder it was exported to; None for a report in the store.
    """

    uri: str
    store: str
    scored: Scored
    bank: BankVersion
    config: ScoreConfig
    copy: str | None


def find_report(
    report: Report | str | os.PathLike[str], store: str | os.PathLike[str] | Store | None = None
) -> FinishedReport:
    """Return what a finished report was made of, and with which settings.

    Args:
        report: its URI in a store, the local folder it was exported to, or its report.html or summary.json there.
        store: where dn2 keeps its files; by default the store in which the report lies, or the folder of this machine
            from which it was exported.

    Raises:
        ConfigError: it was made by a version of dn2 that kept no scores, or is one of groups; or it was exported from
            a bucket, and the store is not named.
        NotFoundError: there is no report.
        SchemaError: its summary is damaged.
    """
    uri = locate(report.uri if isinstance(report, Report) else report).uri
    uri = uri.removesuffix(f"/{PAGE}").removesuffix(f"/{SUMMARY}")
    place = Store.open(uri)
    if not place.exists(SUMMARY):
        raise NotFoundError(
            f"report {uri}: got no {SUMMARY} there, expected a finished report: its folder, {PAGE} or {SUMMARY}"
        )
    if schema_of(place, SUMMARY) == GROUP_REPORT_SUMMARY:
        raise ConfigError(
            f"report {uri}: got one of groups, expected one of images; score the groups again with another rate"
        )
    document = read_document(place, SUMMARY, REPORT_SUMMARY, ["uri", "producer", "bank_version", "config"])
    if "scores" not in document:
        raise ConfigError(f"report {uri}: made by {document['producer']}, which kept no scores; score the batch again")
    file = place.uri_of(SUMMARY)
    scored, bank = _record(Scored, document, "scores", file), _record(BankVersion, document, "bank_version", file)
    home, tail = _home(str(document["uri"]), scored, file)
    inside = uri.endswith(tail)
    if store is None:
        store = uri.removesuffix(tail) if inside else _store_named(home, file)
    where = Store.open(store)
    copy = None if inside or not place.is_local else str(Path(uri.removeprefix("file://")))
    try:
        config = ScoreConfig.reread(document["config"])
    except ValidationError as error:
        raise SchemaError(f"{file}: config: {explain(error)}") from error
    return FinishedReport(uri, where.uri, scored, bank, config, copy)


def _record(kind: type[Any], document: dict[str, Any], name: str, file: str) -> Any:
    if not isinstance(document[name], dict):
        raise SchemaError(f"{file}: got {name} = {document[name]!r:.60}, expected an object")
    return as_record(kind, document[name], f"{file}: {name}")


def _home(uri: str, scored: Scored, file: str) -> tuple[str, str]:
    """Return the URI of the store a report was made in, and the report's path in it, with a slash in front.

    A summary may come from anywhere: what it names must lie where dn2 would have put it.
    """
    *home, top, bank, name = ["", "", "", *uri.split("/")]
    folder = f"{top}/{bank}/{name}"
    paths = [part.path for part in scored.parts]
    expected = [layout.score_part(scored.bank, scored.fingerprint, number) for number in range(len(paths))]
    if layout.report.parse(folder) is None or bank != scored.bank or paths != expected:
        raise SchemaError(f"{file}: got paths that dn2 does not use, expected those of a report; score the batch again")
    return "/".join(home[3:]), f"/{folder}"


def _store_named(home: str, file: str) -> str:
    """Return the URI of a store that only a summary names, if it is a folder of this machine.

    Whoever wrote the summary must not choose which server is asked.

    Raises:
        ConfigError: it is not.
    """
    path = home.removeprefix("file://")
    if path == home or "://" in path or not path.isprintable() or os.path.normpath(path) != path or path[:1] != "/":
        raise ConfigError(
            f"{file}: got a report of the store {home!r:.200}, expected one in a folder of this machine; name the "
            f"store with --store"
        )
    return home
