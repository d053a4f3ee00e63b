"""Whoever forges a document of a store leads dn2 nowhere: it refuses, or does what it would have done."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dn2
from dn2.images.drops import look, mark_scored, remember
from dn2.neighbors.versions import open_version
from dn2.reports.finished import find_report
from dn2.scoring.watermark import mark, unscored
from dn2.store.storage import Store
from tests import old_store

HOSTILE = ["/etc/x", "../../x", "a/../../b", "s3://evil/x", "http://127.0.0.1:1/x", "x\0y", "x\ny", "..", ""]
MARKS = ("/etc/x", "evil", "127.0.0.1", "x\0y", "x\ny", "/../")
Leaf = tuple[str | int, ...]
_watched: list[str] | None = None  # what is opened or connected to, while a test looks on


def _hear(event: str, values: tuple[Any, ...]) -> None:
    if _watched is not None and event in ("open", "socket.connect", "os.rename", "os.remove", "os.mkdir"):
        _watched.append(f"{event} {values!r}")


sys.addaudithook(_hear)


@dataclass
class Place:
    """A store among other files that are nobody's business.

    Attributes:
        around: folder in which all lies.
        inbox: a watched prefix.
        normal, batch, more, cleaning: what is embedded and cleaned there already.
    """

    around: Path
    inbox: Path
    normal: dn2.Embedded
    batch: dn2.Embedded
    more: dn2.Embedded
    cleaning: dn2.Cleaning

    @property
    def store(self) -> Path:
        return self.around / "below" / "store"

    @property
    def out(self) -> Path:
        return self.around / "below" / "out"

    def path(self, kind: str) -> Path:
        """Return the document of a kind."""
        names = json.loads(old_store.PACKED.with_name("store.json").read_text("utf-8"))
        versions, reports = names["versions"], names["reports"]
        places = {
            "pointer": "banks/parts/current.json",
            "version": f"banks/parts/versions/{versions['parts']}.json",
            "grown version": f"banks/parts/versions/{versions['grown']}.json",
            "cleaned version": f"banks/clean/versions/{versions['clean']}.json",
            "version of groups": f"banks/lots/versions/{versions['lots']}.json",
            "report": f"{reports['parts']}/summary.json",
            "report of groups": f"{reports['groups']}/summary.json",
            "cleaning": f"cleaning/{names['cleaning'][0]}/summary.json",
        }
        if kind in places:
            return self.store / places[kind]
        folder = {"watermark": "watermarks/*/*/*", "drop": "drops/*", "watch": "watches/*"}[kind]
        return max(self.store.glob(folder), key=lambda path: path.stat().st_mtime)  # the one that was written here


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    old_store.write_pictures()
    around = tmp_path_factory.mktemp("forged")
    store = old_store.unpack(around / "below")
    (around / "x").write_text("precious")
    (around / "below" / "x").write_text("precious")
    inbox = tmp_path_factory.mktemp("inbox")
    (inbox / "one").mkdir()
    (inbox / "one" / "a.png").write_bytes(b"no picture")
    normal = dn2.embed(dn2.ingest(old_store.NORMAL, store, dataset="good", pattern=old_store.PATTERN), store)
    today = dn2.ingest(old_store.TODAY, store, dataset="today", pattern=old_store.PATTERN)
    batch = dn2.embed(today, store)
    more = dn2.embed(dn2.ingest(old_store.MORE, store, dataset="confirmed", pattern=old_store.PATTERN), store)
    cleaning = dn2.clean(normal, store, config=dn2.CleanConfig(rule="auto", contamination=0.1))
    bank = dn2.open_bank(store, "parts")
    mark(today, store, bank=bank, parts=today.parts, report=None)
    seen = look(inbox, store, bank="parts", settle_s=0)
    remember(seen, store)
    mark_scored("0" * 32, store, uri=seen.drops[0].uri, report=None)
    yield Place(around, inbox, normal, batch, more, cleaning)
    old_store.remove_pictures()


def leaves(value: Any, at: Leaf = ()) -> Iterator[Leaf]:
    """Yield where the texts of a document stand; of a list, those of its first element."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from leaves(one, (*at, name))
    elif isinstance(value, list):
        yield from (one for element in value[:1] for one in leaves(element, (*at, 0)))
    elif isinstance(value, str) and at[0] not in ("schema", "producer"):
        yield at


def forged(document: Any, leaf: Leaf, value: str) -> Any:
    """Return a document in which one text is another one."""
    if not leaf:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[leaf[0]] = forged(document[leaf[0]], leaf[1:], value)
    return copy


def files(folder: Path, *without: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(path.is_relative_to(one) for one in without)
    }


def score(place: Place) -> None:
    """Score anew with the bank, as if nothing had been scored."""
    for top in ("scores", "reports"):
        shutil.rmtree(place.store / top, ignore_errors=True)
    dn2.score(place.batch, place.store, bank="parts")


def score_groups(place: Place) -> None:
    shutil.rmtree(place.store / "reports" / "lots", ignore_errors=True)
    dn2.score_groups(place.batch, place.store, bank="lots")


def exported(place: Place, kind: type[dn2.Report] | type[dn2.GroupReport]) -> None:
    """Export a report, and once more over the copy, which is then forged too."""
    if kind is dn2.Report:
        dn2.export(dn2.score(place.batch, place.store, bank="parts"), place.store, place.out)
    else:
        dn2.export(dn2.score_groups(place.batch, place.store, bank="lots"), place.store, place.out)


def copied(place: Place) -> None:
    """Decide about a copy of a report whose summary is forged."""
    shutil.rmtree(place.out, ignore_errors=True)
    shutil.copytree(place.path("report").parent, place.out)
    (place.out / "histogram.png").unlink()
    dn2.rethreshold(place.out)


def drops(place: Place) -> None:
    look(place.inbox, place.store, bank="parts", settle_s=0)


def version(place: Place, kind: str) -> None:
    name, bank = place.path(kind).stem, place.path(kind).parent.parent.name
    open_version(Store.open(place.store), bank, name)
    dn2.use_version(place.store, bank, name)


def house(place: Place) -> None:
    """Nothing in the store is stale, so whatever would be removed is needed."""
    dn2.show(place.store)
    dn2.prune(place.store, now=4e9)
    before = files(place.store)
    dn2.prune(place.store, now=4e9, yes=True)
    assert files(place.store) == before


Reader = Callable[[Place], object]
QUICK: dict[str, list[Reader]] = {  # read every text, with three of the hostile values in its place
    "pointer": [lambda it: dn2.open_bank(it.store, "parts")],
    "version": [lambda it: version(it, "version")],
    "grown version": [lambda it: version(it, "grown version")],
    "cleaned version": [lambda it: version(it, "cleaned version")],
    "version of groups": [lambda it: version(it, "version of groups")],
    "report": [lambda it: find_report(it.path("report")), lambda it: exported(it, dn2.Report), copied],
    "report of groups": [lambda it: exported(it, dn2.GroupReport)],
    "cleaning": [lambda it: dn2.clean(it.normal, it.store, config=dn2.CleanConfig(rule="auto", contamination=0.1))],
    "watermark": [lambda it: unscored(it.batch.dataset, it.store, bank=dn2.open_bank(it.store, "parts"))],
    "drop": [drops],
    "watch": [drops],
}
SLOW: dict[str, list[Reader]] = {  # read every text, with one of the hostile values in its place
    **{kind: [house] for kind in QUICK},
    "pointer": [house, score, lambda it: dn2.fit(it.normal, it.store, bank="parts")],
    "version": [house, score, lambda it: dn2.fit(it.normal, it.store, bank="parts")],
    "grown version": [house, score, lambda it: dn2.add(it.more, it.store, bank="parts")],
    "cleaned version": [house, lambda it: dn2.fit(it.normal, it.store, bank="clean", cleaning=it.cleaning)],
    "version of groups": [house, score_groups],
    "report": [house, lambda it: dn2.rethreshold(it.path("report"), out=it.out)],
    "watermark": [house, lambda it: dn2.compact(it.store, dataset="today")],
}


@pytest.mark.parametrize("kind", QUICK)
def test_forged_text_leads_nowhere(kind: str, made: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each text of a document is replaced by hostile ones, and all that reads it is run."""
    global _watched
    shutil.copytree(made.around, tmp_path / "around")  # with the times of all files
    place = Place(tmp_path / "around", made.inbox, made.normal, made.batch, made.more, made.cleaning)
    asked: list[str] = []
    full, url_to_fs = Store._full, fsspec.core.url_to_fs
    monkeypatch.setattr(Store, "_full", lambda self, path: asked.append(path) or full(self, path))
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url, **more: asked.append(url) or url_to_fs(url, **more))
    path = place.path(kind)
    document = json.loads(path.read_bytes())
    around, whole = files(place.around, place.store, place.out), files(place.store)
    refused = run = 0
    for number, leaf in enumerate(leaves(document)):
        for turn, value in enumerate(HOSTILE):
            chosen = (number + turn) % len(HOSTILE) == 0
            if not chosen and (
                (number + turn) % 3 or leaf[0] in ("config", "worst")
            ):  # these are only copied and shown
                continue
            for read in [*QUICK[kind], *(SLOW[kind] if chosen else [])]:
                path.write_text(json.dumps(forged(document, leaf, value)))
                asked.clear()
                _watched = []
                try:
                    run += 1
                    read(place)
                except dn2.Dn2Error:
                    refused += 1
                finally:
                    heard, _watched = _watched, None
                where = (kind, leaf, value, getattr(read, "__name__", read))
                assert [one for one in [*asked, *heard] if any(mark in one for mark in MARKS)] == [], where
                assert [one for one in asked if {"..", "."} & set(one.split("/")) or one[:1] == "/"] == [], where
                assert [one for one in heard if one.startswith("socket")] == [], where
                assert files(place.around, place.store, place.out) == around, where
                for name in whole:  # the readers that score anew remove these first
                    if Path(name).exists():
                        continue
                    Path(name).parent.mkdir(parents=True, exist_ok=True)
                    Path(name).write_bytes(whole[name])
    assert run
    assert (refused > 0) == (
        kind not in ("cleaning", "watermark", "drop")
    )  # of these, names of files are read, no texts


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize(("bank", "column"), [("parts", "shard"), ("lots", "example_shards")])
def test_forged_shard_in_the_rows_of_a_bank_is_refused(
    made: Place, tmp_path: Path, bank: str, column: str, hostile: str
):
    """Beside it the page would look for thumbnails, and by it prune knows what is needed."""
    shutil.copytree(made.store, tmp_path / "below" / "store")
    place = Place(tmp_path, made.inbox, made.normal, made.batch, made.more, made.cleaning)
    for path in (place.store / "banks" / bank / "segments").glob("*.parquet"):
        table = pq.read_table(path)
        values = [hostile if column == "shard" else [hostile] * len(row["example_ids"]) for row in table.to_pylist()]
        at, field = table.schema.get_field_index(column), table.schema.field(column)
        pq.write_table(table.set_column(at, field, pa.array(values, field.type)), path)
    for read in (score_groups if bank == "lots" else score, house_in_need):
        with pytest.raises(dn2.SchemaError, match=r"rows of a bank: got .*, expected embeddings/<embedder>/"):
            read(place)


def house_in_need(place: Place) -> None:
    """Look for shards that are needed: all are old, and of no manifest part."""
    shutil.rmtree(place.store / "manifests")
    dn2.prune(place.store, now=4e9, yes=True)
