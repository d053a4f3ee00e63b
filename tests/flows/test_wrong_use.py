"""Bad input gets one clear line and leaves nothing half-written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision

from tests.conftest import Bricks, make_pictures
from tests.flows.checks import FAILED, WRONG_USE, check, files
from tests.flows.command import Run

AT_LEAST, AT_MOST = "Input should be greater than or equal to", "Input should be less than or equal to"


@pytest.mark.parametrize("command", ["ingest", "embed", "clean", "train", "score"])
@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("missing", WRONG_USE, "/missing: nothing is there: expected a folder or prefix with images"),
        ("empty", FAILED, r"/empty: got no image \(0 other files\), expected files named \*\.jpg, \*\.jpeg, \*\.png"),
        ("texts", FAILED, r"/texts: got no image \(1 other files\), expected files named"),
        ("nope://bucket", WRONG_USE, "URL 'nope://bucket' cannot be opened: Protocol not known: nope"),
        ("", WRONG_USE, "empty path or URL: expected a folder, or a URL such as"),
    ],
)
def test_bad_source(run: Run, own_bricks: Bricks, tmp_path: Path, command: str, source: str, code: int, message: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no picture")
    bank = ["--bank", "bricks"] if command in ("train", "score") else []
    before = files(own_bricks.store)
    check(run(command, source, "--store", own_bricks.store, *bank), code, message)
    assert files(own_bricks.store) == before


def test_training_images_that_are_all_broken(run: Run, tmp_path: Path):
    """The rejects are listed where the message says; there is no bank."""
    (tmp_path / "broken").mkdir()
    for number in range(3):
        (tmp_path / "broken" / f"{number}.png").write_bytes(b"no picture")
    done = run("train", "broken", "--store", "store")
    check(done, FAILED, "got 3 of 3 that cannot be read, expected .*; see file://.*")
    listed = re.search(r"file://(\S*/rejects/\S*\.parquet)", done.err)
    assert listed is not None
    assert Path(listed[1]).is_file()
    assert not (tmp_path / "store" / "banks").exists()


def test_batch_whose_images_are_all_broken_is_reported_with_a_warning(run: Run, own_bricks: Bricks, tmp_path: Path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    done = run("score", "broken", "--store", own_bricks.store, "--bank", "bricks", "--out", "report")
    assert done.code == 0
    assert done.err.startswith("warning: none of the 1 images could be read: nothing was scored [none-scored]\n")
    assert "1 could not be read" in done.out
    assert "none of the 1 images could be read" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--backbone", "resnet99"], WRONG_USE, "backbone: got 'resnet99', expected auto, efficientnet_lite0"),
        (["--backbone", "resnet50"], FAILED, "backbone resnet50: got no weights file .*resnet50-0676ba61.pth; copy "),
        (["--k", "32"], FAILED, "k: got 32 with 32 different normal images in the bank, expected at least 33"),
        (["--k", "0"], WRONG_USE, rf"--k \(fit\.k\) = 0: {AT_LEAST} 1"),
        (["--far", "2"], WRONG_USE, r"--far \(fit\.false_alarm_rate\) = 2\.0: Input should be less than 1"),
        (["--bank", "../x"], WRONG_USE, "--bank: name '../x' cannot be used: expected 1 to 100 letters"),
        (["--dataset", "a/b"], WRONG_USE, "--dataset: name 'a/b' cannot be used: expected 1 to 100 letters"),
        (["--device", "tpu"], WRONG_USE, r"--device \(embed\.device\): got 'tpu', expected auto, cpu, cuda or cuda:N"),
        (["--nprobe", "0"], WRONG_USE, rf"--nprobe \(fit\.nprobe\) = 0: {AT_LEAST} 1"),
        (["--recall", "1.5"], WRONG_USE, rf"--recall \(fit\.recall\) = 1\.5: {AT_MOST} 1"),
        (
            ["--segment-rows", "0"],
            WRONG_USE,
            rf"--segment-rows \(fit\.segment_rows\) = 0: {AT_LEAST} 1",
        ),
        (
            ["--shard-size", "0"],
            WRONG_USE,
            rf"--shard-size \(embed\.shard_size\) = 0: {AT_LEAST} 1",
        ),
    ],
)
def test_bad_setting_of_train(run: Run, own_bricks: Bricks, options: list[str], code: int, message: str):
    """The bank that is there stays as it is."""
    before = files(own_bricks.store)
    options = options if "--bank" in options else [*options, "--bank", "bricks"]
    check(run("train", own_bricks.normal, "--store", own_bricks.store, *options), code, message)
    assert files(own_bricks.store) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--far", "0"], r"--far \((score\.)?threshold\.false_alarm_rate\) = 0\.0: Input should be greater than 0"),
        (
            ["--quantile", "1.5"],
            rf"--quantile \((score\.)?threshold\.quantile\) = 1\.5: {AT_MOST} 1",
        ),
        (
            ["--threshold", "-1"],
            rf"--threshold \((score\.)?threshold\.value\) = -1\.0: {AT_LEAST} 0",
        ),
        (
            ["--budget", "0"],
            rf"--budget \((score\.)?threshold\.budget\) = 0: {AT_LEAST} 1",
        ),
        (["--fdr", "1"], r"--fdr \((score\.)?false_discovery_rate\) = 1\.0: Input should be less than 1"),
        (
            ["--far", "0.1", "--budget", "3"],
            "got --far 0.1 and --budget 3, expected at most one of --far, --quantile, --thre",
        ),
    ],
)
def test_bad_threshold_of_score_and_rethreshold(run: Run, own_bricks: Bricks, options: list[str], message: str):
    store = ["--store", own_bricks.store]
    assert run("score", own_bricks.normal, *store, "--bank", "bricks", "--out", "report").code == 0
    before = files(own_bricks.store)
    check(run("score", own_bricks.batch, *store, "--bank", "bricks", *options), WRONG_USE, message)
    check(run("rethreshold", "report", *options), WRONG_USE, message)
    assert files(own_bricks.store) == before


def test_unknown_bank_names_those_there_are(run: Run, own_bricks: Bricks, tmp_path: Path):
    done = run("score", own_bricks.batch, "--store", own_bricks.store, "--bank", "brick")
    check(done, WRONG_USE, "bank 'brick': not in store file://.*/store, which has: bricks; make it with dn2 train")
    done = run("score", own_bricks.batch, "--store", "elsewhere", "--bank", "bricks")
    check(done, WRONG_USE, "bank 'bricks': not in store file://.*/elsewhere, which has: none")
    assert not (tmp_path / "elsewhere").exists()


def test_bank_of_another_embedder_names_both(
    run: Run, own_bricks: Bricks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weights = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    before = files(own_bricks.store)
    done = run("score", own_bricks.batch, "--store", own_bricks.store, "--bank", "bricks", "--backbone", "resnet18")
    check(
        done,
        FAILED,
        f"bank 'bricks' was made by embedder {own_bricks.bank.embedder}, got resnet18-[0-9a-f]{{12}}: use its backbone",
    )
    assert files(own_bricks.store) == before


@pytest.mark.parametrize("store", ["file", "file/below", "/proc/dn2"])
def test_store_that_cannot_be_written(run: Run, pictures: Path, tmp_path: Path, store: str):
    (tmp_path / "file").write_text("precious")
    for command in ("ingest", "embed", "train"):
        check(run(command, pictures, "--store", store), FAILED, f"store file://.*{store}: cannot ")
    done = run("score", pictures, "--store", store)
    assert re.fullmatch("error: [^\n]*\n", done.err)
    assert done.code in (WRONG_USE, FAILED)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("full", "out: got .*/full, which holds other files, expected a new or empty folder, or a report"),
        ("file", "out: got .*/file, which is a file, expected a folder"),
        ("s3://bucket/report", "out: got s3://bucket/report, expected a local folder; in the store the report is at"),
    ],
)
def test_report_is_never_written_over_something_else(
    run: Run, own_bricks: Bricks, tmp_path: Path, out: str, message: str
):
    """Refused before any work is done."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    before = files(tmp_path)
    done = run("score", own_bricks.batch, "--store", own_bricks.store, "--bank", "bricks", "--out", out)
    check(done, WRONG_USE, message)
    assert files(tmp_path) == before


def test_dataset_name_of_another_source_is_refused(run: Run, pictures: Path, tmp_path: Path):
    make_pictures(tmp_path / "others", 2, seed=1)
    assert run("ingest", pictures, "--store", "store", "--dataset", "mine").code == 0
    done = run("ingest", "others", "--store", "store", "--dataset", "mine")
    check(done, WRONG_USE, "dataset 'mine' in .*: got source file://.*/others, expected file://.*/pictures; choose ano")


def test_hostile_folder_name_is_shown_as_it_is(run: Run, tmp_path: Path):
    """No markup of the terminal's is made of it."""
    check(run("ingest", "[red]x[/red]"), FAILED, r"/\[red\]x\[/red\]: got no image .* fits '\[red\]x\[/red\]'; ")


def test_weights_that_do_not_fit(run: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"not weights")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    done = run("train", pictures, "--store", "store", "--backbone", "resnet18")
    check(done, FAILED, "backbone resnet18: weights file .* does not fit: ")
    assert not (tmp_path / "store" / "banks").exists()
