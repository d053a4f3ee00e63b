"""A store that has seen some nights, as nightly runs leave it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dn2
from dn2 import layout
from dn2.images.manifest import ManifestIndex, part_names
from dn2.scoring.watermark import mark, unscored
from dn2.store.schemas import EMBEDDINGS, MANIFEST, SCORES, THUMBNAILS
from dn2.store.storage import Store
from dn2.store.tables import column_vectors, read_table
from dn2.upkeep.needed import scores_of
from tests.conftest import make_pictures

CONFIG = dn2.EmbedConfig(shard_size=5, batch_size=8)
RATE = dn2.FitConfig(false_alarm_rate=0.2)


@dataclass(frozen=True)
class Nights:
    """A store with a bank `parts` of a dataset `normal`, and a dataset `inbox` that was scored in three nights.

    Attributes:
        store: where it lies.
        source: folder of `inbox`: 9 pictures now; one vanished and one changed in the second night.
        bank: the only version.
        reports: one for each night.
    """

    store: str
    source: Path
    bank: dn2.BankVersion
    reports: tuple[dn2.Report, ...]


def ingest(source: Path, store: str) -> dn2.Dataset:
    return dn2.ingest(source, store, dataset="inbox")


def night(source: Path, store: str, bank: dn2.BankVersion) -> dn2.Report | None:
    """Score what is new, as `dn2 nightly` does; None if nothing is."""
    dataset = ingest(source, store)
    parts = unscored(dataset, store, bank=bank)
    if not parts:
        return None
    whole = dn2.embed(dataset, store, config=CONFIG, bank=bank)
    batch = replace(whole, shards=tuple(one for one in whole.shards if one.shard.part in parts))
    report = dn2.score(batch, store, bank=bank) if batch.shards else None
    mark(dataset, store, bank=bank, parts=parts, report=report)
    return report


def build(folder: Path, store: str) -> Nights:
    make_pictures(folder / "normal", 12)
    normal = dn2.embed(dn2.ingest(folder / "normal", store, dataset="normal"), store, config=CONFIG)
    bank = dn2.fit(normal, store, bank="parts", config=RATE)
    source, reports = folder / "inbox", []
    make_pictures(source / "a", 6, seed=1)
    reports.append(night(source, store, bank))
    (source / "a" / "001.png").unlink()
    make_pictures(source / "other", 1, seed=9)
    (source / "other" / "000.png").rename(source / "a" / "002.png")
    (source / "other").rmdir()
    make_pictures(source / "b", 2, seed=2)
    reports.append(night(source, store, bank))
    make_pictures(source / "c", 2, seed=3)
    reports.append(night(source, store, bank))
    return Nights(store, source, bank, tuple(one for one in reports if one is not None))


def union(store: str, dataset: str = "inbox") -> dict[str, tuple[Any, ...]]:
    """What the manifest parts say together: for each living URI all that stands in its row."""
    opened = Store.open(store)
    parts = part_names(opened, dataset)
    tables = [read_table(opened, layout.manifest(dataset, part), MANIFEST).to_pylist() for part in parts]
    with ManifestIndex.of(opened, dataset, parts) as index:
        rows = [tables[part][row] for part, row in index.live_rows()]
    assert len({row["uri"] for row in rows}) == len(rows)
    return {row["uri"]: tuple(row.values()) for row in rows}


def oracle(parts: list[list[dict[str, Any]]]) -> dict[str, tuple[Any, ...]]:
    """The union of parts by the book: of several rows with one URI the latest counts, a tombstone removes."""
    found: dict[str, tuple[Any, ...]] = {}
    for part in parts:
        for row in part:
            if row["present"]:
                found[row["uri"]] = tuple(row.values())
            else:
                found.pop(row["uri"], None)
    return found


def embeddings(store: str, dataset: str = "inbox", config: dn2.EmbedConfig = CONFIG) -> dict[str, tuple[Any, ...]]:
    """For each living image the row of its shard, and its thumbnail. Every shard must be there already."""
    opened = Store.open(store)
    before = {(file.path, file.modified) for file in opened.walk("embeddings")}
    record = dn2.Dataset(dataset, "file:///nowhere", part_names(opened, dataset), 0)
    shards = dn2.embed(record, opened, config=config).shards
    assert {(file.path, file.modified) for file in opened.walk("embeddings")} == before
    found: dict[str, tuple[Any, ...]] = {}
    for shard in shards:
        table = read_table(opened, shard.path, EMBEDDINGS)
        vectors, valid = column_vectors(table["embedding"])
        numbers = iter(vectors)
        rows = [
            (*(value for name, value in row.items() if name != "embedding"), next(numbers).tobytes() if ok else None)
            for row, ok in zip(table.to_pylist(), valid, strict=True)
        ]
        thumbnails = read_table(opened, layout.thumbnails(shard.path), THUMBNAILS).to_pylist()
        pictures = {row["image_id"]: row["thumbnail"] for row in thumbnails}
        assert len(rows) == shard.shard.stop - shard.shard.start
        for number, row in enumerate(rows):
            if number not in shard.shard.superseded:
                assert row[0] not in found
                found[row[0]] = (*row, pictures.get(row[0]))
    return found


def scores(store: str, report: dn2.Report) -> dict[str, tuple[Any, ...]]:
    """For each image of a report all columns of its scores."""
    opened = Store.open(store)
    told = scores_of(opened, report.uri.removeprefix(f"{opened.uri}/"))
    assert told is not None
    rows = [row for part in told.parts for row in read_table(opened, part.path, SCORES).to_pylist()]
    return {row["image_id"]: tuple(row.values()) for row in rows}


def files(store: str) -> dict[str, bytes]:
    """All files of a local store but locks, which are not emptied."""
    root = Path(store)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".locks" not in path.parts
    }
