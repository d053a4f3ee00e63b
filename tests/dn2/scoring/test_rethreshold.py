from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import dn2
from dn2.config import FitConfig, ScoreConfig, ThresholdConfig
from dn2.records import Embedded
from dn2.store.storage import Store
from tests.dn2.scoring.synthetic import modified, normal_vectors, write_shards

RULES = ({"false_alarm_rate": 0.2}, {"quantile": 0.5}, {"value": 2.5}, {"budget": 4})


@pytest.fixture
def bank(store: Store) -> dn2.BankVersion:
    normal = write_shards(store, normal_vectors(60, seed=0), shard_rows=25)
    return dn2.fit(normal, store, bank="parts", config=FitConfig(false_alarm_rate=0.1))


@pytest.fixture
def batch(store: Store) -> Embedded:
    return write_shards(store, normal_vectors(30, seed=1), name="batch", rejected=[4], shard_rows=13)


def settings(**rule: Any) -> ScoreConfig:
    return ScoreConfig(threshold=ThresholdConfig(**rule), false_discovery_rate=0.2, report_images=3)


def content(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(str(folder).removeprefix("file://")).iterdir()}


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_report_is_byte_for_byte_what_score_writes(
    store: Store, bank: dn2.BankVersion, batch: Embedded, rule: dict[str, Any]
):
    first = dn2.score(batch, store, bank=bank)
    again = dn2.rethreshold(first, config=settings(**rule))
    written = content(again.uri)
    shutil.rmtree(again.uri.removeprefix("file://"))

    assert dn2.score(batch, store, bank=bank, config=settings(**rule)) == again != first
    assert content(again.uri) == written
    assert len(written) == 3 + 3


def test_report_that_is_there_is_returned_and_the_old_one_stays(store: Store, bank: dn2.BankVersion, batch: Embedded):
    first = dn2.score(batch, store, bank=bank)
    other = dn2.score(batch, store, bank=bank, config=settings(budget=4))
    files = modified(Path(store.uri.removeprefix("file://")))

    assert dn2.rethreshold(first, config=settings(budget=4)) == other
    assert dn2.rethreshold(other.uri, config=ScoreConfig()) == first
    assert modified(Path(store.uri.removeprefix("file://"))) == files


def test_without_settings_it_is_the_banks_own_threshold_and_the_rest_stays(
    store: Store, bank: dn2.BankVersion, batch: Embedded
):
    other = dn2.score(batch, store, bank=bank, config=settings(budget=4))

    found = dn2.rethreshold(other)

    assert (found.threshold, found.false_discovery_rate, len(found.worst)) == (bank.threshold, 0.2, 3)
    assert found == dn2.score(batch, store, bank=bank, config=settings())


def test_nothing_is_embedded_or_searched(store: Store, bank: dn2.BankVersion, batch: Embedded, tmp_path: Path):
    """Neither vectors nor embeddings are there any more; the thumbnails would be, had these images any."""
    first = dn2.score(batch, store, bank=bank)
    for path in (*tmp_path.glob("store/banks/parts/segments/*.npy"), *tmp_path.glob("store/embeddings/**/0*.parquet")):
        path.unlink()

    assert dn2.rethreshold(first, config=settings(budget=4)).anomalous == 4
    assert (
        dn2.rethreshold(
            first,
            config=settings(
                budget=9,
            ),
        ).anomalous
        == 9
    )


def test_exported_folder_is_replaced_and_the_store_keeps_both(
    store: Store, bank: dn2.BankVersion, batch: Embedded, tmp_path: Path
):
    first = dn2.score(batch, store, bank=bank)
    folder = dn2.export(first, store, tmp_path / "out" / "report")
    old = content(first.uri)

    for place in (folder, folder / "report.html", folder / "summary.json", f"file://{folder}/"):
        budget = len(str(place)) % 5 + 3
        again = dn2.rethreshold(place, config=settings(budget=budget))
        new = content(again.uri)
        del new["histogram.png"]
        assert (again.anomalous, content(folder)) == (budget, new)

    assert content(first.uri) == old
    assert [*folder.parent.iterdir()] == [folder]


def test_another_folder_can_be_named(store: Store, bank: dn2.BankVersion, batch: Embedded, tmp_path: Path):
    first = dn2.score(batch, store, bank=bank)
    folder = dn2.export(first, store, tmp_path / "report")
    old = content(folder)

    again = dn2.rethreshold(folder, config=settings(budget=4), out=tmp_path / "other")
    assert content(folder) == old
    assert json.loads(content(tmp_path / "other")["summary.json"])["anomalous"] == 4
    dn2.rethreshold(again, config=settings(budget=5), out=tmp_path / "other")
    assert json.loads(content(tmp_path / "other")["summary.json"])["anomalous"] == 5


def test_folder_that_holds_more_than_the_report_is_left_alone(
    store: Store, bank: dn2.BankVersion, batch: Embedded, tmp_path: Path
):
    folder = dn2.export(dn2.score(batch, store, bank=bank), store, tmp_path / "report")
    (folder / "notes.txt").write_text("precious")
    files = modified(tmp_path)

    with pytest.raises(dn2.ConfigError, match="which holds other files"):
        dn2.rethreshold(folder, config=settings(budget=4))
    assert modified(tmp_path) == files


def test_store_that_has_moved_is_named(store: Store, bank: dn2.BankVersion, batch: Embedded, tmp_path: Path):
    """A report in the store needs no name for it: it lies there."""
    first = dn2.score(batch, store, bank=bank)
    folder = dn2.export(first, store, tmp_path / "report")
    (tmp_path / "store").rename(tmp_path / "moved")

    message = rf"report file://{folder}: its store {store.uri} is not there; if it has moved, name it \(--store\)"
    with pytest.raises(dn2.NotFoundError, match=message):
        dn2.rethreshold(folder, config=settings(budget=4))
    again = dn2.rethreshold(folder, tmp_path / "moved", config=settings(budget=4))
    assert again.uri.startswith(f"file://{tmp_path}/moved/reports/parts/")
    assert json.loads((folder / "summary.json").read_bytes())["uri"] == again.uri
    inside = first.uri.replace("/store/", "/moved/")
    assert dn2.rethreshold(inside, config=settings(budget=5)).uri.startswith(f"file://{tmp_path}/moved/")
    assert dn2.rethreshold(folder, config=settings(budget=4)) == again  # it knows where its store is now


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("banks/parts/versions/*.json", r"bank 'parts' version [0-9a-f]{16} is no longer in store .*; score the batch"),
        ("scores/parts/*/part-00001.parquet", r"got 1 of 3 files of its scores missing from store .*; score the batch"),
        (
            "scores",
            r"got 3 of 3 files of its scores missing from store .*, expected scores/parts/[0-9a-f]{16}/part-00000",
        ),
        ("banks/parts/versions/*.calibration.parquet", r"no file 'banks/parts/versions/.*\.calibration\.parquet'"),
    ],
)
def test_what_is_no_longer_in_the_store_is_named(
    store: Store, bank: dn2.BankVersion, batch: Embedded, tmp_path: Path, gone: str, message: str
):
    first = dn2.score(batch, store, bank=bank)
    (path,) = tmp_path.glob(f"store/{gone}")
    path.rename(tmp_path / "aside")

    with pytest.raises(dn2.NotFoundError, match=message):
        dn2.rethreshold(first, config=settings(budget=4))
    assert len([*tmp_path.glob("store/reports/parts/*/summary.json")]) == 1


def test_older_version_of_a_bank_is_still_meant(store: Store, bank: dn2.BankVersion, batch: Embedded):
    first = dn2.score(batch, store, bank=bank)
    dn2.fit(write_shards(store, normal_vectors(70, seed=3), name="more"), store, bank="parts")

    assert dn2.rethreshold(first, config=settings(budget=4)).version == bank.version


@pytest.mark.s3
def test_report_in_a_bucket_and_its_copy_on_this_machine(s3_bucket: str, tmp_path: Path):
    store = Store.open(f"{s3_bucket}/rethreshold/store")
    normal = write_shards(store, normal_vectors(60, seed=0), shard_rows=25)
    bank = dn2.fit(normal, store, bank="parts", config=FitConfig(false_alarm_rate=0.1))
    batch = write_shards(store, normal_vectors(30, seed=1), name="batch", shard_rows=13)
    first = dn2.score(batch, store, bank=bank)
    folder = dn2.export(first, store, tmp_path / "report")

    again = dn2.rethreshold(first.uri, config=settings(budget=4))
    assert (again.anomalous, again.uri.startswith(f"{store.uri}/reports/parts/")) == (4, True)
    with pytest.raises(dn2.ConfigError, match=r"got a report of the store 's3://.*; name the store with --store"):
        dn2.rethreshold(folder, config=settings(budget=4))
    assert dn2.rethreshold(folder, store, config=settings(budget=4)) == again
    assert json.loads((folder / "summary.json").read_bytes())["uri"] == again.uri
    with pytest.raises(dn2.NotFoundError, match=r"its store s3://bucket/elsewhere is not there"):
        dn2.rethreshold(folder, f"{s3_bucket}/elsewhere", config=settings(budget=5))
