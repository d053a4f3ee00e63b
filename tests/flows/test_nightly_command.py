"""`dn2 nightly` in this process: what it prints, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Bricks
from tests.flows.checks import check
from tests.flows.command import Run
from tests.flows.nights import Nights


@pytest.fixture
def nights(own_bricks: Bricks, tmp_path: Path) -> Nights:
    return Nights(own_bricks, tmp_path)


def test_command_prints_what_became_of_each_source(run: Run, nights: Nights):
    nights.put("line", "good-01", "material-00")
    nights.write("line")
    done = run("nightly", "sources.yaml")
    (report,) = nights.bricks.store.glob("reports/bricks/*")
    lines = done.out.splitlines()
    assert lines[:2] == [
        f"{nights.uri('line')}, bank bricks: 1 of 2 new images are anomalous",
        f"report: file://{report}/report.html",
    ]
    assert lines[2].startswith("1 source in ")
    assert (done.code, len(lines)) == (0, 3)
    assert done.err.startswith("warning: the bank has only 32 calibration images")
    again = run("nightly", "sources.yaml")
    assert again.out.startswith(f"{nights.uri('line')}, bank bricks: nothing new\n1 source in ")
    assert (again.code, again.err) == (0, "")
    nights.train("bricks", k=3)
    assert "bank bricks: 1 of 2 new images are anomalous" in run("nightly", "sources.yaml", "--rescore").out


def test_command_prints_the_others_and_one_line_for_what_failed(run: Run, nights: Nights):
    nights.put("line", "good-01")
    nights.write("missing", "line")
    done = run("nightly", "sources.yaml")
    assert done.out.startswith(f"{nights.uri('line')}, bank bricks: 0 of 1 new images are anomalous\nreport: ")
    *_, last = done.err.splitlines()
    reason = f"error: 1 of 2 sources failed, the others are scored: {nights.uri('missing')} (bank bricks): "
    assert last.startswith(reason)
    assert done.code == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "sources file file://.*/sources.yaml: nothing is there"),
        ("nightly: [}", "sources file file://.*/sources.yaml: got no YAML"),
        ("store: s\nnightly: [{source: a, bnk: b}]", r"nightly\.0\.bnk = 'b': Extra inputs are not permitted"),
    ],
)
def test_command_refuses_a_bad_file_in_one_line(run: Run, tmp_path: Path, content: str | None, message: str):
    if content is not None:
        (tmp_path / "sources.yaml").write_text(content)
    check(run("nightly", "sources.yaml"), 2, message)
