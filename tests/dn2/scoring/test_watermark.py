"""What of a dataset a bank has scored: marks, and the images that are left."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
from pydantic import TypeAdapter

import dn2
from dn2 import layout
from dn2.config import EmbedConfig
from dn2.errors import StoreError
from dn2.features.embed import embed_shards, embedder_id, resolved
from dn2.features.shards import plan_shards
from dn2.records import Embedded, Report
from dn2.scoring.watermark import mark, unscored
from dn2.store.schemas import MANIFEST, REPORT
from dn2.store.storage import Store
from dn2.store.tables import producer, read_table
from tests.conftest import Bricks
from tests.dn2.images.listing import touch
from tests.dn2.scoring.synthetic import normal_vectors, write_shards
from tests.dn2.store.holders import go_on, heard, process

WORK = TypeAdapter(tuple[dn2.Dataset, str, dn2.BankVersion, tuple[str, ...]])
MARKING = """
import sys
from pathlib import Path
from pydantic import TypeAdapter
from dn2.records import BankVersion, Dataset
from dn2.scoring.watermark import mark
work = TypeAdapter(tuple[Dataset, str, BankVersion, tuple[str, ...]])
dataset, store, bank, parts = work.validate_json(Path(sys.argv[1]).read_bytes())
print("ready", flush=True)
sys.stdin.readline()
mark(dataset, store, bank=bank, parts=parts, report=None)
print("done", flush=True)
"""


@pytest.fixture
def bank(store: Store) -> dn2.BankVersion:
    return dn2.fit(write_shards(store, normal_vectors(99, seed=0)), store, bank="parts")


def grown(tmp_path: Path, store: Store, times: int, *, name: str = "inbox") -> dn2.Dataset:
    """A dataset that got one image more at each of several ingests."""
    for number in range(times):
        touch(tmp_path / name, f"{number:05d}.png")
        dataset = dn2.ingest(tmp_path / name, store, dataset=name)
    assert len(dataset.parts) == times
    return dataset


def report_of(store: Store, bank: dn2.BankVersion) -> Report:
    return Report(
        store.uri_of("reports/parts/0123"), bank.name, bank.version, "file:///inbox", 1, 1, 0, 0, 0, 1.0, "fixed", 0.1
    )


def names(store: Store, dataset: dn2.Dataset, parts: tuple[str, ...]) -> list[str]:
    """Names of the images that the shards of some manifest parts hold, one entry for each row."""
    return [
        read_table(store, layout.manifest(shard.dataset, shard.part), MANIFEST)["uri"][row].as_py().rpartition("/")[2]
        for shard in plan_shards(dataset, store, shard_size=2, parts=parts)
        for row in range(shard.start, shard.stop)
        if row - shard.start not in shard.superseded
    ]


def test_nothing_is_scored_before_it_is_marked(tmp_path: Path, store: Store, bank: dn2.BankVersion):
    dataset = grown(tmp_path, store, 3)
    assert unscored(dataset, store, bank=bank) == dataset.parts


def test_marked_parts_are_left_out_and_the_others_stay_in_order(tmp_path: Path, store: Store, bank: dn2.BankVersion):
    dataset = grown(tmp_path, store, 4)
    first, second, third, fourth = dataset.parts
    mark(dataset, store, bank=bank, parts=[third], report=report_of(store, bank))
    assert unscored(dataset, store, bank=bank) == (first, second, fourth)
    mark(dataset, store, bank=bank, parts=(first, second), report=report_of(store, bank))
    assert unscored(dataset, store, bank=bank) == (fourth,)
    mark(dataset, store, bank=bank, parts=(fourth,), report=report_of(store, bank))
    assert unscored(dataset, store, bank=bank) == ()


def test_new_version_scores_only_what_is_new_unless_it_is_asked_to_score_again(
    tmp_path: Path, store: Store, bank: dn2.BankVersion
):
    dataset = grown(tmp_path, store, 3)
    first, second, third = dataset.parts
    newer = dn2.fit(write_shards(store, normal_vectors(99, seed=1), name="more"), store, bank="parts")
    mark(dataset, store, bank=bank, parts=(first, second), report=None)
    assert unscored(dataset, store, bank=newer) == (third,)
    assert unscored(dataset, store, bank=newer, rescore=True) == dataset.parts
    mark(dataset, store, bank=newer, parts=(first,), report=None)
    assert unscored(dataset, store, bank=newer) == (third,)
    assert unscored(dataset, store, bank=newer, rescore=True) == (second, third)
    assert unscored(dataset, store, bank=bank, rescore=True) == (third,)


def test_banks_and_datasets_have_marks_of_their_own(tmp_path: Path, store: Store, bank: dn2.BankVersion):
    one, two = grown(tmp_path, store, 2), grown(tmp_path, store, 2, name="other")
    other = replace(bank, name="other")
    mark(one, store, bank=bank, parts=one.parts, report=None)
    assert unscored(one, store, bank=bank) == ()
    assert unscored(one, store, bank=other) == one.parts
    assert unscored(two, store, bank=bank) == two.parts


@pytest.mark.parametrize(
    ("bank_name", "dataset"), [("a-b", "c-d-e"), ("a--", "0-1"), ("a.json", "b.json"), ("1", "x-")]
)
def test_names_with_dashes_and_dots_are_told_apart(
    tmp_path: Path, store: Store, bank: dn2.BankVersion, bank_name: str, dataset: str
):
    named = replace(bank, name=bank_name)
    found = grown(tmp_path, store, 2, name=dataset)
    mark(found, store, bank=named, parts=found.parts[:1], report=None)
    assert unscored(found, store, bank=named) == found.parts[1:]
    assert unscored(found, store, bank=named, rescore=True) == found.parts[1:]
    assert unscored(found, store, bank=bank) == found.parts


def test_mark_tells_what_was_scored_with_what(tmp_path: Path, store: Store, bank: dn2.BankVersion):
    """The report's place is relative: a store may be moved."""
    dataset = grown(tmp_path, store, 2)
    first, second = dataset.parts
    mark(dataset, store, bank=bank, parts=(first,), report=report_of(store, bank))
    mark(dataset, store, bank=bank, parts=(second,), report=None)
    for part, place in ((first, "reports/parts/0123"), (second, None)):
        assert json.loads(store.read(f"watermarks/parts/inbox/{part}-{bank.version}.json")) == {
            "schema": "dn2.watermark",
            "schema_version": 1,
            "producer": producer(),
            "bank": "parts",
            "version": bank.version,
            "dataset": "inbox",
            "source": f"file://{tmp_path}/inbox",
            "part": part,
            "report": place,
        }


def test_part_that_holds_only_tombstones_is_marked_without_a_report(
    tmp_path: Path, store: Store, bank: dn2.BankVersion
):
    dataset = grown(tmp_path, store, 2)
    mark(dataset, store, bank=bank, parts=dataset.parts, report=report_of(store, bank))
    (tmp_path / "inbox/00000.png").unlink()
    shrunk = dn2.ingest(tmp_path / "inbox", store, dataset="inbox")
    parts = unscored(shrunk, store, bank=bank)
    assert parts == shrunk.parts[2:]
    assert plan_shards(shrunk, store, parts=parts) == ()
    mark(shrunk, store, bank=bank, parts=parts, report=None)
    assert unscored(shrunk, store, bank=bank) == ()


def test_plan_of_the_new_part_holds_what_is_new_or_changed_and_nothing_else(
    tmp_path: Path, store: Store, bank: dn2.BankVersion
):
    touch(tmp_path / "inbox", *(f"{number}.png" for number in range(7)))
    first = dn2.ingest(tmp_path / "inbox", store, dataset="x")
    mark(first, store, bank=bank, parts=first.parts, report=None)
    touch(tmp_path / "inbox", "1.png", "5.png", "new.png", content=b"other")
    (tmp_path / "inbox/3.png").unlink()
    dataset = dn2.ingest(tmp_path / "inbox", store, dataset="x")
    parts = unscored(dataset, store, bank=bank)
    assert names(store, dataset, parts) == ["1.png", "5.png", "new.png"]
    assert names(store, dataset, dataset.parts[:1]) == ["0.png", "2.png", "4.png", "6.png"]
    assert names(store, dataset, ()) == []
    everything = plan_shards(dataset, store, shard_size=2)
    assert everything == plan_shards(dataset, store, shard_size=2, parts=dataset.parts)
    assert [shard for shard in everything if shard.part in parts] == [
        *plan_shards(dataset, store, shard_size=2, parts=parts)
    ]


def test_image_that_changed_again_before_it_was_scored_is_scored_once(
    tmp_path: Path, store: Store, bank: dn2.BankVersion
):
    touch(tmp_path / "inbox", "a.png", "b.png")
    dn2.ingest(tmp_path / "inbox", store, dataset="x")
    touch(tmp_path / "inbox", "a.png", content=b"changed")
    dataset = dn2.ingest(tmp_path / "inbox", store, dataset="x")
    parts = unscored(dataset, store, bank=bank)
    assert len(parts) == 2
    assert names(store, dataset, parts) == ["b.png", "a.png"]


def test_threads_that_mark_at_once_lose_nothing(tmp_path: Path, store: Store, bank: dn2.BankVersion):
    dataset = grown(tmp_path, store, 8)
    start = Barrier(8)

    def one(number: int) -> None:
        start.wait()
        both = (dataset.parts[number], dataset.parts[(number + 1) % 7])  # each but the last is marked by two
        mark(dataset, Store.open(store.uri), bank=bank, parts=both, report=None)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert unscored(dataset, store, bank=bank) == ()
    assert len(store.names("watermarks/parts/inbox")) == 8


def test_processes_that_mark_at_once_lose_nothing(tmp_path: Path, store: Store, bank: dn2.BankVersion):
    dataset = grown(tmp_path, store, 9)
    with ExitStack() as stack:
        started = []
        for number, parts in enumerate((dataset.parts[:5], dataset.parts[3:8])):
            (tmp_path / f"{number}").write_bytes(WORK.dump_json((dataset, store.uri, bank, parts)))
            started.append(stack.enter_context(process(MARKING, tmp_path / f"{number}", says="ready")))
        for one in started:
            go_on(one)
        assert [heard(one) for one in started] == ["done", "done"]
    assert unscored(dataset, store, bank=bank) == dataset.parts[8:]


def test_store_that_cannot_be_read_or_written_is_a_store_error(tmp_path: Path, store: Store, bank: dn2.BankVersion):
    dataset = grown(tmp_path, store, 1)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=rf"^store file://{tmp_path}/file: cannot list 'watermarks/parts/inbox': "):
        unscored(dataset, tmp_path / "file", bank=bank)
    with pytest.raises(StoreError, match=rf"^store file://{tmp_path}/file: cannot write 'watermarks/parts/inbox/"):
        mark(dataset, tmp_path / "file", bank=bank, parts=dataset.parts, report=None)


def test_only_new_pictures_are_in_the_report_of_a_night(own_bricks: Bricks, tmp_path: Path):
    """Real pictures, the real network: the second report holds what came after the first."""
    store, bank, inbox = Store.open(own_bricks.store), own_bricks.bank, tmp_path / "inbox"
    pictures = sorted(own_bricks.normal.glob("*.png"))
    inbox.mkdir()
    for night, chosen in enumerate((pictures[:3], pictures[3:5])):
        for picture in chosen:
            shutil.copy(picture, inbox)
        dataset = dn2.ingest(inbox, store, dataset="inbox")
        parts = unscored(dataset, store, bank=bank)
        assert parts == dataset.parts[night:]
        config = resolved(EmbedConfig(), bank)
        shards = embed_shards(plan_shards(dataset, store, parts=parts), store, config=config)
        report = dn2.score(Embedded(dataset, embedder_id(config), shards), store, bank=bank)
        folder = report.uri.removeprefix(f"{store.uri}/")
        uris = read_table(store, f"{folder}/part-00000.parquet", REPORT)["uri"].to_pylist()
        assert uris == [f"file://{inbox}/{picture.name}" for picture in chosen]
        mark(dataset, store, bank=bank, parts=parts, report=report)
        (written,) = (name for name in store.names("watermarks/bricks/inbox") if name.startswith(parts[0]))
        assert json.loads(store.read(f"watermarks/bricks/inbox/{written}"))["report"] == folder
    assert unscored(dataset, store, bank=bank) == ()
