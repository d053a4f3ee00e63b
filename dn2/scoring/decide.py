"""Decide about the scores of a batch and write its report. Nothing is embedded or searched: deciding anew is cheap."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.checks import fingerprint
from dn2.config import ScoreConfig
from dn2.errors import NotFoundError, SchemaError
from dn2.records import BankVersion, Decision, Doubt, Drift, Report, Scored
from dn2.reports.report import finished, write_report
from dn2.scoring.calibration import Calibration
from dn2.scoring.doubts.batch import check_batch
from dn2.scoring.drawn import drawn
from dn2.scoring.drift import FEWEST, drift_of
from dn2.scoring.reference import reference_of
from dn2.scoring.selection import q_values_by_rank, shortage
from dn2.scoring.thresholds import Largest, choose_threshold, remembered
from dn2.store.schemas import REPORT, SCORES
from dn2.store.storage import Store
from dn2.store.tables import read_table, writing


def report_folder(bank: str, scores: str, config: ScoreConfig) -> str:
    """Return where a report lies in the store: named by batch, bank version and settings.

    Args:
        bank: the bank's name.
        scores: fingerprint of the scores: of batch and bank version.
        config: settings of the report.
    """
    return layout.report(bank, fingerprint([scores, config.report_fingerprint()]))


def decide(
    scored: Scored, store: str | os.PathLike[str] | Store, *, bank: BankVersion, config: ScoreConfig | None = None
) -> Report:
    """Choose the threshold and the selection for a scored batch, and write the report.

    The scores are read twice, part by part: once to count p-values and to keep the largest scores, once to write the
    report's parts. What must be in memory is one part, the calibration scores and as many scores as the budget.

    Args:
        scored: the finished scores.
        store: where dn2 keeps its files.
        bank: the version they were made with.
        config: threshold rule, false-discovery rate and size of the report.

    Returns:
        the finished report; the same scores and settings give the same one, which is made once.

    Raises:
        NotFoundError: scores, or files of the bank's version, are missing.
        SchemaError: they are not what their records say.
        StoreError: the store cannot be read or written.
    """
    store, config = Store.open(store), config or ScoreConfig()
    folder = report_folder(scored.bank, scored.fingerprint, config)
    done = finished(store, folder)
    if done is not None:
        return done
    calibration = Calibration.read(store, bank.name, bank.version)
    counts, largest = _tally(scored, store, calibration, remembered(config.threshold))
    threshold = choose_threshold(config.threshold, bank, calibration, largest)
    by_rank = q_values_by_rank(counts, calibration)
    checked = check_batch(scored, store, bank)
    anomalous = selected = known_anomalous = 0
    for number, columns in enumerate(_decided(scored, store, threshold.value, calibration, by_rank, config)):
        footer = {"bank": bank.name, "version": bank.version, "scores": scored.parts[number].path}
        with writing(store, f"{folder}/{layout.part(number)}", REPORT, {**footer, "rule": threshold.rule}) as file:
            file.write(columns)
        anomalous += int(columns["is_anomaly"].sum() or 0)
        selected += int(columns["selected"].sum() or 0)
        known_anomalous += int(columns["is_anomaly"].filled(fill_value=False)[checked.known[number]].sum())
    short = shortage(counts, calibration.units, selected, config.false_discovery_rate)
    promises = (("rate-not-kept", threshold.warning), ("none-selected", short))
    decision = Decision(
        threshold=threshold.value,
        rule=threshold.rule,
        above=int((calibration.scores > np.float32(threshold.value)).sum()),
        anomalous=anomalous,
        selected=selected,
        doubts=(*checked.doubts, *(Doubt(code, message) for code, message in promises if message is not None)),
        known=sum(int(known.sum()) for known in checked.known),
        known_anomalous=known_anomalous,
        drift=_drift(scored, store, bank, calibration, config),
    )
    return write_report(scored, decision, store, folder, bank=bank, calibration=calibration.scores, config=config)


def _drift(
    scored: Scored, store: Store, bank: BankVersion, calibration: Calibration, config: ScoreConfig
) -> Drift | None:
    """Return how the batch differs from what is normal; None where there is too little to tell, or no embedding."""
    if min(scored.scored, calibration.units) < FEWEST:
        return None
    try:
        sample = drawn(scored, store, bank, memory_mb=config.search_memory_mb)
        reference = reference_of(store, bank, calibration)
    except NotFoundError:  # pruned, since the batch was scored
        return None
    return drift_of(sample, calibration, reference)


def _tally(
    scored: Scored, store: Store, calibration: Calibration, keep: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return how many images are of each rank, (n + 1,) int64, and the largest scores, (at most `keep`,)."""
    counts, largest = np.zeros(len(calibration.above), np.int64), Largest(keep)
    for part in scored.parts:
        table = read_table(store, part.path, SCORES, ["score"])
        scores = table["score"].drop_null().to_numpy()
        if (table.num_rows, len(scores)) != (part.scored + part.rejected, part.scored):
            raise SchemaError(
                f"{store.uri_of(part.path)}: got {len(scores)} scores of {table.num_rows} images, expected "
                f"{part.scored} of {part.scored + part.rejected}; delete that file and score the batch again"
            )
        counts += np.bincount(calibration.ranks(scores), minlength=len(counts))
        largest.add(scores)
    return counts, largest.scores


def _decided(
    scored: Scored,
    store: Store,
    threshold: float,
    calibration: Calibration,
    by_rank: npt.NDArray[np.float64],
    config: ScoreConfig,
) -> Iterator[dict[str, Any]]:
    """Yield the columns of each part of the report: its scores, and what is decided about them."""
    for part in scored.parts:
        table = read_table(store, part.path, SCORES)
        scores = table["score"].to_numpy()
        rejected = np.isnan(scores)
        q_values = by_rank[calibration.ranks(scores)]
        yield {
            **{name: table[name].combine_chunks() for name in table.column_names},
            "q_value": np.ma.masked_array(q_values, rejected),
            "threshold": np.full(len(scores), threshold, np.float32),
            "is_anomaly": np.ma.masked_array(scores > np.float32(threshold), rejected),
            "selected": np.ma.masked_array(q_values <= config.false_discovery_rate, rejected),
        }
