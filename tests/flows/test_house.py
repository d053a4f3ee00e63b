"""Keeping house on the command line: `dn2 compact`, `dn2 prune`, and what `dn2 show` says of both."""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from pathlib import Path

import pytest

import dn2
from dn2.images.manifest import part_names
from dn2.store.storage import Store
from dn2.words import bytes_in_words
from tests.conftest import Bricks, make_pictures
from tests.dn2.upkeep.full import Full
from tests.flows.checks import FAILED, WRONG_USE, check, files
from tests.flows.command import Run
from tests.flows.nights import Nights


@pytest.fixture
def nights(own_bricks: Bricks, tmp_path: Path) -> Nights:
    return Nights(own_bricks, tmp_path)


def older(store: Path, days: float) -> None:
    """Make all files look as if they were written some days ago."""
    for path in store.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - days * 86_400,) * 2)


def test_three_nights_are_merged_and_the_fourth_scores_only_what_is_new(run: Run, nights: Nights, tmp_path: Path):
    names = sorted(path.stem for path in nights.bricks.batch.glob("*.png"))
    sources = nights.write("inbox")
    for number in range(3):
        nights.put("inbox", *names[2 * number : 2 * number + 2])
        assert run("nightly", sources).code == 0
    store = tmp_path / "store"
    dataset = next(path.name for path in (store / "manifests").iterdir() if path.name.startswith("inbox"))
    done = run("compact", dataset, "--store", store)
    assert (done.code, done.err) == (0, "")
    merged = "3 manifest parts merged into 000003-[0-9a-f]{16}-all, 6 images, 1 shard written; 3 files,"
    assert re.match(f"dataset {dataset}: {merged}", done.out)
    assert run("compact", "--all", "--store", store).out.count("nothing to merge\n") == 2
    assert "inbox, bank bricks: nothing new\n" in run("nightly", sources).out
    nights.put("inbox", names[6])
    fourth = run("nightly", sources)
    assert re.search(r"inbox, bank bricks: [01] of 1 new images are anomalous\n", fourth.out)
    older(store, 3)
    before = files(store)
    shown, told = run("show", "--store", store).out, run("prune", "--store", store)
    assert files(store) == before
    assert (told.code, told.err) == (0, "")
    assert "  manifest parts that were merged: 3 (3 files, " in told.out
    assert "  manifest parts that were merged: 3 (3 files, " in shown
    assert re.search(r"nothing was deleted; --yes deletes \d+ files, [\d.]+ kB\n", told.out)
    removed = run("prune", "--store", store, "--reports", "1", "--yes")
    assert "  reports: 3 (" in removed.out
    assert re.search(r"\ndeleted: \d+ files, [\d.]+ [kM]B\n$", removed.out)
    assert run("prune", "--store", store, "--reports", "1").out.endswith("nothing to delete\n")
    assert "inbox, bank bricks: nothing new\n" in run("nightly", sources).out
    assert run("score", nights.bricks.normal, "--store", store, "--bank", "bricks").code == 0


def test_what_cannot_be_merged_without_work_is_told_as_a_warning(run: Run, nights: Nights, tmp_path: Path):
    names = sorted(path.stem for path in nights.bricks.batch.glob("*.png"))
    sources = nights.write("inbox")
    for number in range(2):
        nights.put("inbox", names[number])
        assert run("nightly", sources).code == 0
    nights.put("inbox", names[2])
    dn2.ingest(tmp_path / "inbox", tmp_path / "store")
    done = run("compact", "--all", "--store", tmp_path / "store")
    assert done.code == 0
    assert "2 manifest parts merged" in done.out
    assert re.search(r"warning: dataset inbox-\w+: the manifest parts from 000003-\w+ on were not merged: ", done.err)


def test_wrong_use_is_told_in_one_line(run: Run, tmp_path: Path):
    Full(str(tmp_path / "dn2-store"), tmp_path / "photos")
    before = files(tmp_path / "dn2-store")
    check(run("compact"), WRONG_USE, "dataset: got none, expected the name of a dataset, or --all")
    check(run("compact", "photos", "--all"), WRONG_USE, "dataset: got 'photos' and --all, expected the name")
    check(run("compact", "../x"), WRONG_USE, "name '../x' cannot be used")
    check(run("compact", "nope"), WRONG_USE, "dataset 'nope': not in store .*, which has: photos")
    check(run("prune", "--reports", "-1"), WRONG_USE, "reports = -1")
    check(run("prune", "--age", "-0.5"), WRONG_USE, "age = -0.5")
    check(run("prune", "--store", "nothing"), WRONG_USE, "nothing: got nothing that dn2 has made, expected a store")
    assert not (tmp_path / "nothing").exists()
    assert {path: entry for path, entry in files(tmp_path / "dn2-store").items() if ".tmp" not in str(path)} == {
        path: entry for path, entry in before.items() if ".tmp" not in str(path)
    }


def test_damage_stops_prune_and_show_tells_the_rest(run: Run, tmp_path: Path):
    full = Full(str(tmp_path / "dn2-store"), tmp_path / "photos")
    path = tmp_path / "dn2-store" / "banks" / "parts" / "versions" / f"{full.first.version}.json"
    path.write_bytes(b"{")
    done = run("prune", "--age", "0", "--yes")
    check(done, FAILED, "nothing was deleted: cannot tell what is unused: .*got a damaged file")
    assert all(Path(report.uri.removeprefix("file://")).exists() for report in full.reports)
    shown = run("show")
    assert shown.code == FAILED
    assert "unused files: not known while something cannot be read\n" in shown.out


def test_hostile_names_of_our_files_are_told_as_text_and_those_of_others_are_left_alone(run: Run, tmp_path: Path):
    Full(str(tmp_path / "dn2-store"), tmp_path / "photos")
    names = [os.fsdecode(name) for name in (b"\xff[bold]-0123456789ab", b"\xff[bold]\n\x1b[31m")]
    paths = [
        tmp_path / "dn2-store" / "embeddings" / names[0] / "probes.parquet",
        tmp_path / "dn2-store" / ".tmp" / names[0],
        tmp_path / "dn2-store" / "manifests" / names[1] / f"000001-{1:016x}.parquet",
    ]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"old")
        os.utime(path, (10**9, 10**9))
    done = run("prune")
    assert (done.code, done.err) == (0, "")
    assert "  embedders that no bank uses: 1 (1 file, 3 bytes)\n    embeddings/\\udcff[bold]-0123456789ab\n" in done.out
    assert ".tmp" not in done.out
    assert run("prune", "--yes").code == 0
    assert [path.exists() for path in paths] == [False, True, True]
    done = run("compact", "--all")
    assert (done.code, done.out.count("nothing to merge\n")) == (0, 1)
    assert "warning: store " in done.err
    assert "a folder of manifests was passed over: name '\\udcff[bold]\\n\\x1b[31m' cannot be used: " in done.err


def test_damaged_shard_does_not_keep_other_datasets_from_being_merged(run: Run, tmp_path: Path):
    """The dataset whose name comes first is damaged; the error is told when the others are done."""
    store = tmp_path / "store"
    for name in ("a", "b"):
        folder = tmp_path / name
        for number in (3, 5):
            make_pictures(folder, number)
            assert run("embed", folder, "--store", store, "--dataset", name).code == 0
    for shard in (store / "embeddings").rglob("a/*[0-9a-f].parquet"):
        shard.write_bytes(shard.read_bytes()[:-50])

    done = run("compact", "--all", "--store", store)

    assert done.code == FAILED
    assert re.search(r"error: .*/a/.* got a damaged file", done.err)
    assert len(part_names(Store.open(store), "a")) == 2
    assert len(part_names(Store.open(store), "b")) == 1


def test_damaged_dataset_does_not_keep_the_others_from_being_merged(run: Run, tmp_path: Path):
    Full(str(tmp_path / "dn2-store"), tmp_path / "photos")
    for count in (2, 3):
        make_pictures(tmp_path / "new", count)
        dn2.ingest(tmp_path / "new", tmp_path / "dn2-store", dataset="new")
    damaged = tmp_path / "dn2-store" / "manifests" / "damaged" / f"000001-{1:016x}-all.parquet"
    damaged.parent.mkdir()
    damaged.write_bytes(b"x")
    check(run("compact", "--all"), FAILED, f"file://{damaged}: ")
    (part,) = part_names(Store.open(tmp_path / "dn2-store"), "new")
    assert part.endswith("-all")


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (999_499, "999 kB"), (999_600, "1 MB")],
)
def test_bytes_have_three_digits(count: int, words: str):
    assert bytes_in_words(count) == words
    assert bytes_in_words(10**9 + count).endswith(" GB")
    assert bytes_in_words(4_200_000 * 10**9) == "4,200 TB"


@pytest.mark.s3
def test_store_in_a_bucket_is_kept_in_order(run: Run, s3_bucket: str, tmp_path: Path):
    url = f"{s3_bucket}/{uuid.uuid4().hex}"
    for count in (2, 3, 4):
        make_pictures(tmp_path / "photos", count)
        dn2.ingest(tmp_path / "photos", url, dataset="photos")
    done = run("compact", "photos", "--store", url)
    assert (done.code, done.err) == (0, "")
    assert "3 manifest parts merged" in done.out
    (part,) = part_names(Store.open(url), "photos")
    assert part.endswith("-all")
    assert run("prune", "--store", url).out == f"store {url}\nnothing to delete\n"
    assert re.search(r"photos: 4 images in 1 manifest part, .*\n    4 files, ", run("show", "--store", url).out)
    shutil.rmtree(tmp_path / "photos")
