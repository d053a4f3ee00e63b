"""The history of a bank: a row for each batch that it has scored, written once, beside the report and not part of it.

A report depends on its inputs only. When it was made, and what was scored before, stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from logging import getLogger

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.records import AnyBank, AnyReport, BankVersion
from dn2.records.drift import Drift, PastBatch
from dn2.store.documents import as_record
from dn2.store.schemas import HISTORY
from dn2.store.storage import Store
from dn2.store.tables import read_table, writing

log = getLogger(__name__)
LEVELS = 20  # into so many parts p-values are counted
_READ = 100  # rows, the newest ones, among which recent batches are looked for
_RECENT, _FEWEST = 20, 3  # batches that staleness looks at: at most, and at least
_UNITS = 200  # images inside, at least, that these have together
_SIGNIFICANCE, _KS = 0.001, 0.1  # as for one batch
_AT_ONCE = 8  # files read at a time


def note(store: Store, report: AnyReport, bank: AnyBank, *, key: str, when: datetime | None = None) -> PastBatch:
    """Return a batch's row of the history, written if it is not there yet; warn where the bank has become stale.

    Args:
        store: where dn2 keeps its files.
        report: what was found out about the batch; its summary may not be written yet.
        bank: what the batch was compared with.
        key: 16 hex digits that name the batch and the bank's version.
        when: now.

    Raises:
        SchemaError: a row of the history is damaged.
        StoreError: the store cannot be read or written.
    """
    path = layout.history(report.bank, key)
    if store.exists(path):
        return _read(store, path)
    row = PastBatch(
        report=report.uri.removeprefix(f"{store.uri}/"),
        source=report.source,
        bank=report.bank,
        version=report.version,
        of=report.of,
        when=when or datetime.now(UTC),
        images=report.images,
        rejected=report.rejected,
        scored=report.scored,
        anomalous=report.anomalous,
        selected=report.selected,
        anomalous_rate=report.anomalous_rate,
    )
    drift = report.drift
    if drift is not None and isinstance(bank, BankVersion):
        names = ("verdict", "units", "outside", "kind", "ks", "shift", "psi", "levels")
        row = replace(row, **{name: getattr(drift, name) for name in names})
        row = _with_recent(row, past(store, report.bank, _READ), bank.calibrated_by)
    with writing(store, path, HISTORY, {"bank": row.bank, "version": row.version}) as file:
        file.write({name: [value] for name, value in asdict(row).items()})
    if row.stale:
        log.warning(
            "bank %s is stale: in the last %d batches of %s p-values that are no anomalies are not uniform any more "
            "(KS %.2f): renew the bank if these images are normal",
            row.bank,
            row.recent_batches,
            row.source,
            row.recent_ks,
        )
    return row


def past(store: Store, bank: str, newest: int) -> list[PastBatch]:
    """Return the newest rows of a bank's history, the last one first.

    Raises:
        SchemaError: one is damaged.
        StoreError: the store cannot be read.
    """
    files = [file for file in store.walk(layout.histories(bank)) if layout.history.parse(file.path)]
    files.sort(key=lambda file: (file.modified or 0.0, file.path), reverse=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        rows = list(pool.map(lambda file: _read(store, file.path), files[:newest]))
    return sorted(rows, key=lambda row: (row.when, row.report), reverse=True)


def _read(store: Store, path: str) -> PastBatch:
    (row,) = read_table(store, path, HISTORY).to_pylist()
    return as_record(PastBatch, row, store.uri_of(path))


def _folder(source: str) -> str:
    return source.rstrip("/").rpartition("/")[0]


def levels_of(p_values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return (N,) int64: in which twentieth, from 0, each p-value lies, 0 < p <= 1."""
    found: npt.NDArray[np.int64] = np.ceil(p_values * LEVELS - 1e-9).astype(np.int64) - 1
    return found


def _with_recent(row: PastBatch, before: Sequence[PastBatch], calibration_rows: int) -> PastBatch:
    """Return a row with what it and the batches before it say of the bank together.

    They are of the same bank version and source. Drops are sources of their own: where a source is new, batches from
    beside it count.
    """
    known = [one for one in before if one.version == row.version and one.levels]
    mine = [one for one in known if one.source == row.source]
    if not mine:
        mine = [one for one in known if _folder(one.source) == _folder(row.source)]
    from scipy.stats import kstwobign  # here: who only looks at a history needs no scipy

    together = [row, *mine[: _RECENT - 1]]
    first = round(Drift.level * LEVELS)
    counts = np.sum([one.levels or () for one in together], axis=0)[first:]
    if len(together) < _FEWEST or counts.sum() < _UNITS:
        return replace(row, recent_batches=len(together))
    grid = levels_of(np.arange(1, calibration_rows + 2) / (calibration_rows + 1))  # all p-values that there can be
    usual = np.bincount(grid, minlength=LEVELS)[first:]
    ks = float(abs(np.cumsum(counts) / counts.sum() - np.cumsum(usual) / usual.sum()).max())
    rare = float(kstwobign.sf(ks * np.sqrt(counts.sum() * usual.sum() / (counts.sum() + usual.sum()))))
    stale = rare <= _SIGNIFICANCE and ks >= _KS
    return replace(row, recent_batches=len(together), recent_ks=ks, stale=stale)
