"""A bank that is larger than memory: its segments are searched by tasks of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dn2.config import FitConfig, ScoreConfig
from dn2.store.schemas import REPORT
from dn2.store.storage import Store
from dn2.store.tables import read_table
from flows.banks import train
from flows.parameters import ScoreParameters, TrainParameters
from flows.scoring import score
from tests.conftest import Bricks
from tests.flows.told import task_runs

pytestmark = pytest.mark.usefixtures("prefect_server")
ONE_SEGMENT = 11 * (2 * 1280 + 300) / 2**30  # GiB


def test_segments_are_searched_by_tasks_and_merged(bricks: Bricks, tmp_path: Path):
    reports = []
    for name, rows, memory in (("whole", None, 8.0), ("parts", 10, ONE_SEGMENT)):
        store = tmp_path / name
        fit = FitConfig(segment_rows=rows)
        bank = train(TrainParameters(source=str(bricks.normal), store=str(store), bank="bricks", fit=fit))
        assert bank.segment_count == (4 if rows else 1)
        parameters = ScoreParameters(
            source=str(bricks.batch), store=str(store), bank="bricks", score=ScoreConfig(bank_memory_gb=memory)
        )
        state, runs = task_runs(score, parameters)
        assert runs["search-0"] == (1 if rows else 0)  # each of them at the first try
        reports.append((store, state.result()))
        (folder,) = (store / "scores/bricks").iterdir()
        assert len(list(folder.glob("found-*"))) == (4 if rows else 0)
        assert list(folder.glob("found-*/*")) == []  # merged

    tables = [read_table(Store.open(store), _part(store, report.uri), REPORT) for store, report in reports]
    for column in ("uri", "score", "neighbor_uris", "neighbor_distances", "is_anomaly"):
        assert tables[0][column].equals(tables[1][column]), column
    first, second = (dataclasses.asdict(report) for _, report in reports)
    assert [first[name] for name in ("scored", "anomalous")] == [second[name] for name in ("scored", "anomalous")]


def _part(store: Path, uri: str) -> str:
    return f"{uri.removeprefix(Store.open(store).uri).lstrip('/')}/part-00000.parquet"
