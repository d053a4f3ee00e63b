"""Every batch that is scored leaves one row, which nothing changes later."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import dn2
from dn2 import layout
from dn2.config import ScoreConfig, ThresholdConfig
from dn2.errors import SchemaError
from dn2.records import BankVersion, Drift, PastBatch
from dn2.reports.history import LEVELS, levels_of, note, past
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import normal_groups, write_groups
from tests.dn2.scoring.synthetic import normal_vectors, write_shards

DAY = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture
def bank(store: Store) -> BankVersion:
    return dn2.fit(write_shards(store, normal_vectors(300, seed=0)), store, bank="parts")


def scored(store: Store, *, seed: int = 1, name: str = "batch", **config: Any) -> dn2.Report:
    batch = write_shards(store, normal_vectors(100, seed=seed), name=name, rejected=[5])
    return dn2.score(batch, store, bank="parts", config=ScoreConfig(**config))


def files(store: Store) -> dict[str, int]:
    root = store.local("history")
    assert root is not None
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("bank")
def test_a_batch_leaves_a_row(store: Store):
    before = datetime.now(UTC)
    report = scored(store)
    (row,) = past(store, "parts", 10)
    assert before <= row.when <= datetime.now(UTC)
    assert store.uri_of(row.report) == report.uri
    drift = report.drift
    assert drift is not None
    assert row == PastBatch(
        report=row.report,
        source="file:///batch",
        bank="parts",
        version=report.version,
        of="images",
        when=row.when,
        images=100,
        rejected=1,
        scored=99,
        anomalous=report.anomalous,
        selected=report.selected,
        anomalous_rate=report.anomalous / 99,
        verdict=drift.verdict,
        units=drift.units,
        outside=drift.outside,
        kind=drift.kind,
        ks=drift.ks,
        shift=drift.shift,
        psi=drift.psi,
        levels=drift.levels,
        recent_batches=1,
    )
    assert sum(drift.levels) == drift.units <= 99


@pytest.mark.usefixtures("bank")
def test_scoring_again_or_with_another_threshold_writes_no_row(store: Store):
    first = scored(store)
    before = files(store)
    assert len(before) == 1
    assert scored(store) == first
    assert scored(store, threshold=ThresholdConfig(budget=3)).uri != first.uri
    assert files(store) == before


@pytest.mark.usefixtures("bank")
def test_a_report_that_is_made_anew_keeps_the_row(store: Store):
    first = scored(store)
    before = files(store)
    summary = f"{first.uri.removeprefix(f'{store.uri}/')}/summary.json"
    content = store.read(summary)
    store.remove(summary)  # as if the run had been killed before
    assert scored(store) == first
    assert files(store) == before
    assert store.read(summary) == content  # of the time nothing stands in it


@pytest.mark.usefixtures("bank")
def test_another_version_of_the_bank_has_a_row_of_its_own(store: Store):
    scored(store)
    dn2.add(write_shards(store, normal_vectors(20, seed=7), name="more"), store, bank="parts")
    scored(store)
    rows = past(store, "parts", 10)
    assert len({row.version for row in rows}) == len(rows) == 2


def test_groups_leave_a_row_without_drift(store: Store):
    dn2.fit_groups(write_groups(store, normal_groups([4] * 30, seed=0)), store, bank="lots")
    batch = write_groups(store, normal_groups([4] * 5, seed=1), name="batch")
    report = dn2.score_groups(batch, store, bank="lots")
    (row,) = past(store, "lots", 10)
    assert (row.of, row.images, row.scored, row.anomalous) == ("groups", 20, 5, report.anomalous)
    assert (row.verdict, row.levels, row.stale) == (None, None, None)
    before = files(store)
    dn2.score_groups(batch, store, bank="lots")
    assert files(store) == before


def test_newest_rows_first_and_no_more_than_asked_for(store: Store, bank: BankVersion):
    report = scored(store)
    for day in range(5):
        note(store, report, bank, key=f"{day:016x}", when=DAY - timedelta(days=day))
    assert [row.when.day for row in past(store, "parts", 10)[1:]] == [30, 29, 28, 27, 26]
    assert len(past(store, "parts", 3)) == 3
    assert past(store, "unknown", 3) == []


def drifting(report: dn2.Report, share: float) -> dn2.Report:
    """Return a report some of whose p-values inside lie in the lower half."""
    levels = np.full(LEVELS, 10)
    moved = round(10 * share)
    levels[1:10] += moved
    levels[11:] -= moved
    drift = Drift("steady", 200, 0.05, 0.01, 0.05, None, None, tuple(levels.tolist()))
    return replace(report, drift=drift)


def test_a_bank_becomes_stale_when_batches_say_so_together(store: Store, bank: BankVersion, caplog: Any):
    """None of them alone says anything."""
    report = scored(store)
    found = [
        note(store, drifting(report, 0.4), bank, key=f"{day:016x}", when=DAY + timedelta(days=day)) for day in range(8)
    ]
    assert [row.recent_batches for row in found] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert found[0].stale is None
    assert found[-1].stale is True
    assert found[-1].recent_ks == pytest.approx(0.17, abs=0.03)
    (told, *_) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "bank parts" in told
    assert "renew the bank" in told


def test_steady_batches_leave_a_bank_fresh(store: Store, bank: BankVersion, caplog: Any):
    report = scored(store)
    for day in range(12):
        row = note(store, drifting(report, 0.0), bank, key=f"{day:016x}", when=DAY + timedelta(days=day))
    assert row.stale is False
    assert row.recent_ks is not None
    assert row.recent_ks < 0.1
    assert caplog.records == []


def test_staleness_looks_at_the_same_source_and_version(store: Store, bank: BankVersion):
    report = drifting(scored(store), 0.5)
    for day in range(6):
        note(store, replace(report, source="file:///a/one"), bank, key=f"{day:016x}", when=DAY + timedelta(days=day))
    other = note(store, replace(report, source="file:///b/other"), bank, key="a" * 16)
    assert (other.recent_batches, other.stale) == (1, None)
    beside = note(store, replace(report, source="file:///a/two"), bank, key="b" * 16)  # another drop
    assert (beside.recent_batches, beside.stale) == (7, True)
    newer = note(store, replace(report, source="file:///a/one", version="c" * 16), bank, key="c" * 16)
    assert newer.recent_batches == 1


@pytest.mark.usefixtures("bank")
def test_a_damaged_row_is_named(store: Store):
    scored(store)
    (name,) = files(store)
    store.write(f"history/{name}", b"no Parquet")
    with pytest.raises(SchemaError, match=rf"history/{name}: got a damaged file, expected Parquet"):
        past(store, "parts", 3)


@pytest.mark.usefixtures("bank")
def test_a_row_of_a_later_dn2_with_more_columns_is_read(store: Store):
    report = scored(store)
    (name,) = files(store)
    path = store.local(f"history/{name}")
    assert path is not None
    table = pq.read_table(path)
    pq.write_table(table.append_column("weather", [["rain"]]), path)
    assert [row.anomalous for row in past(store, "parts", 3)] == [report.anomalous]
    pq.write_table(table.drop_columns(["stale", "psi", "levels"]), path)  # or of an earlier one
    assert [row.levels for row in past(store, "parts", 3)] == [None]


@pytest.mark.usefixtures("bank")
def test_it_is_one_table_for_whatever_reads_parquet(store: Store):
    for seed in range(3):
        scored(store, seed=seed, name=f"night-{seed}")
    root: Path | None = store.local(layout.histories("parts"))
    rows = pq.read_table(root).sort_by("when").to_pylist()
    assert [row["source"] for row in rows] == ["file:///night-0", "file:///night-1", "file:///night-2"]


@pytest.mark.usefixtures("bank")
def test_prune_leaves_it(store: Store):
    scored(store)
    before = files(store)
    dn2.prune(store, reports=0, age=0, yes=True, now=4e9)
    assert store.names("reports/parts") == []
    assert files(store) == before
    assert dn2.show(store).errors == ()


@pytest.mark.usefixtures("bank")
def test_show_tells_the_newest_rows(store: Store):
    for seed in range(3):
        scored(store, seed=seed, name=f"night-{seed}")
    (found,) = dn2.show(store, newest=2).banks
    assert [row.source for row in found.history] == ["file:///night-2", "file:///night-1"]
    assert json.loads(json.dumps(found.history[0].when.isoformat()))


def test_levels_are_twentieths():
    p = np.array([1 / 301, 0.05, 0.0500001, 0.1, 0.9500001, 1.0])
    assert levels_of(p).tolist() == [0, 0, 1, 1, 19, 19]
