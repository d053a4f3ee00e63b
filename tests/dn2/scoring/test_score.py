from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dn2
from dn2.config import FitConfig, ScoreConfig, ThresholdConfig
from dn2.records import Embedded, Report
from dn2.store.schemas import CALIBRATION, REPORT
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.conftest import Bricks
from tests.dn2.neighbors.oracle import brute_force
from tests.dn2.scoring.synthetic import calibration, modified, normal_vectors, write_shards

CONFIG = FitConfig(false_alarm_rate=0.1)


@pytest.fixture
def normal(store: Store) -> Embedded:
    return write_shards(store, normal_vectors(60, seed=0), shard_rows=25)


@pytest.fixture
def bank(store: Store, normal: Embedded) -> dn2.BankVersion:
    return dn2.fit(normal, store, bank="parts", config=CONFIG)


def rows_of(store: Store, report: Report) -> list[dict]:
    folder = report.uri.removeprefix(f"{store.uri}/")
    parts = [name for name in store.names(folder) if name.startswith("part-")]
    return [row for part in parts for row in read_table(store, f"{folder}/{part}", REPORT).to_pylist()]


def test_rows_say_what_brute_force_says(store: Store, bank: dn2.BankVersion):
    batch = normal_vectors(30, seed=1)
    batch[7] *= 3
    report = dn2.score(write_shards(store, batch, name="batch", shard_rows=13), store, bank="parts")
    rows = rows_of(store, report)

    neighbors, distances = brute_force(batch, normal_vectors(60, seed=0), 2)
    known = np.array(list(calibration(store, bank).values()))
    assert [row["uri"] for row in rows] == [f"file:///batch/{number}.png" for number in range(30)]
    for row, nearest, exact in zip(rows, neighbors, distances, strict=True):
        assert row["neighbor_uris"] == [f"file:///normal/{number}.png" for number in nearest]
        assert row["neighbor_distances"] == exact.tolist()
        assert row["score"] == np.float32(exact.mean(dtype=np.float64))
        assert row["p_value"] == (1 + (known >= row["score"]).sum()) / 61
        assert row["threshold"] == np.float32(bank.threshold)
        assert row["is_anomaly"] == (row["score"] > bank.threshold) == (row["p_value"] <= 0.1)
        assert row["p_value"] <= row["q_value"] <= 1
        assert row["selected"] == (row["q_value"] <= 0.1)
        assert row["reject_reason"] is None
    assert rows[7]["is_anomaly"]
    assert (report.images, report.scored, report.rejected) == (30, 30, 0)
    assert report.anomalous == sum(row["is_anomaly"] for row in rows)
    assert report.selected == sum(row["selected"] for row in rows)
    assert report.rule == "the bank's own, for a false-alarm rate of 10%"


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_training_images_scored_again_get_their_calibration_scores(store: Store, normal: Embedded, metric: str):
    """A row of the bank is not its own neighbour."""
    bank = dn2.fit(normal, store, bank="parts", config=FitConfig(false_alarm_rate=0.1, metric=metric))

    rows = rows_of(store, dn2.score(normal, store, bank=bank))

    assert {row["image_id"]: row["score"] for row in rows} == calibration(store, bank)
    assert all(row["image_id"] not in row["neighbor_ids"] for row in rows)


def test_copies_of_training_images_under_other_names_are_not_compared_with_them(store: Store, bank: dn2.BankVersion):
    contents = [f"normal-{number}" for number in range(60)]
    copies = write_shards(store, normal_vectors(60, seed=0), name="copies", contents=contents)

    rows = rows_of(store, dn2.score(copies, store, bank=bank))

    assert [row["score"] for row in rows] == list(calibration(store, bank).values())


def test_real_training_pictures_scored_again_get_their_calibration_scores(own_bricks: Bricks):
    store = Store.open(own_bricks.store)
    embedded = dn2.embed(dn2.ingest(own_bricks.normal, store), store, bank=own_bricks.bank)

    rows = rows_of(store, dn2.score(embedded, store, bank="bricks"))

    path = f"banks/bricks/versions/{own_bricks.bank.version}.calibration.parquet"
    expected = read_table(store, path, CALIBRATION).to_pylist()
    assert {row["image_id"]: row["score"] for row in rows} == {row["image_id"]: row["score"] for row in expected}
    assert len(rows) == 32


def test_every_image_has_one_row_and_rejected_ones_a_reason(store: Store, bank: dn2.BankVersion):
    batch = write_shards(
        store,
        normal_vectors(30, seed=1),
        name="batch",
        rejected=[0, 5, 11],
        superseded=[1, 11, 29],
        shard_rows=6,
    )
    report = dn2.score(batch, store, bank=bank)
    rows = rows_of(store, report)

    numbers = [number for number in range(30) if number not in {1, 11, 29}]
    assert [row["uri"] for row in rows] == [f"file:///batch/{number}.png" for number in numbers]
    rejected = [row for row in rows if row["reject_reason"] is not None]
    assert [row["uri"] for row in rejected] == ["file:///batch/0.png", "file:///batch/5.png"]
    for row in rejected:
        assert row["reject_reason"] == "the file is empty"
        decided = ("score", "p_value", "q_value", "is_anomaly", "selected")
        names = (*decided, "neighbor_ids", "neighbor_uris", "neighbor_distances")
        assert [row[name] for name in names] == [None] * 8
    assert (report.images, report.scored, report.rejected) == (27, 25, 2)


def test_shards_without_a_readable_image_are_reported(store: Store, bank: dn2.BankVersion):
    batch = write_shards(store, normal_vectors(4, seed=1), name="batch", rejected=range(4))

    report = dn2.score(batch, store, bank=bank)

    assert (report.images, report.scored, report.anomalous, report.rejected) == (4, 0, 0, 4)
    assert report.warnings[0] == "none of the 4 images could be read: nothing was scored"
    assert Path(report.html.removeprefix("file://")).is_file()


def test_too_many_rejects_only_warn(store: Store, bank: dn2.BankVersion):
    batch = write_shards(store, normal_vectors(60, seed=1), name="batch", rejected=range(21))

    report = dn2.score(batch, store, bank=bank)

    assert report.warnings == ("21 of 60 images could not be read: the others may not represent the batch",)
    strict = dn2.score(batch, store, bank=bank, config=ScoreConfig(max_rejects=21))
    assert strict.warnings == ()


def test_score_again_rewrites_nothing(store: Store, bank: dn2.BankVersion, tmp_path: Path):
    batch = write_shards(store, normal_vectors(30, seed=1), name="batch", shard_rows=13)
    first, files = dn2.score(batch, store, bank=bank), modified(tmp_path)

    assert dn2.score(batch, store, bank=bank) == first
    assert modified(tmp_path) == files


def test_interrupted_report_is_finished_from_the_scores_that_are_there(
    store: Store, bank: dn2.BankVersion, tmp_path: Path
):
    batch = write_shards(store, normal_vectors(30, seed=1), name="batch", shard_rows=13)
    first = dn2.score(batch, store, bank=bank)
    folder = Path(first.uri.removeprefix("file://"))
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (scores,) = tmp_path.glob("store/scores/parts/*")
    (folder / "summary.json").unlink()
    (folder / "part-00001.parquet").write_bytes(b"half a pa")
    (folder / "part-00002.parquet").unlink()
    (scores / "part-00001.parquet").unlink()
    kept = {path: path.stat().st_mtime_ns for path in scores.glob("part-*")}

    assert dn2.score(batch, store, bank=bank) == first
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(kept) == 2


def test_another_threshold_finds_the_scores_finished(store: Store, bank: dn2.BankVersion, tmp_path: Path):
    """The bank's vectors are not even there any more."""
    batch = write_shards(store, normal_vectors(30, seed=1), name="batch", shard_rows=13)
    first, files = dn2.score(batch, store, bank=bank), modified(tmp_path)
    for path in tmp_path.glob("store/banks/parts/segments/*.npy"):
        path.unlink()

    second = dn2.score(batch, store, bank=bank, config=ScoreConfig(threshold=ThresholdConfig(budget=4)))

    assert (second.anomalous, first.anomalous != 4, second.uri != first.uri) == (4, True, True)
    after = modified(tmp_path)
    assert {path.suffix for path in files if after.get(path) != files[path]} == {".npy"}


def test_changed_dataset_bank_or_settings_get_another_report(store: Store, bank: dn2.BankVersion, normal: Embedded):
    vectors = normal_vectors(30, seed=1)
    batch = write_shards(store, vectors, name="batch")
    smaller = write_shards(store, vectors, name="batch", superseded=[4])
    other = dn2.fit(normal, store, bank="parts", config=FitConfig(false_alarm_rate=0.1, k=3))
    reports = [
        dn2.score(batch, store, bank=bank),
        dn2.score(smaller, store, bank=bank),
        dn2.score(batch, store, bank=other),
        dn2.score(batch, store, bank=bank, config=ScoreConfig(report_images=1)),
        dn2.score(batch, store, bank=bank, config=ScoreConfig(false_discovery_rate=0.2)),
        dn2.score(batch, store, bank=bank, config=ScoreConfig(threshold=ThresholdConfig(value=3))),
    ]

    assert len({report.uri for report in reports}) == 6
    assert [report.images for report in reports] == [30, 29, 30, 30, 30, 30]
    memory = ScoreConfig(search_memory_mb=16, bank_memory_gb=1)
    assert dn2.score(batch, store, bank=bank, config=memory) == reports[0]


def test_shard_size_changes_no_score(store: Store, bank: dn2.BankVersion):
    vectors = normal_vectors(60, seed=1)
    large = write_shards(store, vectors, name="batch", shard_rows=100)
    small = write_shards(store, vectors, name="batch", shard_rows=7)

    assert rows_of(store, dn2.score(large, store, bank=bank)) == rows_of(store, dn2.score(small, store, bank=bank))


def test_older_version_of_a_bank_can_still_be_used(store: Store, bank: dn2.BankVersion, normal: Embedded):
    dn2.fit(normal, store, bank="parts", config=FitConfig(false_alarm_rate=0.1, k=1))
    batch = write_shards(store, normal_vectors(3, seed=1), name="batch")

    assert dn2.score(batch, store, bank=bank).version == bank.version
    assert all(len(row["neighbor_ids"]) == 2 for row in rows_of(store, dn2.score(batch, store, bank=bank)))


def test_record_whose_counts_are_wrong_is_a_bug_that_is_noticed(store: Store, bank: dn2.BankVersion):
    batch = write_shards(store, normal_vectors(5, seed=1), name="batch")
    wrong = replace(batch, shards=(replace(batch.shards[0], embedded=4),))

    with pytest.raises(AssertionError, match="5 rows for 4 images"):
        dn2.score(wrong, store, bank=bank)
    (folder,) = store.names("scores/parts")
    assert store.names(f"scores/parts/{folder}") == ["part-00000.parquet"]
    assert not store.exists("reports")


def test_store_in_memory_of_this_process_gives_the_same_scores(store: Store, bank: dn2.BankVersion):
    """Any fsspec store: banks are read through the local cache."""
    other = Store.open(f"memory://{bank.version}/{Path(store.uri).parent.name}")
    reports = []
    for place in (store, other):
        normal = write_shards(place, normal_vectors(60, seed=0), shard_rows=25)
        dn2.fit(normal, place, bank="parts", config=CONFIG)
        batch = write_shards(place, normal_vectors(9, seed=1), name="batch")
        reports.append(rows_of(place, dn2.score(batch, place, bank="parts")))

    assert reports[0] == reports[1]


def test_summary_tells_the_counts(store: Store, bank: dn2.BankVersion):
    batch = write_shards(store, normal_vectors(9, seed=1), name="batch", rejected=[2])
    report = dn2.score(batch, store, bank=bank)

    summary = json.loads(Path(f"{report.uri}/summary.json".removeprefix("file://")).read_text())
    names = ("images", "scored", "rejected", "version", "threshold", "selected", "false_discovery_rate", "rule")
    assert {name: summary[name] for name in names} == {
        "images": 9,
        "scored": 8,
        "rejected": 1,
        "version": bank.version,
        "threshold": bank.threshold,
        "selected": 0,
        "false_discovery_rate": 0.1,
        "rule": "the bank's own, for a false-alarm rate of 10%",
    }
