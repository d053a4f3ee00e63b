"""The built wheel, installed outside the checkout, is all a user needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import Bricks
from tests.flows.command import environment, server

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what the wheel is made of, so that nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("dn2", "tasks", "flows", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", copy / "dist", copy], check=True, capture_output=True)
    return next((copy / "dist").glob("dn2-*.whl"))


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment that holds the wheel, and sees this one's packages but not its editable dn2."""
    home = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    python = home / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_wheel_holds_the_packages_and_their_data_and_no_tests(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if not name.startswith("dn2-")} == {"dn2", "flows", "tasks"}
    assert {"dn2/py.typed", "dn2/reports/report.html.j2", "flows/cli/app.py", "tasks/steps.py"} <= set(names)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_installed_wheel_shows_help_and_scores_five_images(clean_python: Path, bricks: Bricks, tmp_path: Path):
    """In a folder outside the checkout, from the installed packages alone."""

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment(**server()), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "import dn2, flows, tasks; print(dn2.__file__, flows.__file__, tasks.__file__, sep='\\n')"
    for file in run(clean_python, "-c", code).splitlines():
        assert Path(file).is_relative_to(clean_python.parents[1])

    dn2 = clean_python.parent / "dn2"
    assert "dn2 train photos/normal" in run(dn2, "--help")
    for number, picture in enumerate(sorted(bricks.batch.glob("good-*"))[:5]):
        (tmp_path / "new").mkdir(exist_ok=True)
        shutil.copy(picture, tmp_path / "new" / f"{number}.png")
    run(dn2, "train", bricks.normal)
    run(dn2, "score", "new", "--out", "report")
    rows = pq.read_table(tmp_path / "report" / "part-00000.parquet").to_pylist()
    assert [row["uri"].rpartition("/")[2] for row in rows] == [f"{number}.png" for number in range(5)]
    assert all(row["score"] > 0 for row in rows)
