"""A finished report: parts, a page with pictures, and the summary that makes it whole."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.checks import tile_grid
from dn2.config import ScoreConfig
from dn2.errors import SchemaError
from dn2.layout import PAGE, PICTURE, SUMMARY
from dn2.neighbors.bank import shards_of
from dn2.records import BankVersion, Decision, Doubt, EmbedderName, Report, Scored, WorstImage
from dn2.records.doubts import texts
from dn2.reports.figure import Histogram, histogram_png, histogram_svg
from dn2.reports.history import note
from dn2.reports.page import Card, render
from dn2.reports.pictures import thumbnails
from dn2.store.documents import REPORT_SUMMARY, as_record, needed, read_document, write_document
from dn2.store.schemas import REPORT
from dn2.store.storage import Store
from dn2.store.tables import read_table

log = getLogger(__name__)
_SHOWN_REJECTS = 100


def finished(store: Store, folder: str) -> Report | None:
    """Return the report in a folder if it is whole.

    Raises:
        SchemaError: its summary is damaged.
    """
    path = f"{folder}/{SUMMARY}"
    if not store.exists(path):
        return None
    try:
        document = read_document(store, path, REPORT_SUMMARY, needed(Report))
        return as_record(Report, {**document, "uri": store.uri_of(folder)}, store.uri_of(path))
    except SchemaError as error:
        raise SchemaError(f"{error}; delete that file: the report is made again") from error


def write_report(
    scored: Scored,
    decision: Decision,
    store: Store,
    folder: str,
    *,
    bank: BankVersion,
    calibration: npt.NDArray[np.float32],
    config: ScoreConfig,
) -> Report:
    """Write report.html and histogram.png, the batch's row of the history, and last what makes the report whole.

    Args:
        scored: the batch.
        decision: what was decided about it.
        store: where dn2 keeps its files.
        folder: where the report's parts lie, one for each part of the scores.
        bank: what the batch was compared with.
        calibration: (n,) float32, the bank's calibration scores, ascending.
        config: how many images to show.

    Raises:
        StoreError: the store cannot be read or written.
    """
    parts = [f"{folder}/{layout.part(number)}" for number in range(len(scored.parts))]
    worst = _worst(store, parts, config.report_images)
    doubts = (*_reject_doubts(scored, config), *decision.doubts)
    report = Report(
        uri=store.uri_of(folder),
        bank=bank.name,
        version=bank.version,
        source=scored.source,
        images=scored.scored + scored.rejected,
        scored=scored.scored,
        anomalous=decision.anomalous,
        selected=decision.selected,
        rejected=scored.rejected,
        threshold=decision.threshold,
        rule=decision.rule,
        false_discovery_rate=config.false_discovery_rate,
        warnings=texts(doubts),
        worst=tuple(_record(row) for _, row in worst),
        doubts=doubts,
        known=decision.known,
        known_anomalous=decision.known_anomalous,
        drift=decision.drift,
    )
    histogram = _histogram(store, scored, parts, calibration, decision.threshold)
    histogram = replace(histogram, scaled=bank.scale != "none")
    page = render(
        report,
        bank,
        above=decision.above,
        cards=_cards(store, scored, bank, worst),
        rejects=_rejects(store, scored, parts),
        histogram=histogram_svg(histogram, decision.threshold),
    )
    store.write(f"{folder}/{PAGE}", page.encode())
    store.write(f"{folder}/{PICTURE}", histogram_png(histogram, decision.threshold))
    content = {
        **asdict(report),
        "bank_version": asdict(bank),
        "config": config.model_dump(mode="json"),
        "parts": [part.rpartition("/")[2] for part in parts],
        "scores": asdict(scored),
    }
    note(store, report, bank, key=scored.fingerprint)
    write_document(store, f"{folder}/{SUMMARY}", REPORT_SUMMARY, content)
    return report


def _reject_doubts(scored: Scored, config: ScoreConfig) -> Iterator[Doubt]:
    rejected, images = scored.rejected, scored.scored + scored.rejected
    counts: dict[str, float] = {"rejected": rejected, "images": images}
    if not scored.scored:
        message = f"none of the {images} images could be read: nothing was scored"
        yield Doubt("none-scored", message, counts)
    elif rejected > config.max_rejects and rejected > config.max_reject_rate * images:
        message = f"{rejected} of {images} images could not be read: the others may not represent the batch"
        yield Doubt("unreadable", message, counts)


def _worst(store: Store, parts: Sequence[str], count: int) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows with the largest scores, worst first, each with the number of its part."""
    best: list[tuple[float, int, int, dict[str, Any]]] = []
    for number, part in enumerate(parts):
        table = read_table(store, part, REPORT)
        scores = table["score"].to_numpy()
        order = np.argsort(-scores, kind="stable")[:count]  # nan, a rejected image, comes last
        for row in order:
            if not np.isnan(scores[row]):
                values = table.slice(int(row), 1).to_pylist()[0]
                best.append((-float(scores[row]), number, int(row), values))
        best = heapq.nsmallest(count, best, key=lambda item: item[:3])
    return [(number, values) for _, number, _, values in best]


def _record(row: dict[str, Any]) -> WorstImage:
    names = ("uri", "score", "p_value", "q_value", "is_anomaly", "selected")
    return WorstImage(**{name: row[name] for name in names}, nearest=row["neighbor_uris"][0])


def _cards(store: Store, scored: Scored, bank: BankVersion, worst: list[tuple[int, dict[str, Any]]]) -> list[Card]:
    shards = shards_of(store, bank, {neighbor for _, row in worst for neighbor in row["neighbor_ids"]})
    pictures = thumbnails(store, shards | {row["image_id"]: scored.parts[number].shard for number, row in worst})
    grid = tile_grid(EmbedderName.parse(bank.embedder).crop)
    return [Card(row, pictures, grid) for _, row in worst]


def _rejects(store: Store, scored: Scored, parts: Sequence[str]) -> list[tuple[str, str]]:
    """Return URI and reason of the first rejected images."""
    found: list[tuple[str, str]] = []
    for part, counts in zip(parts, scored.parts, strict=True):
        if counts.rejected and len(found) < _SHOWN_REJECTS:
            table = read_table(store, part, REPORT, ["uri", "reject_reason"]).to_pylist()
            found += [(row["uri"], row["reject_reason"]) for row in table if row["reject_reason"] is not None]
    return found[:_SHOWN_REJECTS]


def _histogram(
    store: Store, scored: Scored, parts: Sequence[str], calibration: npt.NDArray[np.float32], threshold: float
) -> Histogram:
    """Count the batch's scores part by part, in bins that span them, the calibration scores and the threshold."""

    def scores() -> Iterator[Any]:
        for part, counts in zip(parts, scored.parts, strict=True):
            if counts.scored:
                column = read_table(store, part, REPORT, ["score"])["score"]
                yield column.drop_null().to_numpy()

    low, high = min(float(calibration.min()), threshold), max(float(calibration.max()), threshold)
    for values in scores():
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    edges = np.linspace(low, high if high > low else low + 1.0, 61)
    batch = np.zeros(60, np.int64)
    for values in scores():
        batch += np.histogram(values, edges)[0]
    return Histogram(edges, batch, np.histogram(calibration, edges)[0])
