"""A finished report: parts, a page with pictures, and the summary that makes it whole."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from logging import getLogger
from typing import Any

import numpy as np

from dn2.config import ScoreConfig
from dn2.errors import SchemaError
from dn2.neighbors.bank import Bank
from dn2.records import BankVersion, Embedded, Report, ScoredShard, WorstImage
from dn2.reports.figure import Histogram, histogram_png, histogram_svg
from dn2.reports.files import PAGE, PICTURE, SUMMARY
from dn2.reports.page import Card, render
from dn2.store import layout
from dn2.store.documents import REPORT_SUMMARY, as_record, read_document, write_document
from dn2.store.schemas import REPORT, THUMBNAILS
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
    needed = [field.name for field in fields(Report)]
    try:
        document = read_document(store, path, REPORT_SUMMARY, needed)
        return as_record(Report, {**document, "uri": store.uri_of(folder)}, store.uri_of(path))
    except SchemaError as error:
        raise SchemaError(f"{error}; remove that file: the report is made again") from error


def write_report(
    embedded: Embedded,
    parts: Sequence[ScoredShard],
    store: Store,
    folder: str,
    *,
    bank: BankVersion,
    config: ScoreConfig,
) -> Report:
    """Write report.html and histogram.png, and then summary.json, which makes the report whole.

    Args:
        embedded: the batch.
        parts: what `score_shard` returned for each of its shards, in order.
        store: where dn2 keeps its files.
        folder: where the parts lie.
        bank: what they were compared with.
        config: how many images to show.

    Raises:
        StoreError: the store cannot be read or written.
    """
    scored, rejected = sum(part.scored for part in parts), sum(part.rejected for part in parts)
    worst = _worst(store, parts, config.report_images)
    report = Report(
        uri=store.uri_of(folder),
        bank=bank.name,
        version=bank.version,
        source=embedded.dataset.source,
        images=scored + rejected,
        scored=scored,
        anomalous=sum(part.anomalous for part in parts),
        rejected=rejected,
        threshold=bank.threshold,
        warnings=tuple(_warnings(scored, rejected, bank, config)),
        worst=tuple(_record(row) for _, row in worst),
    )
    if report.images != embedded.embedded + embedded.rejected:
        raise AssertionError(f"{report.images} rows for {embedded.embedded + embedded.rejected} images: a bug in dn2")
    opened = Bank.open(store, bank, memory_gb=config.bank_memory_gb)
    histogram = _histogram(store, parts, opened)
    page = render(
        report,
        bank,
        cards=_cards(store, embedded, opened, worst),
        rejects=_rejects(store, parts),
        histogram=histogram_svg(histogram, bank.threshold),
    )
    store.write(f"{folder}/{PAGE}", page.encode())
    store.write(f"{folder}/{PICTURE}", histogram_png(histogram, bank.threshold))
    content = {
        **asdict(report),
        "bank_version": asdict(bank),
        "config": config.model_dump(mode="json"),
        "parts": [part.path.rpartition("/")[2] for part in parts],
    }
    write_document(store, f"{folder}/{SUMMARY}", REPORT_SUMMARY, content)
    return report


def _warnings(scored: int, rejected: int, bank: BankVersion, config: ScoreConfig) -> Iterator[str]:
    images = scored + rejected
    if not scored:
        yield f"none of the {images} images could be read: nothing was scored"
    elif rejected > config.max_rejects and rejected > config.max_reject_rate * images:
        yield f"{rejected} of {images} images could not be read: the others may not stand for the whole batch"
    if bank.attainable_rate > bank.false_alarm_rate:
        yield (
            f"the bank has only {bank.calibration_rows} calibration images: its threshold promises a false-alarm rate "
            f"of {bank.attainable_rate:.2%}, not the {bank.false_alarm_rate:.2%} asked for"
        )


def _worst(store: Store, parts: Sequence[ScoredShard], count: int) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows with the largest scores, worst first, each with the number of its part."""
    best: list[tuple[float, int, int, dict[str, Any]]] = []
    for number, part in enumerate(parts):
        table = read_table(store, part.path, REPORT)
        scores = table["score"].to_numpy()
        order = np.argsort(-scores, kind="stable")[:count]  # nan, a rejected image, comes last
        for row in order:
            if not np.isnan(scores[row]):
                values = table.slice(int(row), 1).to_pylist()[0]
                best.append((-float(scores[row]), number, int(row), values))
        best = heapq.nsmallest(count, best, key=lambda item: item[:3])
    return [(number, values) for _, number, _, values in best]


def _record(row: dict[str, Any]) -> WorstImage:
    return WorstImage(row["uri"], row["score"], row["p_value"], row["is_anomaly"], row["neighbor_uris"][0])


def _cards(store: Store, embedded: Embedded, bank: Bank, worst: list[tuple[int, dict[str, Any]]]) -> list[Card]:
    wanted: dict[str, set[str]] = {}
    for number, row in worst:
        wanted.setdefault(embedded.shards[number].path, set()).add(row["image_id"])
    shards = bank.shards_of({neighbor for _, row in worst for neighbor in row["neighbor_ids"]})
    for neighbor, shard in shards.items():
        wanted.setdefault(shard, set()).add(neighbor)
    pictures: dict[str, bytes] = {}
    for shard, ids in wanted.items():
        pictures |= _thumbnails(store, shard, ids)
    return [Card(row, pictures) for _, row in worst]


def _thumbnails(store: Store, shard: str, image_ids: set[str]) -> dict[str, bytes]:
    """Return JPEG bytes by image id; a bank copied from another store may have none."""
    path = layout.thumbnails(shard)
    if not store.exists(path):
        return {}
    table = read_table(store, path, THUMBNAILS)
    names = table["image_id"].to_pylist()
    return {name: table["thumbnail"][row].as_py() for row, name in enumerate(names) if name in image_ids}


def _rejects(store: Store, parts: Sequence[ScoredShard]) -> list[tuple[str, str]]:
    """Return URI and reason of the first rejected images."""
    found: list[tuple[str, str]] = []
    for part in parts:
        if part.rejected and len(found) < _SHOWN_REJECTS:
            table = read_table(store, part.path, REPORT, ["uri", "reject_reason"]).to_pylist()
            found += [(row["uri"], row["reject_reason"]) for row in table if row["reject_reason"] is not None]
    return found[:_SHOWN_REJECTS]


def _histogram(store: Store, parts: Sequence[ScoredShard], bank: Bank) -> Histogram:
    """Count the batch's scores part by part, in bins that span both them and the calibration scores."""

    def scores() -> Iterator[Any]:
        for part in parts:
            if part.scored:
                column = read_table(store, part.path, REPORT, ["score"])["score"]
                yield column.drop_null().to_numpy()

    low, high = float(bank.calibration.min()), max(float(bank.calibration.max()), bank.record.threshold)
    for values in scores():
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    edges = np.linspace(low, high if high > low else low + 1.0, 61)
    batch = np.zeros(60, np.int64)
    for values in scores():
        batch += np.histogram(values, edges)[0]
    return Histogram(edges, batch, np.histogram(bank.calibration, edges)[0])
