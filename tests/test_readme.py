"""What the README shows is run: its Python, and its `dn2` commands by a real shell's rules in a user's folder."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dn2
from dn2.evaluation.demo import evaluate
from tests.conftest import Bricks
from tests.flows.command import dn2 as dn2_program
from tests.flows.command import server
from tests.pages import ROOT, blocks


@pytest.fixture
def photos(bricks: Bricks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos/normal and photos/new, which is also the working directory."""
    shutil.copytree(bricks.normal, tmp_path / "photos" / "normal")
    shutil.copytree(bricks.batch, tmp_path / "photos" / "new")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_first_screen_shows_the_two_commands():
    """Within a screen's height, and the Makefile knows them."""
    top = "\n".join((ROOT / "README.md").read_text("utf-8").splitlines()[:20])
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert re.findall(r"^make (\w+)", top, re.MULTILINE) == ["demo", "test"]
    assert {"demo", "test"} <= set(targets)


def test_python_of_the_readme_runs_as_it_stands(photos: Path, capsys: pytest.CaptureFixture[str]):
    (code,) = blocks("README.md", "python")
    assert len([line for line in code.splitlines() if line]) == 5
    exec(compile(code, "README.md", "exec"), {})
    found = re.fullmatch(r"(\d+) of (\d+) images are anomalous: file://(.+)\n", capsys.readouterr().out)
    assert found is not None
    assert int(found[1]) > 80
    assert int(found[2]) == len(list((photos / "photos" / "new").iterdir())) - 3  # three are broken
    assert Path(found[3]) == next((photos / "dn2-store" / "reports" / "parts").glob("*/report.html"))


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_commands_of_the_readme_run_as_they_stand(photos: Path):
    commands = [line for block in blocks("README.md", "sh") for line in block.splitlines() if line.startswith("dn2 ")]
    assert [shlex.split(command)[1] for command in commands] == ["train", "score"]
    for command in commands:
        done = dn2_program(*shlex.split(command)[1:], **server())
        assert (done.code, "error" in done.err) == (0, False), done.err
    names = {path.name for path in (photos / "report").iterdir()}
    assert names == {"report.html", "summary.json", "part-00000.parquet"}
    assert f"report: {photos / 'report' / 'report.html'}\n" in done.out

    (code,) = blocks("docs/reports.md", "python")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.count("file://") == 10
    assert "material-" in shown.partition("}")[0]  # the worst image shows another material


def test_figures_of_the_demo_are_those_the_readme_tells(own_bricks: Bricks):
    """ROC AUC within 0.01; of 32 images of a kind, two more or less may be found: engines round differently."""
    bricks = own_bricks
    batch = dn2.embed(dn2.ingest(bricks.batch, bricks.store), bricks.store, bank=bricks.bank)
    figures = evaluate(dn2.score(batch, bricks.store, bank=bricks.bank), bricks.store)
    text = (ROOT / "README.md").read_text("utf-8")
    told = re.findall(r"^\| [a-z].* \| ([\d.]+) \| (\d+) % \|$", text, re.MULTILINE)
    assert [float(auc) for auc, _ in told] == pytest.approx(list(figures.roc_auc_by_kind.values()), abs=0.01)
    assert [int(found) / 100 for _, found in told] == pytest.approx(list(figures.recall_by_kind.values()), abs=0.07)
    together = re.search(r"All kinds together reach ([\d.]+),", text)
    assert together is not None
    assert float(together[1]) == pytest.approx(figures.roc_auc, abs=0.01)
    assert figures.false_alarm_rate == 0
    assert bricks.bank.rows == bricks.bank.calibration_rows == figures.counts["good"] == 32
