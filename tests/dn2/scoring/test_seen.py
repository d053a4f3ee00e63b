"""Images that were chosen by their scores are neighbours, and never calibrate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import dn2
from dn2.config import AddConfig, FitConfig, ScoreConfig, ThresholdConfig
from dn2.errors import BankError
from dn2.neighbors.bank import Bank
from dn2.neighbors.versions import read_version
from dn2.records import Embedded, Report
from dn2.store.schemas import REPORT
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.neighbors.oracle import brute_force, rows_of
from tests.dn2.scoring.synthetic import calibration, normal_vectors, write_shards

LEAVE_ONE_OUT = FitConfig(index="exact", false_alarm_rate=0.1)
HELD_OUT = LEAVE_ONE_OUT.model_copy(update={"calibration": "held-out"})
BATCH = normal_vectors(100, seed=1)


def train(store: Store, config: FitConfig = LEAVE_ONE_OUT) -> dn2.BankVersion:
    return dn2.fit(write_shards(store, normal_vectors(60, seed=0)), store, bank="parts", config=config)


def scored(store: Store, **how: object) -> tuple[Report, list[bool]]:
    """Score the batch in two shards; return which of its images were flagged."""
    report = dn2.score(write_shards(store, BATCH, name="batch", shard_rows=60), store, bank="parts", **how)
    folder = report.uri.removeprefix(f"{store.uri}/")
    rows = [
        row for number in (0, 1) for row in read_table(store, f"{folder}/part-0000{number}.parquet", REPORT).to_pylist()
    ]
    return report, [row["is_anomaly"] or row["selected"] for row in rows]


def copied(store: Store, rows: list[int], name: str = "confirmed") -> Embedded:
    """Write some images of the batch as a dataset of its own: other URIs, the same bytes."""
    return write_shards(store, BATCH[rows], name=name, contents=[f"batch-{row}" for row in rows])


def split(flags: list[bool]) -> tuple[list[int], list[int]]:
    flagged = [row for row, flag in enumerate(flags) if flag]
    return flagged, [row for row, flag in enumerate(flags) if not flag]


def remembered(store: Store, record: dn2.BankVersion) -> int:
    return len(read_version(store, "parts", record.version, dn2.BankVersion)[1].flagged)


@pytest.mark.parametrize("config", [LEAVE_ONE_OUT, HELD_OUT])
def test_what_a_report_has_scored_is_in_the_bank_and_does_not_calibrate(store: Store, config: FitConfig):
    """Known again by its bytes, under another name: the flagged ones, and what was passed."""
    before = train(store, config)
    flagged, passed = split(scored(store)[1])

    growth = dn2.add(copied(store, [*flagged, *passed[:5]]), store, bank="parts")

    assert len(flagged) >= 3
    assert (growth.flagged, growth.passed) == (len(flagged), 5)
    assert (growth.added, growth.held_out) == (len(flagged) + 5, 0)
    assert growth.bank.rows == before.rows + len(flagged) + 5
    assert calibration(store, growth.bank).keys() == calibration(store, before).keys()
    assert remembered(store, growth.bank) == len(flagged) + 5
    ids = rows_of(Bank.open(store, growth.bank, memory_gb=1))["image_id"].to_pylist()
    assert len(ids) == len(set(ids)) == growth.bank.rows


def test_added_image_is_a_neighbour_of_those_that_calibrate(store: Store):
    train(store)
    flagged, _ = split(scored(store)[1])
    record = dn2.add(copied(store, flagged), store, bank="parts").bank

    normal = normal_vectors(60, seed=0)
    both = np.concatenate([normal, BATCH[flagged]])
    distances = brute_force(normal, both, 2, np.arange(60)[None], np.arange(len(both))[None])[1]
    assert list(calibration(store, record).values()) == pytest.approx(distances.mean(1, dtype=np.float64), rel=1e-6)


@pytest.mark.parametrize("config", [LEAVE_ONE_OUT, HELD_OUT])
def test_what_is_told_to_be_flagged_does_not_calibrate_without_any_report(store: Store, config: FitConfig):
    before = train(store, config)
    more = write_shards(store, normal_vectors(25, seed=3), name="more")

    growth = dn2.add(more, store, bank="parts", config=AddConfig(flagged=True))

    assert (growth.added, growth.held_out, growth.flagged, growth.passed) == (25, 0, 25, 0)
    assert calibration(store, growth.bank).keys() == calibration(store, before).keys()


def test_selected_images_count_as_flagged_though_they_are_below_the_threshold(store: Store):
    train(store)
    config = ScoreConfig(threshold=ThresholdConfig(value=1e6), false_discovery_rate=0.99)
    report, flags = scored(store, config=config)
    flagged, _ = split(flags)
    assert (report.anomalous, report.selected) == (0, len(flagged))
    assert flagged
    assert dn2.add(copied(store, flagged), store, bank="parts").flagged == len(flagged)


def test_images_that_no_report_has_scored_calibrate_as_ever(store: Store):
    before = train(store)
    scored(store)
    growth = dn2.add(write_shards(store, normal_vectors(9, seed=3), name="more"), store, bank="parts")
    assert (growth.flagged, growth.passed, growth.bank.calibration_rows) == (0, 0, before.calibration_rows + 9)


def test_version_remembers_them_when_the_reports_are_gone(store: Store, tmp_path: Path):
    """Through an addition, a removal, another name and training anew."""
    before = train(store)
    flagged, _ = split(scored(store)[1])
    first = copied(store, flagged)
    dn2.add(first, store, bank="parts")
    shutil.rmtree(tmp_path / "store" / "reports")
    dn2.add(write_shards(store, normal_vectors(9, seed=3), name="more"), store, bank="parts")
    ids = rows_of(Bank.open(store, dn2.open_bank(store, "parts"), memory_gb=1))["image_id"].to_pylist()
    removed = dn2.remove(store, ids[60 : 60 + len(flagged)], bank="parts").bank
    assert (removed.rows, removed.calibration_rows) == (69, 69)

    back = dn2.add(first, store, bank="parts")
    assert (back.added, back.flagged) == (len(flagged), len(flagged))
    assert (back.bank.rows, back.bank.calibration_rows) == (69 + len(flagged), 69)
    dn2.use_version(store, "parts", removed.version)
    renamed = dn2.add(copied(store, flagged, "renamed"), store, bank="parts")
    assert (renamed.flagged, renamed.bank.calibration_rows) == (len(flagged), 69)
    assert train(store) == before
    again = dn2.add(copied(store, flagged, "others"), store, bank="parts")
    assert (again.flagged, again.bank.calibration_rows) == (len(flagged), 60)


def test_image_that_was_in_the_bank_when_it_was_flagged_was_not_chosen(store: Store):
    """The training images scored again, one that was flagged taken out and put back."""
    normal = write_shards(store, normal_vectors(60, seed=0))
    before = dn2.fit(normal, store, bank="parts", config=LEAVE_ONE_OUT)
    report = dn2.score(normal, store, bank="parts")
    folder = report.uri.removeprefix(f"{store.uri}/")
    rows = read_table(store, f"{folder}/part-00000.parquet", REPORT).to_pylist()
    flagged = [row["image_id"] for row in rows if row["is_anomaly"]]
    assert flagged
    dn2.remove(store, flagged, bank="parts")

    growth = dn2.add(normal, store, bank="parts")

    assert (growth.added, growth.flagged, growth.passed) == (len(flagged), 0, 0)
    assert calibration(store, growth.bank) == calibration(store, before)


def together(store: Store, rows: list[int]) -> Embedded:
    """Write the training images and some of the batch as one dataset."""
    vectors = np.concatenate([normal_vectors(60, seed=0), BATCH[rows]])
    contents = [f"normal-{row}" for row in range(60)] + [f"batch-{row}" for row in rows]
    return write_shards(store, vectors, name=f"together{len(rows)}", contents=contents)


@pytest.mark.parametrize("config", [LEAVE_ONE_OUT, HELD_OUT])
def test_false_alarms_in_the_training_folder_are_in_the_bank_and_do_not_calibrate(
    store: Store, caplog: pytest.LogCaptureFixture, config: FitConfig
):
    train(store)
    flagged, _ = split(scored(store)[1])
    embedded = together(store, flagged)
    caplog.clear()

    record = dn2.fit(embedded, store, bank="parts", config=config)

    assert [one.getMessage() for one in caplog.records if one.name == "dn2.scoring.seen"] == [
        f"bank parts: of the training images {len(flagged)} were flagged and 0 passed by its reports, and the rest of "
        f"their batches is not here: they are in the bank and do not calibrate it"
    ]
    bank = Bank.open(store, record, memory_gb=1)
    mine = {one for one in rows_of(bank)["uri"].to_pylist() if int(one.rpartition("/")[2].removesuffix(".png")) >= 60}
    assert len(mine) == len(flagged)
    assert record.calibration_rows == (60 if config is LEAVE_ONE_OUT else 12)
    assert remembered(store, record) == len(flagged)
    assert dn2.fit(embedded, store, bank="parts", config=config) == record


def test_batch_that_comes_as_a_whole_calibrates_a_training(store: Store, caplog: pytest.LogCaptureFixture):
    """Nobody has chosen by the scores, not even where some were added before."""
    train(store)
    flagged, passed = split(scored(store)[1])
    dn2.add(copied(store, flagged), store, bank="parts")
    caplog.clear()
    whole = dn2.fit(together(store, list(range(100))), store, bank="parts", config=LEAVE_ONE_OUT)
    assert (whole.rows, whole.calibration_rows, caplog.text) == (160, 160, "")

    rest = dn2.fit(together(store, passed), store, bank="parts", config=LEAVE_ONE_OUT)
    assert (rest.rows, rest.calibration_rows) == (60 + len(passed), 60)
    assert f"of the training images 0 were flagged and {len(passed)} passed by its reports" in caplog.text


def test_training_without_an_image_that_may_calibrate_is_refused(store: Store):
    before = train(store)
    flagged, _ = split(scored(store)[1])
    with pytest.raises(
        BankError, match=rf"got {len(flagged)} training images, all anomalies or chosen by their scores"
    ):
        dn2.fit(copied(store, flagged), store, bank="parts", config=LEAVE_ONE_OUT)
    assert dn2.open_bank(store, "parts") == before
    other = dn2.fit(copied(store, flagged), store, bank="others", config=LEAVE_ONE_OUT)
    assert other.calibration_rows == len(flagged)


def test_version_is_named_by_what_calibrates_it(store: Store):
    before = train(store)
    flagged, _ = split(scored(store)[1])
    more = copied(store, flagged)
    first = dn2.add(more, store, bank="parts").bank
    dn2.use_version(store, "parts", before.version)
    assert dn2.add(more, store, bank="parts").bank == first
    dn2.use_version(store, "parts", before.version)
    told = dn2.add(more, store, bank="parts", config=AddConfig(flagged=True)).bank
    assert told.version != first.version
    assert told.threshold == first.threshold


def test_names_of_versions_without_any_are_as_they_were(store: Store):
    """A report that has scored other images changes nothing."""
    before = train(store)
    scored(store)
    assert train(store) == before
    assert AddConfig().identity() == {}


@pytest.mark.parametrize("damage", ["summary", "part", "groups", "unfinished"])
def test_report_that_cannot_be_read_is_passed_over(store: Store, caplog: pytest.LogCaptureFixture, damage: str):
    """With a warning, unless it is unfinished or one of groups."""
    train(store)
    report, flags = scored(store)
    flagged, _ = split(flags)
    folder = Path(report.uri.removeprefix("file://"))
    summary = folder / "summary.json"
    if damage == "summary":
        summary.write_text("{")
    elif damage == "part":
        (folder / "part-00000.parquet").write_bytes(b"PAR1")
    elif damage == "groups":
        summary.write_text(json.dumps({**json.loads(summary.read_text()), "schema": "dn2.group_report_summary"}))
    else:
        summary.unlink()
    caplog.clear()

    growth = dn2.add(copied(store, flagged), store, bank="parts")

    assert (growth.added, growth.flagged) == (len(flagged), 0)
    assert ("what was flagged by 1 of its reports is not known: " in caplog.text) == (damage in ("summary", "part"))


def test_image_is_known_by_its_id_alone_where_the_shard_is_gone(store: Store, tmp_path: Path):
    train(store)
    flagged, _ = split(scored(store)[1])
    shutil.rmtree(next((tmp_path / "store").glob("embeddings/*/batch")))
    same = write_shards(store, BATCH, name="batch")  # in one shard, whose name is another one
    growth = dn2.add(same, store, bank="parts")
    assert (growth.flagged, growth.passed) == (len(flagged), 100 - len(flagged))


def test_cleaning_does_not_make_them_calibrate(store: Store):
    """Neither if it keeps them nor if it drops them, as it does with other images that then calibrate all the same."""
    train(store)
    flagged, _ = split(scored(store)[1])
    embedded = together(store, flagged)
    cleaning = dn2.clean(embedded, store, config=dn2.CleanConfig(rule="paper", contamination=0))
    record = dn2.fit(embedded, store, bank="parts", config=LEAVE_ONE_OUT, cleaning=cleaning)
    assert record.dropped > 0
    assert (record.calibration_rows, len(calibration(store, record))) == (60, 60)
