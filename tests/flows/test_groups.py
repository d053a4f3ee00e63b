"""`dn2 train-groups` and `dn2 score-groups`, groups in nightly runs and drops: flows, commands, artifacts, events."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import dn2
from flows.drops import watch_drops
from flows.groups import score_groups, train_groups
from flows.nightly import nightly_score, score_drop
from flows.parameters import (
    DropParameters,
    NightlyParameters,
    ScoreGroupsParameters,
    TrainGroupsParameters,
    WatchParameters,
)
from tests.flows.checks import FAILED, WRONG_USE, check, files
from tests.flows.command import Run
from tests.flows.told import artifacts, events, rows, run_id, task_runs, write_sources

TIME = r"\d+\.\d s"
PATTERN = "{group_id}/*"
COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210), "white": (240, 240, 240)}


def put_group(folder: Path, *colors: str, seed: int = 0) -> None:
    """Write one picture of each colour, with some noise, into a folder; more come behind those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    have = len(list(folder.iterdir()))
    random = np.random.default_rng([seed, have, *folder.name.encode()])
    for number, color in enumerate(colors, start=have):
        noise = random.integers(-25, 26, (40, 48, 3))
        pixels = np.clip(np.array(COLORS[color]) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}-{color}.png")


@pytest.fixture(scope="module")
def lots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 normal lots with a red, a green and a blue picture each; of today one that is normal, one odd, one tiny."""
    root = tmp_path_factory.mktemp("lots")
    for number in range(12):
        put_group(root / "normal" / f"lot{number:02d}", "red", "green", "blue")
    put_group(root / "today" / "fine", "red", "green", "blue", seed=1)
    put_group(root / "today" / "odd", "red", "red", "white", seed=1)
    put_group(root / "today" / "tiny", "red", seed=1)
    (root / "today" / "odd" / "broken.png").write_text("nothing")
    put_group(root / "today", "green", seed=1)
    return root


@pytest.fixture
def trained(lots: Path, tmp_path: Path, prefect_server: None) -> Path:
    """A store with the bank of groups `lots`."""
    store = tmp_path / "store"
    embedded = dn2.embed(dn2.ingest(lots / "normal", store, pattern=PATTERN), store)
    config = dn2.GroupFitConfig(pooling="histogram", false_alarm_rate=0.1)
    dn2.fit_groups(embedded, store, bank="lots", config=config)
    return store


def groups_of(report: Any) -> dict[str, dict[str, Any]]:
    folder = Path(report if isinstance(report, Path) else report.uri.removeprefix("file://"))
    return {row["group_id"]: row for row in pq.read_table(folder / "groups.parquet").to_pylist()}


def test_commands_train_and_score_groups_and_do_it_once(run: Run, lots: Path, tmp_path: Path):
    how = ["--pattern", PATTERN, "--pooling", "histogram", "--far", "0.1"]
    first = run("train-groups", lots / "normal", *how)
    assert first.code == 0, first.err
    assert re.fullmatch(
        r"bank groups, version [0-9a-f]{16}: 12 normal groups, 36 images in all, \d+ units, \S+, pooling histogram, "
        r"k = 2, l2\n"
        rf"thresholds for groups of 1 to 3 independent images: flag about 10\.00% of normal groups; {TIME}\n",
        first.out,
    ), first.out
    done = run("score-groups", lots / "today", "--pattern", PATTERN, "--out", "report")
    assert done.code == 0, done.err
    assert "1 of 9 images fit no group" in done.err
    assert re.match(
        rf"1 of 2 groups are anomalous, 1 could not be scored; 9 images, 1 in no group, 1 could not be read; {TIME}\n"
        r"threshold: for each size, at a false-alarm rate of 10%; \d groups are selected at a false-discovery rate of "
        rf"10%\nreport: {re.escape(str(tmp_path))}/report/report\.html\n$",
        done.out,
    ), done.out
    found = groups_of(tmp_path / "report")
    assert list(found) == ["odd", "fine", "tiny"]
    assert (found["odd"]["is_anomaly"], found["odd"]["members"], found["odd"]["rejected"]) == (True, 3, 1)
    assert found["tiny"]["reason"] == "1 readable images, expected at least 2"
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "groups.parquet",
        "part-00000.parquet",
        "report.html",
        "summary.json",
    }
    before = files(tmp_path / "dn2-store")
    assert run("train-groups", lots / "normal", *how).code == 0
    assert run("score-groups", lots / "today", "--pattern", PATTERN, "--out", "report").code == 0
    assert files(tmp_path / "dn2-store") == before


def test_table_says_which_images_belong_together_and_gives_the_same_scores(run: Run, lots: Path, tmp_path: Path):
    for part in ("normal", "today"):
        with (tmp_path / f"{part}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["uri", "group_id"])
            table.writerows([path, path.parent.name] for path in (lots / part).glob("*/*.png"))
    for how, sources in (("table", ["normal.csv", "today.csv"]), ("folder", [lots / "normal", lots / "today"])):
        more = ["--pattern", PATTERN] if how == "folder" else []
        assert run("train-groups", sources[0], "--bank", how, *more).code == 0
        assert run("score-groups", sources[1], "--bank", how, "--out", how, *more).code == 0
    by_table, by_folder = groups_of(tmp_path / "table"), groups_of(tmp_path / "folder")
    assert by_table.pop("tiny")["score"] is by_folder.pop("tiny")["score"] is None
    assert {name: row["score"] for name, row in by_table.items()} == {
        name: pytest.approx(row["score"], rel=1e-3) for name, row in by_folder.items()
    }


def test_nonsense_is_refused_in_one_line(run: Run, lots: Path):
    message = r"file://\S+/normal: got images without groups, expected groups; give a pattern"
    check(run("train-groups", lots / "normal"), WRONG_USE, message)
    check(run("train-groups", lots / "normal", "--pattern", "{group}/*"), WRONG_USE, r".*got the field \{group\}")
    check(run("train-groups", lots / "normal", "--far", "0", "--pattern", PATTERN), WRONG_USE, "fit.false_alarm_rate")
    check(run("score-groups", lots / "today", "--pattern", PATTERN), WRONG_USE, "bank 'groups': not in store")
    options = ["--pattern", PATTERN, "--min-size", "9"]
    check(
        run("train-groups", lots / "normal", *options),
        FAILED,
        "k: got 2 with 0 of [0-9]+ groups with 9 or more readable",
    )


def test_bank_of_the_other_kind_is_refused_both_ways(run: Run, lots: Path):
    assert run("train-groups", lots / "normal", "--pattern", PATTERN, "--bank", "sets").code == 0
    assert run("train", lots / "normal", "--bank", "images").code == 0
    check(run("score", lots / "today", "--bank", "sets"), FAILED, "bank 'sets': got a bank of groups .*choose another")
    check(run("train", lots / "normal", "--bank", "sets"), FAILED, "bank 'sets': got a bank of groups ")
    how = ["--pattern", PATTERN, "--bank", "images"]
    check(run("score-groups", lots / "today", *how), FAILED, "bank 'images': got a bank of images .*choose another")
    check(run("train-groups", lots / "normal", *how), FAILED, "bank 'images': got a bank of images ")
    assert run("score", lots / "today", "--bank", "images").code == 0


def test_report_of_groups_is_not_decided_anew(run: Run, lots: Path):
    assert run("train-groups", lots / "normal", "--pattern", PATTERN).code == 0
    assert run("score-groups", lots / "today", "--pattern", PATTERN, "--out", "report").code == 0
    check(run("rethreshold", "report", "--budget", "1"), WRONG_USE, r"report \S+/report: got one of groups, expected")


@pytest.mark.usefixtures("prefect_server")
def test_flows_show_and_tell_what_they_found(lots: Path, tmp_path: Path):
    store = str(tmp_path / "store")
    shared = {"store": store, "bank": "lots", "pattern": PATTERN}
    fit = {"pooling": "histogram", "false_alarm_rate": 0.1}
    parameters = TrainGroupsParameters.model_validate({**shared, "source": str(lots / "normal"), "fit": fit})
    state, tried = task_runs(train_groups, parameters)
    assert tried["fit-groups"] == 1
    shown = artifacts(run_id(state))
    assert "| normal groups | 12; 36 images in all, 36 units, pooling histogram |" in str(shown["dn2-bank-lots"].data)

    today = f"file://{lots / 'today'}"
    parameters = ScoreGroupsParameters.model_validate({**shared, "source": today, "tell": {"alert_rate": 0.1}})
    state, tried = task_runs(score_groups, parameters)
    assert (tried["open-group-bank"], tried["score-groups"]) == (1, 1)
    shown = artifacts(run_id(state))
    assert shown["dn2-report-lots"].description == "**1 of 2** groups are anomalous, 1 could not be scored"
    worst = rows(shown["dn2-worst-lots"])
    assert [(row["group"], row["anomalous"]) for row in worst] == [("odd", "yes"), ("fine", "no")]
    assert worst[0]["image that contributes most"].startswith("odd/")
    report = state.result()
    for name in ("dn2.batch.scored", "dn2.batch.anomalous"):
        (told,) = [one for one in events(name, today) if one["payload"]["report"] == report.uri]
        assert {key: told["payload"][key] for key in ("of", "groups", "scored", "anomalous", "unscored", "images")} == {
            "of": "groups",
            "groups": 3,
            "scored": 2,
            "anomalous": 1,
            "unscored": 1,
            "images": 9,
        }


def test_night_scores_groups_that_got_images_with_those_they_had(trained: Path, tmp_path: Path):
    line = tmp_path / "line"
    put_group(line / "a", "red", "green")
    put_group(line / "b", "red", "green", "blue")
    entry = {"source": "line", "bank": "lots", "pattern": PATTERN, "groups": True}
    sources = write_sources(tmp_path / "sources.yaml", store="store", nightly=[entry])

    (first,) = nightly_score(NightlyParameters(sources=sources))
    assert {name: row["members"] for name, row in groups_of(first.report).items()} == {"a": 2, "b": 3}
    (nothing,) = nightly_score(NightlyParameters(sources=sources))
    assert nothing.report is None

    put_group(line / "a", "white", "white", seed=2)
    put_group(line / "c", "red", "green", "blue", seed=2)
    (second,) = nightly_score(NightlyParameters(sources=sources))
    assert second.in_words() == "1 of 2 groups with new images are anomalous"
    found = groups_of(second.report)
    assert {name: row["members"] for name, row in found.items()} == {"a": 4, "c": 3}
    assert found["a"]["is_anomaly"]

    shutil.rmtree(line / "c")
    (third,) = nightly_score(NightlyParameters(sources=sources))
    assert (third.report, third.vanished) == (None, 3)


def test_group_bank_that_is_one_of_images_fails_alone_in_its_night(trained: Path, lots: Path, tmp_path: Path):
    embedded = dn2.embed(dn2.ingest(lots / "normal", trained), trained)
    dn2.fit(embedded, trained, bank="images")
    put_group(tmp_path / "line" / "a", "red", "green", "blue")
    entries = [
        {"source": "line", "bank": bank, "pattern": PATTERN, "groups": groups}
        for bank, groups in (("images", True), ("lots", True), ("lots", False))
    ]
    sources = write_sources(tmp_path / "sources.yaml", store="store", nightly=entries[:2])
    with pytest.raises(dn2.Dn2Error, match=r"1 of 2 sources failed.*'images': got a bank of images") as caught:
        nightly_score(NightlyParameters(sources=sources))
    assert [one.error is None for one in caught.value.outcomes] == [False, True]  # type: ignore[attr-defined]


def test_drop_of_groups_is_told_with_all_that_scoring_it_needs(trained: Path, tmp_path: Path):
    for lot in ("x", "y"):
        put_group(tmp_path / "drops" / "monday" / lot, "red", "green", "blue", seed=3)
    (tmp_path / "drops" / "monday" / "_READY").touch()
    watch = {"prefix": "drops", "bank": "lots", "marker": "_READY", "pattern": PATTERN, "groups": True}
    more = {"group_score": {"report_members": 1}}
    sources = write_sources(tmp_path / "sources.yaml", store="store", watch=[watch], **more)
    (drop,) = watch_drops(WatchParameters(sources=sources))
    (told,) = events("dn2.drop.ready", drop.uri)
    payload = told["payload"]
    assert (payload["groups"], payload["pattern"], payload["group_score"]["report_members"]) == (True, PATTERN, 1)
    named = ("store", "bank", "drop", "pattern", "groups", "embed", "score", "group_score", "tell")
    values = {name: payload[name] for name in named}
    report = score_drop(DropParameters.model_validate({"source": payload["uri"], **values}))
    assert set(groups_of(report)) == {"x", "y"}
    assert json.loads((Path(report.uri.removeprefix("file://")) / "summary.json").read_text())["groups"] == 2
    assert watch_drops(WatchParameters(sources=sources)) == ()


@pytest.mark.parametrize("pattern", [[], ["--pattern", "{label}/*"]])
def test_folder_without_groups_is_refused_before_it_is_embedded(
    run: Run, trained: Path, lots: Path, pattern: list[str]
):
    before = files(trained)
    for command in (["train-groups", "--bank", "other"], ["score-groups", "--bank", "lots"]):
        done = run(command[0], lots / "today", "--store", "store", *command[1:], *pattern)
        check(done, WRONG_USE, r"\S+/today: got images without groups, expected groups; give a pattern")
    assert files(trained) == before


def test_bank_of_the_other_kind_is_refused_before_training_images_are_embedded(run: Run, trained: Path, lots: Path):
    before = files(trained)
    check(run("train", lots / "today", "--store", "store", "--bank", "lots"), FAILED, "bank 'lots': got a bank of gr")
    assert files(trained) == before
