"""`dn2 bank add` and `dn2 bank remove`: a bank that grows and shrinks, and what scores make of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import dn2
from dn2.store.schemas import CALIBRATION
from dn2.store.tables import read_table
from flows.banks import bank_add, bank_remove
from flows.parameters import AddParameters, RemoveParameters
from tests.conftest import Bricks, make_pictures
from tests.dn2.groups.synthetic import normal_groups, write_groups
from tests.flows.checks import FAILED, WRONG_USE, check, files
from tests.flows.command import DN2, Done, Run, environment, server
from tests.flows.told import artifacts, run_id, task_runs

THRESHOLD = (
    r"threshold [\d.]+: flags about [\d.]+% \([\d.]+% to [\d.]+% at 90%\) of normal images "
    r"\(leave-one-out, (\d+) scores(?: in \d+ units)?\); [\d.]+ s\n"
)


@pytest.fixture
def confirmed(bricks: Bricks, tmp_path: Path) -> Path:
    """A folder of four good bricks that the bank does not know."""
    folder = tmp_path / "confirmed"
    folder.mkdir()
    for path in good(bricks)[:4]:
        shutil.copy(path, folder)
    return folder


def good(bricks: Bricks) -> list[Path]:
    return sorted(bricks.batch.glob("good-*.png"))


def add(run: Run, bricks: Bricks, source: Path | str, *more: str) -> Done:
    return run("bank", "add", source, "--bank", "bricks", "--store", bricks.store, *more)


def current(bricks: Bricks) -> dn2.BankVersion:
    return dn2.open_bank(bricks.store, "bricks")


def calibrating(bricks: Bricks) -> list[str]:
    """Return the ids of the images in the bank: all of them calibrate it."""
    path = f"banks/bricks/versions/{current(bricks).version}.calibration.parquet"
    return read_table(dn2.Store.open(bricks.store), path, CALIBRATION)["image_id"].to_pylist()


def neighbours(run: Run, bricks: Bricks, source: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Score a folder; return for each file its nearest normal images: their ids and the names of their files."""
    done = run("score", source, "--store", bricks.store, "--bank", "bricks", "--out", "report")
    assert (done.code, done.err) == (0, "") or "calibration images" in done.err
    rows = pq.read_table("report/part-00000.parquet").to_pylist()
    shutil.rmtree("report")
    return {
        Path(row["uri"]).name: (row["neighbor_ids"], [Path(uri).name for uri in row["neighbor_uris"]]) for row in rows
    }


def test_added_images_are_neighbours_and_the_second_time_nothing_is_new(
    run: Run, own_bricks: Bricks, confirmed: Path, tmp_path: Path
):
    first = own_bricks.bank
    done = add(run, own_bricks, confirmed)
    second = current(own_bricks)
    assert (done.code, done.err) == (0, "")
    said = re.fullmatch(
        rf"bank bricks, version {second.version}: 4 images added, 0 held out for calibration, 0 known already, "
        rf"0 copies not added, 0 rejected\n36 normal images now; {THRESHOLD}",
        done.out,
    )
    assert said is not None, done.out
    assert (second.version != first.version, second.rows, said[1]) == (True, 36, "36")
    assert f"threshold {second.threshold:.4g}:" in done.out

    (tmp_path / "new").mkdir()
    # the same picture, but no copy: other bytes
    (tmp_path / "new" / "same.png").write_bytes((confirmed / "good-03.png").read_bytes() + b"\0")
    assert neighbours(run, own_bricks, tmp_path / "new")["same.png"][1][0] == "good-03.png"

    shown = run("show", "--store", own_bricks.store).out
    assert re.search(rf"\* {second.version}  [-\d]+ [\d:]+, after {first.version}  \(current\)\n +36 images, ", shown)

    before = files(own_bricks.store)
    again = add(run, own_bricks, confirmed)
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith(
        f"bank bricks: nothing new: version {second.version} stays the current one; 0 images added, 0 held out for "
        f"calibration, 4 known already, 0 copies not added, 0 rejected\n36 normal images as before; threshold "
    )
    assert files(own_bricks.store) == before


def test_copies_are_named_and_unreadable_images_counted(run: Run, own_bricks: Bricks, confirmed: Path):
    shutil.copy(confirmed / "good-01.png", confirmed / "twin\x1b[31m.png")
    shutil.copy(next(own_bricks.normal.iterdir()), confirmed / "old.png")
    (confirmed / "broken.png").write_bytes(b"no picture")
    done = add(run, own_bricks, confirmed, "--dataset", "good")
    assert done.code == 0
    assert ": 4 images added, 0 held out for calibration, 0 known already, 2 copies not added, 1 rejected\n" in done.out
    named = re.search(r"\nsame bytes as an image that is in the bank or added: ([^\n]*)\n", done.out)
    assert named is not None
    assert sorted(named[1].split(", ")) == [f"file://{confirmed}/old.png", f"file://{confirmed}/twin\\x1b[31m.png"]
    assert (current(own_bricks).rows, "\x1b" in done.out) == (36, False)


def test_of_many_copies_some_are_named(run: Run, own_bricks: Bricks, confirmed: Path):
    for path in own_bricks.normal.iterdir():
        shutil.copy(path, confirmed / f"again-{path.name}")
    done = add(run, own_bricks, confirmed)
    assert re.search(r", 32 copies not added, .*\nsame bytes as [^\n]* and 22 more\n36 normal images now", done.out)
    assert len(re.findall("file://", done.out)) == 10


def test_image_that_a_report_names_is_removed(run: Run, own_bricks: Bricks, tmp_path: Path):
    (tmp_path / "new").mkdir()
    shutil.copy(own_bricks.batch / "good-01.png", tmp_path / "new")
    nearest = neighbours(run, own_bricks, tmp_path / "new")["good-01.png"][0]
    done = run("bank", "remove", nearest[0], nearest[1], "--bank", "bricks", "--store", own_bricks.store)
    bank = current(own_bricks)
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(
        rf"bank bricks, version {bank.version}: 2 images removed\n30 normal images now; {THRESHOLD}", done.out
    )
    assert (bank.rows, bank.removed, bank.version != own_bricks.bank.version) == (30, 2, True)
    left = neighbours(run, own_bricks, tmp_path / "new")["good-01.png"][0]
    assert set(left) & set(nearest[:2]) == set()

    back = add(run, own_bricks, own_bricks.normal)
    assert ": 2 images added, 0 held out for calibration, 30 known already, " in back.out
    assert neighbours(run, own_bricks, tmp_path / "new")["good-01.png"][0] == nearest


def test_removing_all_but_a_few_images_is_refused(run: Run, own_bricks: Bricks):
    before = files(own_bricks.store)
    done = run("bank", "remove", *calibrating(own_bricks)[1:], "--bank", "bricks", "--store", own_bricks.store)
    check(done, FAILED, "k: got 2, expected at most the bank rows that are no copies of the query")
    assert files(own_bricks.store) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["0123"], FAILED, "image ids: got 0123, expected ids of images in bank 'bricks'; reports list them as neigh"),
        (["[bold]"], FAILED, r"image ids: got \[bold\], expected ids of images"),
        (["0123", "--bank", "nuts"], WRONG_USE, "bank 'nuts': not in store .*, which has: bricks; make it with dn2 tr"),
        (["0123", "--bank", "../bricks"], WRONG_USE, r"bank: name '\.\./bricks' cannot be used"),
        (["0123", "--store", "nowhere"], WRONG_USE, "bank 'bricks': not in store .*/nowhere, which has: none"),
    ],
)
def test_nonsense_to_remove_is_refused_in_one_line_and_changes_nothing(
    run: Run, own_bricks: Bricks, tmp_path: Path, arguments: list[str], code: int, message: str
):
    before = files(tmp_path)
    defaults = [] if "--store" in arguments else ["--store", str(own_bricks.store)]
    defaults += [] if "--bank" in arguments else ["--bank", "bricks"]
    check(run("bank", "remove", *arguments, *defaults), code, message)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing"], WRONG_USE, "/missing: nothing is there: expected a folder or prefix with images"),
        (["confirmed", "--bank", "nuts"], WRONG_USE, "bank 'nuts': not in store .*, which has: bricks; make it with"),
        (["confirmed", "--bank", "../x"], WRONG_USE, r"bank: name '\.\./x' cannot be used"),
        (["confirmed", "--backbone", "nope"], WRONG_USE, "backbone: got 'nope', expected auto, efficientnet_lite0"),
        (
            ["confirmed", "--batch-size", "0"],
            WRONG_USE,
            r"--batch-size \(embed\.batch_size\) = 0: Input should be greater than",
        ),
        (["broken"], FAILED, "got 1 of 1 that cannot be read, expected .*; see file://"),
    ],
)
def test_nonsense_to_add_is_refused_in_one_line_and_leaves_the_bank_as_it_was(
    run: Run, own_bricks: Bricks, confirmed: Path, arguments: list[str], code: int, message: str
):
    (confirmed.parent / "broken").mkdir()
    (confirmed.parent / "broken" / "a.png").write_bytes(b"no picture")
    before = files(own_bricks.store / "banks")
    defaults = [] if "--bank" in arguments else ["--bank", "bricks"]
    check(run("bank", "add", *arguments, "--store", own_bricks.store, *defaults), code, message)
    assert files(own_bricks.store / "banks") == before


def test_bank_of_groups_neither_grows_nor_shrinks(run: Run, tmp_path: Path):
    make_pictures(tmp_path / "photos", 2)
    store = dn2.Store.open(tmp_path / "dn2-store")
    groups = write_groups(store, normal_groups([4] * 12, seed=0))
    dn2.fit_groups(groups, store, bank="lots", config=dn2.GroupFitConfig(false_alarm_rate=0.2))
    before = files(tmp_path)
    for command, argument in (("add", "photos"), ("remove", "0123")):
        check(run("bank", command, argument, "--bank", "lots"), FAILED, "bank 'lots'.* groups")
    assert files(tmp_path) == before


@pytest.mark.usefixtures("prefect_server")
def test_runs_show_the_version_on_their_pages(own_bricks: Bricks, confirmed: Path):
    store = str(own_bricks.store)
    state, tried = task_runs(bank_add, AddParameters(source=str(confirmed), store=store, bank="bricks"))
    assert tried == Counter({"open-bank": 1, "choose-embedder": 1, "ingest": 1, "plan": 1, "embed": 1, "add": 1})
    growth = state.result()
    assert (growth.bank, growth.added) == (current(own_bricks), 4)
    assert f"version {growth.bank.version}" in str(artifacts(run_id(state))["dn2-bank-bricks"].data)

    parameters = RemoveParameters(store=store, bank="bricks", image_ids=calibrating(own_bricks)[:3])
    state, tried = task_runs(bank_remove, parameters)
    assert tried == Counter({"open-bank": 1, "remove": 1})
    assert (state.result().bank, state.result().removed) == (current(own_bricks), 3)
    shown = str(artifacts(run_id(state))["dn2-bank-bricks"].data)
    assert (f"version {current(own_bricks).version}" in shown, "| normal images | 33 |" in shown) == (True, True)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_two_commands_at_once_lose_nothing(own_bricks: Bricks, confirmed: Path, tmp_path: Path):
    """Each in a process of its own; both folders' images are in the current version."""
    other = tmp_path / "other"
    other.mkdir()
    for path in good(own_bricks)[4:9]:
        shutil.copy(path, other)
    old = calibrating(own_bricks)
    started = [
        subprocess.Popen(
            [DN2, "bank", "add", source, "--bank", "bricks", "--store", own_bricks.store],
            env=environment(**server()),
            stdout=subprocess.PIPE,
            text=True,
        )
        for source in (confirmed, other)
    ]
    said = [process.communicate(timeout=200)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert [re.findall(r": (\d) images added", text) for text in said] == [["4"], ["5"]]
    bank = current(own_bricks)
    assert (bank.rows, bank.segment_count, bank.calibration_rows) == (41, 3, 41)
    ids = calibrating(own_bricks)
    assert (len(set(ids)), set(old) < set(ids)) == (41, True)
