"""What the tests of prune share."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pyarrow.parquet as pq

import dn2
from dn2 import layout
from dn2.records import Pruned
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import writing
from dn2.upkeep.limits import DAY, KINDS
from tests.dn2.upkeep.nights import CONFIG, Nights


def write_manifest(store: Store, embedded: dn2.Embedded) -> None:
    """Write the manifest part of a dataset of `write_shards`, without rows: its shards are not those of a lost part."""
    (part,) = embedded.dataset.parts
    with writing(store, layout.manifest(embedded.dataset.name, part), MANIFEST, {}):
        pass


def kinds(found: Pruned) -> dict[str, int]:
    """How many things of each kind, by the short name of the kind."""
    short = {words: kind for kind, words in KINDS.items()}
    return {short[one.kind]: one.count for one in found.kinds}


def later(days: float = 2) -> float:
    return time.time() + days * DAY


def age(store: str, days: float, *patterns: str) -> None:
    """Make files look as if they were written some days ago."""
    for pattern in patterns:
        for path in Path(store).glob(pattern):
            if path.is_file():
                os.utime(path, (time.time() - days * DAY,) * 2)


def check_banks_work(nights: Nights, scored: dict[str, bytes]) -> None:
    """A bank still scores, its pictures are there, and a report that stays can be decided anew."""
    again = dn2.score(
        dn2.embed(
            dn2.ingest(nights.source.parent / "normal", nights.store, dataset="normal"), nights.store, config=CONFIG
        ),
        nights.store,
        bank=nights.bank,
    )
    page = dn2.Store.open(nights.store).read(f"{again.uri.removeprefix(f'file://{nights.store}/')}/report.html")
    assert page.count(b"data:image/jpeg") >= again.images
    for path, content in scored.items():
        assert (Path(nights.store) / path).read_bytes() == content


def needs_of(store: str) -> set[str]:
    """What the version files of a store name, by the book: read here once more, with nothing of dn2's own reading."""
    root = Path(store)
    found: set[str] = set()
    for version in root.glob("banks/*/versions/*.json"):
        document = json.loads(version.read_text())
        found |= {str(path.relative_to(root)) for path in (root / "banks").rglob("*") if path.is_file()}
        found.add(f"embeddings/{document['embedder']}/probes.parquet")
        for segment in [*document["segments"], *document.get("held", [])]:
            table = pq.read_table(version.parent.parent / "segments" / f"{segment}.parquet").to_pylist()
            for row in table:
                shards = row.get("example_shards") or [row["shard"]]
                found |= {one for shard in shards for one in (shard, shard.replace(".parquet", ".thumbnails.parquet"))}
        if document.get("cleaning"):
            found |= {f"{document['cleaning']}/{name}" for name in ("rows.parquet", "summary.json", "report.html")}
    return found
