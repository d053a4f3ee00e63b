"""What cleaning shows: which training images were dropped, with pictures, and the summary that makes it whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2.config import CleanConfig
from dn2.errors import SchemaError
from dn2.layout import PAGE, ROWS, SUMMARY
from dn2.records import Cleaning, Cluster
from dn2.reports.page import page_template
from dn2.reports.pictures import data_uri, thumbnails
from dn2.store.documents import CLEANING_SUMMARY, as_record, read_document, write_document
from dn2.store.storage import Store


@dataclass(frozen=True, slots=True)
class Section:
    """Some images of the page.

    Attributes:
        title: what they are.
        images: row of the table, and its picture as a data URI or nothing.
        cluster: what they all belong to, if it is asked about.
    """

    title: str
    images: list[tuple[dict[str, Any], str]]
    cluster: Cluster | None = None


def finished_cleaning(store: Store, folder: str) -> Cleaning | None:
    """Return the cleaning in a folder if it is whole.

    Raises:
        SchemaError: its summary is damaged.
    """
    path = f"{folder}/{SUMMARY}"
    if not store.exists(path) or not store.exists(f"{folder}/{ROWS}"):
        return None
    try:
        document = read_document(store, path, CLEANING_SUMMARY, Cleaning.first_fields())
        return as_record(Cleaning, {**document, "uri": store.uri_of(folder)}, store.uri_of(path))
    except SchemaError as error:
        raise SchemaError(f"{error}; delete that file: the cleaning is made again") from error


def write_cleaning(
    cleaning: Cleaning,
    store: Store,
    folder: str,
    *,
    rows: Any,
    order: npt.NDArray[np.int64],
    config: CleanConfig,
) -> None:
    """Write report.html, and then summary.json, which makes the cleaning whole.

    Args:
        cleaning: what to tell.
        store: where dn2 keeps its files.
        folder: where rows.parquet lies.
        rows: an Arrow table with the columns of rows.parquet and the embedding shard of each image.
        order: (N,) int64 row numbers, the oddest first.
        config: how many images to show.

    Raises:
        StoreError: the store cannot be read or written.
    """
    cut, count = cleaning.dropped, config.report_images
    impurities = rows["reason"].to_pylist().count("impurity")
    shown = {
        "The oddest images": order[: min(count, cut)],
        "The last ones taken for anomalies": order[max(count, impurities - count) : impurities],
        "The last ones that were dropped": order[max(count, impurities, cut - count) : cut],
        "The first ones that were kept": order[cut : cut + count],
        "The most typical ones": order[max(cut + count, len(order) - count) :],
    }
    asked: list[Section] = []
    sections = [_section(title, store, rows, numbers) for title, numbers in shown.items() if len(numbers)]
    clusters = rows["cluster"].to_numpy(zero_copy_only=False)
    for cluster in cleaning.clusters:
        typical = order[clusters[order] == cluster.id][::-1][:count]
        asked.append(_section(_question(cluster, cleaning), store, rows, typical, cluster))
    page = page_template("cleaning.html.j2").render(
        cleaning=cleaning, asked=asked, sections=sections, impurities=impurities
    )
    store.write(f"{folder}/{PAGE}", page.encode())
    content = {**asdict(cleaning), "warnings": cleaning.warnings, "config": config.model_dump(mode="json")}
    write_document(store, f"{folder}/{SUMMARY}", CLEANING_SUMMARY, content)


def _section(
    title: str, store: Store, rows: Any, numbers: npt.NDArray[np.int64], cluster: Cluster | None = None
) -> Section:
    found = rows.take(numbers).to_pylist()
    pictures = thumbnails(store, {row["image_id"]: row["shard"] for row in found})
    return Section(title, [(row, data_uri(pictures.get(row["image_id"]))) for row in found], cluster)


def _question(cluster: Cluster, cleaning: Cleaning) -> str:
    share = f"{cluster.images:,} images, {cluster.images / cleaning.images:.1%}"
    answered = {"keep": "said to be normal, kept", "drop": "said not to be normal, dropped"}
    return f"Kind {cluster.id}, {share}: {answered.get(cluster.answer, 'normal or not?')}"
