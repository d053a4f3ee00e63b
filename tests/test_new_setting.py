"""A field that is added to a model is everywhere at once: nothing else has to be touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import make_pictures
from tests.flows.command import environment, server

ROOT = Path(__file__).parent.parent
BEHIND = '''class FitConfig(TrainingLimits):
    """How normal embeddings become a bank with a threshold."""
'''
FIELD = """
    shrinkage: Annotated[float, Neutral(0.0)] = Field(0.5, ge=0, le=1, description="How much is shrunk, as a share.")
"""
ASKED = """
import contextlib, io, json, sys
from pathlib import Path
import dn2, pyarrow.parquet as pq
from docs.reference import make_page
from flows.cli import main
from flows.parameters import TrainParameters

def run(*arguments):
    sys.argv = ["dn2", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
        main()
    return out.getvalue() + err.getvalue()

page = make_page()
bank = run("train", "photos", "--store", "store", "--bank", "b", "--shrinkage", "0.25")
version = dn2.open_bank("store", "b").version
files = Path("store/banks/b/versions")
footer = json.loads(pq.read_schema(files / f"{version}.calibration.parquet").metadata[b"dn2.config"])
print(json.dumps({
    "help": run("train", "--help"),
    "refused": run("train", "photos", "--store", "store", "--shrinkage", "2"),
    "form": TrainParameters.model_json_schema()["$defs"]["FitConfig"]["properties"]["shrinkage"],
    "reference": [line for line in page.splitlines() if "shrinkage" in line],
    "document": json.loads((files / f"{version}.json").read_text())["config"]["shrinkage"],
    "footer": footer["config"]["shrinkage"],
    "identity": dn2.FitConfig().identity(),
    "neutral": dn2.FitConfig(shrinkage=0).identity(),
    "old": dn2.FitConfig.reread({}).shrinkage,
}))
"""


@pytest.mark.usefixtures("prefect_server")
def test_new_field_is_option_form_footer_reference_and_name(tmp_path: Path):
    for room in ("dn2", "tasks", "flows", "docs"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__", "pictures"))
    config = tmp_path / "dn2" / "config.py"
    before = config.read_text("utf-8")
    assert before.count(BEHIND) == 1
    config.write_text(before.replace(BEHIND, BEHIND + FIELD).replace("LAST, NOTHING,", "LAST, NOTHING, Neutral,"))
    make_pictures(tmp_path / "photos", 8)
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(**server(), PYTHONPATH=str(tmp_path), DN2_CACHE_DIR=os.environ["DN2_CACHE_DIR"]),
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert "--shrinkage" in told["help"].partition("Expert options")[2]
    assert "How much is shrunk" in told["help"]
    assert told["refused"].startswith(
        "error: --shrinkage (fit.shrinkage) = 2.0: Input should be less than or equal to 1"
    )
    assert (told["form"]["default"], told["form"]["description"]) == (0.5, "How much is shrunk, as a share.")
    row, option = told["reference"]
    assert row == (
        "| `shrinkage` | number, at least 0, at most 1 | `0.5` | How much is shrunk, as a share. | all made with it |"
    )
    assert option == "| `--shrinkage` | `0.5` | `fit.shrinkage` |"
    assert (told["document"], told["footer"]) == (0.25, 0.25)
    assert told["identity"] == {**told["neutral"], "shrinkage": 0.5}
    assert "shrinkage" not in told["neutral"]
    assert told["old"] == 0.0
