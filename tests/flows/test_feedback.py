"""False alarms fed back to a bank, and confirmed anomalies, on the command line: real pictures of bricks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import dn2
from tests.conftest import Bricks
from tests.flows.checks import WRONG_USE, check, files
from tests.flows.command import Done, Run


@pytest.fixture
def report(own_embedded_bricks: Bricks) -> str:
    """The file of a report that flags two good bricks or more."""
    store = own_embedded_bricks.store
    batch = dn2.embed(dn2.ingest(own_embedded_bricks.batch, store), store, bank=own_embedded_bricks.bank)
    scores = dn2.score(batch, store, bank="bricks")
    rows = pq.read_table(part(scores), columns=["uri", "score"]).to_pylist()
    third = sorted(row["score"] for row in rows if "good-" in row["uri"])[-3]
    config = dn2.ScoreConfig(threshold=dn2.ThresholdConfig(value=third))
    return part(dn2.rethreshold(scores, store, config=config))


def part(report: dn2.Report) -> str:
    return f"{report.uri.removeprefix('file://')}/part-00000.parquet"


def kinds(report: str, kind: str) -> list[Path]:
    """The flagged pictures of a kind."""
    rows = pq.read_table(report, columns=["uri", "is_anomaly", "selected"]).to_pylist()
    flagged = [Path(row["uri"].removeprefix("file://")) for row in rows if row["is_anomaly"] or row["selected"]]
    return [path for path in flagged if path.name.startswith(kind)]


def bank(run: Run, bricks: Bricks, command: str, *more: str | Path) -> Done:
    return run("bank", command, *more, "--bank", "bricks", "--store", bricks.store)


def test_scored_pictures_in_another_folder_do_not_calibrate_and_the_command_says_so(
    run: Run, own_embedded_bricks: Bricks, report: str, tmp_path: Path
):
    (tmp_path / "confirmed").mkdir()
    good = sorted(own_embedded_bricks.batch.glob("good-*.png"))[:4]
    for path in good:
        shutil.copy(path, tmp_path / "confirmed")
    flagged = len(set(kinds(report, "good-")) & set(good))

    done = bank(run, own_embedded_bricks, "add", tmp_path / "confirmed")

    assert (done.code, done.err) == (0, "")
    assert ": 4 images added, 0 held out for calibration, 0 known already, " in done.out
    assert f"0 rejected; {flagged} flagged and {4 - flagged} passed before do not calibrate\n36 normal" in done.out
    assert "(leave-one-out, 32 scores)" in done.out


def test_told_to_be_flagged(run: Run, own_bricks: Bricks, tmp_path: Path):
    (tmp_path / "confirmed").mkdir()
    shutil.copy(next(own_bricks.batch.glob("good-*.png")), tmp_path / "confirmed")
    done = bank(run, own_bricks, "add", tmp_path / "confirmed", "--flagged")
    assert (done.code, done.err) == (0, "")
    assert "; 1 flagged and 0 passed before do not calibrate\n33 normal images now" in done.out
    assert "(leave-one-out, 32 scores)" in done.out


def test_anomalies_are_kept_listed_and_left_out(run: Run, own_embedded_bricks: Bricks, report: str, tmp_path: Path):
    """Of a report's file the flagged ones; good ones among them are no longer kept, and one was never embedded."""
    bricks = own_embedded_bricks
    flagged, good = kinds(report, ""), kinds(report, "good-")
    done = bank(run, bricks, "anomalies", report)
    assert (done.code, done.err) == (0, "")
    told = re.fullmatch(
        rf"bank bricks: {len(flagged)} anomalies kept, {len(flagged)} new\n"
        rf"(\d+) of {len(flagged)} kept anomalies are above the threshold\n",
        done.out,
    )
    assert told is not None, done.out
    (tmp_path / "wrong.txt").write_text("\n".join(map(str, good)))
    wrong = bank(run, bricks, "anomalies", tmp_path / "wrong.txt", "--remove")
    assert f"anomalies kept, {len(good)} removed\n" in wrong.out
    (tmp_path / "list.txt").write_text("new\x1b[31m.png\n")
    (tmp_path / "new\x1b[31m.png").write_bytes(b"a picture that was never embedded")
    assert ", 1 new\n" in bank(run, bricks, "anomalies", tmp_path / "list.txt").out

    listed = bank(run, bricks, "anomalies").out
    left = [path for path in flagged if path not in good]
    assert listed.startswith("".join(f"file://{path}\n" for path in left) + f"file://{tmp_path}/new\\x1b[31m.png\n")
    assert f"bank bricks: {len(left) + 1} anomalies kept\n" in listed
    assert listed.endswith(" kept anomalies are above the threshold, 1 not embedded\n")

    (tmp_path / "more").mkdir()
    shutil.copy(left[0], tmp_path / "more" / "again.png")
    added = bank(run, bricks, "add", tmp_path / "more")
    assert "; 1 kept anomaly left out\n32 normal images as before" in added.out
    assert added.out.endswith(f"{listed.splitlines()[-1]}\n")
    shutil.copytree(bricks.normal, tmp_path / "more", dirs_exist_ok=True)
    trained = run("train", tmp_path / "more", "--bank", "bricks", "--store", bricks.store)
    assert "warning: bank bricks: 1 of the training images are kept as anomalies and left out\n" in trained.err
    assert "32 normal images" in trained.out


def test_anomaly_in_the_bank_is_told(run: Run, own_bricks: Bricks, tmp_path: Path):
    (tmp_path / "list.txt").write_text(str(next(own_bricks.normal.iterdir())))
    done = bank(run, own_bricks, "anomalies", tmp_path / "list.txt")
    assert re.search(r"warning: bank bricks holds 1 of them: dn2 bank remove [0-9a-f]{32} --bank bricks\n", done.err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.txt"], "file file:///.*/missing.txt: nothing is there"),
        (["--remove"], "remove: got no file, expected one"),
        (["list.txt"], "got 1 images that are neither embedded in store .*/nothing.png; expected paths"),
    ],
)
def test_nonsense_is_refused_in_one_line_and_nothing_is_kept(
    run: Run, own_bricks: Bricks, tmp_path: Path, arguments: list[str], message: str
):
    (tmp_path / "list.txt").write_text("nothing.png")
    before = files(own_bricks.store)
    check(bank(run, own_bricks, "anomalies", *arguments), WRONG_USE, message)
    assert files(own_bricks.store) == before
