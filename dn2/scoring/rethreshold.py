"""Change a finished report's threshold or selection: decided anew from its scores, nothing is embedded or searched."""

from __future__ import annotations

import os
from dataclasses import replace

from dn2.config import ScoreConfig, ThresholdConfig
from dn2.errors import NotFoundError
from dn2.neighbors.versions import open_bank
from dn2.records import Report
from dn2.reports.export import check_target, export
from dn2.reports.finished import FinishedReport, find_report
from dn2.scoring.decide import decide
from dn2.store.storage import Store


def rethreshold(
    report: Report | str | os.PathLike[str],
    store: str | os.PathLike[str] | Store | None = None,
    *,
    config: ScoreConfig | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Report:
    """Return the report that `score` would have written with other settings, made from the scores of this one.

    The report in the store stays. A folder it was exported to is replaced in one step by the new report.

    Args:
        report: a finished report, its URI, or the local folder it was exported to.
        store: where dn2 keeps its files; by default the one that the report comes from.
        config: all settings of the new report; by default those of the old one, with the bank's own threshold.
        out: local folder to copy the new report to, instead of the one the old report was exported to.

    Raises:
        ConfigError: the report was made by a version of dn2 that kept no scores, or `out` cannot be used.
        NotFoundError: the report, its store, its scores or the bank's version are not there.
        SchemaError: a file of theirs is damaged.
        StoreError: the store cannot be read or written, or the folder cannot be written.
    """
    old = open_report(report, store)
    target = old.copy if out is None else out
    if target is not None:
        target = check_target(target, old.store)
    settings = config or old.config.model_copy(update={"threshold": ThresholdConfig()})
    done = decide(old.scored, old.store, bank=old.bank, config=settings)
    if target is not None:
        export(done, old.store, target)
    return done


def open_report(
    report: Report | str | os.PathLike[str], store: str | os.PathLike[str] | Store | None = None
) -> FinishedReport:
    """Return what a finished report was made of, after a look whether all of it is still in the store.

    Raises:
        ConfigError: the report was made by a version of dn2 that kept no scores.
        NotFoundError: the report, its store, its scores or the bank's version are not there.
        SchemaError: the report's summary is damaged.
        StoreError: the store cannot be read.
    """
    old = find_report(report, store)
    opened = Store.open(old.store)
    if not opened.names(""):
        raise NotFoundError(f"report {old.uri}: its store {old.store} is not there; if it has moved, name it (--store)")
    try:
        bank = open_bank(opened, old.scored.bank, version=old.scored.version)
    except NotFoundError as error:
        raise NotFoundError(
            f"report {old.uri}: bank {old.scored.bank!r} version {old.scored.version} is no longer in store "
            f"{old.store}; score the batch again"
        ) from error
    known = set(opened.names(old.scored.folder))
    missing = [part.path for part in old.scored.parts if part.path.rpartition("/")[2] not in known]
    if missing:
        raise NotFoundError(
            f"report {old.uri}: got {len(missing)} of {len(old.scored.parts)} files of its scores missing from store "
            f"{old.store}, expected {missing[0]}; score the batch again"
        )
    return replace(old, bank=bank)
