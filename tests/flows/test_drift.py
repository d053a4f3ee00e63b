"""A batch that has drifted says so: an event, a line of the artifact and of the terminal, a row of history."""

from __future__ import annotations

import shutil
from pathlib import Path

from flows.parameters import ScoreParameters
from flows.scoring import score
from tests.conftest import Bricks
from tests.flows.command import Run
from tests.flows.told import artifacts, events, run_id


def test_drift_is_told_once_for_each_report(prefect_server: None, own_embedded_bricks: Bricks):
    """Most of the demo's batch is no brick wall."""
    bricks = own_embedded_bricks
    source = f"file://{bricks.batch}"
    parameters = ScoreParameters(source=str(bricks.batch), store=str(bricks.store), bank="bricks")
    for _ in range(2):
        state = score(parameters, return_state=True)
    report = state.result()
    assert report.drift is not None
    assert report.drift.verdict == "moved"
    told = [one for one in events("dn2.batch.drifted", source) if one["payload"]["report"] == report.uri]
    assert [one["payload"]["drift"]["verdict"] for one in told] == ["moved"]
    assert told[0]["payload"]["drift"]["words"] == report.drift.words
    assert f"| drift | {report.drift.words}" in str(artifacts(run_id(state))["dn2-report-bricks"].data).replace(
        "\\", ""
    )
    assert len(list((bricks.store / "history" / "bricks").iterdir())) == 1


def test_terminal_and_show_tell_it(run: Run, own_embedded_bricks: Bricks):
    bricks = own_embedded_bricks
    done = run("score", bricks.batch, "--store", bricks.store, "--bank", "bricks", "--out", "report")
    assert "warning: drift: the normal has moved (" in done.err
    assert "Drift: the normal has moved" in Path("report/report.html").read_text()
    shown = run("show", "--store", bricks.store)
    assert "images anomalous, drift moved, file://" in shown.out


def test_without_drift_there_is_no_event(prefect_server: None, own_bricks: Bricks, tmp_path: Path):
    """Three images are too few to tell."""
    source = tmp_path / "few"
    source.mkdir()
    for number in (1, 3, 5):
        shutil.copy(own_bricks.batch / f"good-{number:02d}.png", source)
    report = score(ScoreParameters(source=str(source), store=str(own_bricks.store), bank="bricks"))
    assert report.drift is None
    assert [one["payload"]["drift"] for one in events("dn2.batch.scored", f"file://{source}")] == [None]
    assert events("dn2.batch.drifted", f"file://{source}") == []
