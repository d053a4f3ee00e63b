"""Drops on a real server: told when they are complete, scored once, at the same time as nights and trainings."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import ValidationError

from flows.drops import WatchError, watch_drops
from flows.nightly import score_drop
from flows.parameters import DropParameters, WatchParameters
from tests.conftest import Bricks
from tests.flows.checks import files
from tests.flows.meanwhile import Meanwhile, die
from tests.flows.told import artifacts, events, run_id, write_sources

pytestmark = pytest.mark.usefixtures("prefect_server")
PREFECT_YAML = Path(__file__).parents[2] / "deployments" / "prefect.yaml"
NASTY = 'it\'s "one" | {{ two }} <3'  # a folder's name


@dataclass(frozen=True)
class Drops:
    """A store with the bank `bricks`, and a folder `in` beside it where drops arrive."""

    bricks: Bricks
    folder: Path

    def put(self, drop: str, *names: str, marker: bool = True) -> str:
        """Deliver images of the batch; return the drop's URI."""
        folder = self.folder / "in" / drop
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(self.bricks.batch / f"{name}.png", folder)
        if marker:
            (folder / "_READY").touch()
        return f"file://{folder}"

    def write(self, *more: dict[str, Any], **settings: Any) -> str:
        """Write a sources file that watches `in`."""
        watched = {"prefix": "in", "bank": "bricks", "marker": "_READY"} | settings
        return write_sources(
            self.folder / "sources.yaml", store="store", watch=[watched, *more], tell={"alert_rate": 0.25}
        )


@pytest.fixture
def drops(own_bricks: Bricks, tmp_path: Path) -> Drops:
    return Drops(own_bricks, tmp_path)


def look(sources: str) -> list[str]:
    """Look once; return the URIs of the drops that were told."""
    return [drop.uri for drop in watch_drops(WatchParameters(sources=sources))]


def ready(drop: str) -> list[dict[str, Any]]:
    """Return the payloads with which a drop was told to be ready."""
    return [event["payload"] for event in events("dn2.drop.ready", drop)]


def as_triggered(payload: dict[str, Any]) -> DropParameters:
    """Return the parameters that the trigger of prefect.yaml makes of a payload."""
    entries = {entry["name"]: entry for entry in yaml.safe_load(PREFECT_YAML.read_text())["deployments"]}
    (trigger,) = entries["score-drop"]["triggers"]
    assert trigger["expect"] == ["dn2.drop.ready"]
    environment = jinja2.Environment(autoescape=False)
    values = {
        name: environment.compile_expression(template.removeprefix("{{").removesuffix("}}"))(event={"payload": payload})
        for name, template in trigger["parameters"]["parameters"].items()
    }
    return DropParameters.model_validate(values)


def test_pattern_of_a_prefix_tells_the_groups_of_its_drops(drops: Drops):
    uri = drops.put("monday", "good-01", "material-00")
    look(drops.write(pattern="{label}-{group_id}.png"))
    (payload,) = ready(uri)
    report = score_drop(as_triggered(payload))
    assert report is not None
    rows = pq.read_table(f"{report.uri.removeprefix('file://')}/part-00000.parquet").to_pylist()
    assert {(row["label"], row["group_id"]) for row in rows} == {("good", "01"), ("material", "00")}


def test_complete_drop_is_told_once_and_scored_as_the_trigger_asks(drops: Drops):
    uri = drops.put(NASTY, "good-01", "material-00")
    late = drops.put("late", "good-03", marker=False)
    sources = drops.write()
    assert look(sources) == [uri]
    assert look(sources) == []
    (payload,) = ready(uri)
    parameters = as_triggered(payload)
    assert (parameters.source, parameters.bank, parameters.tell.alert_rate) == (uri, "bricks", 0.25)
    assert (parameters.store, payload["images"]) == (f"file://{drops.bricks.store}", 2)

    report = score_drop(parameters)
    assert report is not None
    assert (report.source, report.images, report.anomalous) == (uri, 2, 1)
    assert len(events("dn2.batch.anomalous", uri)) == 1
    drops.put("late")
    assert look(sources) == [late]
    assert len(ready(uri)) == 1


def test_drop_that_is_scored_is_not_told_again_though_nothing_is_remembered_of_it(drops: Drops):
    uri = drops.put("first", "good-01")
    sources = drops.write()
    assert look(sources) == [uri]
    score_drop(as_triggered(ready(uri)[0]))
    shutil.rmtree(drops.bricks.store / "watches")
    assert look(sources) == []
    drops.put("first", "good-03")
    assert look(sources) == [uri]


def test_look_that_died_before_it_remembered_is_repeated(drops: Drops):
    """The server has taken the event by then: at least once, not at most."""
    uri = drops.put("first", "good-01")
    sources = drops.write()
    with Meanwhile("noting", die), pytest.raises(KeyboardInterrupt):
        look(sources)
    (first,) = ready(uri)
    assert look(sources) == [uri]
    assert ready(uri) == [first] * 2
    assert look(sources) == []


def test_drop_that_is_never_scored_is_told_again_after_a_while(drops: Drops):
    uri = drops.put("first", "good-01")
    sources = drops.write(again_minutes=1e-9)
    assert [look(sources), look(sources)] == [[uri], [uri]]
    assert len(ready(uri)) == 2


@pytest.mark.parametrize("unit", ["folder", "prefix"])
def test_drop_without_a_marker_is_complete_when_two_looks_have_seen_the_same(drops: Drops, unit: str):
    uri = drops.put("first", "good-01", marker=False)
    expected = uri if unit == "folder" else uri.rpartition("/")[0]
    sources = drops.write(marker=None, unit=unit, settle_minutes=0)
    assert look(sources) == []
    drops.put("first", "good-03", marker=False)
    assert look(sources) == []
    assert look(sources) == [expected]
    assert [payload["images"] for payload in ready(expected)] == [2]


def test_prefix_that_fails_is_named_and_the_others_are_told(drops: Drops):
    uri = drops.put("first", "good-01")
    beside = drops.folder / "in" / "stray.png"
    shutil.copy(drops.bricks.batch / "good-03.png", beside)
    sources = drops.write({"prefix": "missing"})
    state = watch_drops(WatchParameters(sources=sources), return_state=True)
    assert state.is_failed()
    with pytest.raises(WatchError, match=r"^1 of 2 prefixes could not be looked at: file://.*/missing: .*nothing is"):
        state.result()
    assert len(ready(uri)) == 1
    shown = artifacts(run_id(state))["dn2-drops"]
    assert shown.description == "1 drops are complete"
    lines = str(shown.data).splitlines()
    assert lines[2].endswith("/in | 1 | 1 | 1 |")
    assert "/missing | failed: " in lines[3]
    assert lines[5].endswith("/in/first: 1 images, bank bricks")


def test_drop_that_comes_twice_is_scored_once(drops: Drops):
    """Two events of the same drop, as after a crash: the second run finds nothing to do."""
    uri = drops.put("first", "good-01", "good-03")
    parameters = DropParameters(source=uri, store=str(drops.bricks.store), bank="bricks", drop="0" * 32)
    report = score_drop(parameters)
    assert report is not None
    before = files(drops.bricks.store)
    mark = drops.bricks.store / "drops" / f"{'0' * 32}.json"
    assert json.loads(mark.read_text())["report"] == report.uri.removeprefix(f"file://{drops.bricks.store}/")
    assert score_drop(parameters) is None
    assert files(drops.bricks.store) == before


@pytest.mark.parametrize("identity", ["", "0" * 31, "0" * 33, "G" * 32, "../" + "0" * 29, "0" * 32 + "\n"])
def test_identity_that_is_none_is_refused(identity: str):
    """It becomes the name of a file."""
    with pytest.raises(ValidationError, match=r"drop\n  String should match pattern"):
        DropParameters(source="/in", drop=identity)


def test_drop_without_an_identity_is_scored_too(drops: Drops):
    """Asked for by hand: nobody waits for its mark."""
    uri = drops.put("first", "good-01")
    report = score_drop(DropParameters(source=uri, store=str(drops.bricks.store), bank="bricks"))
    assert report is not None
    assert report.images == 1
    assert not (drops.bricks.store / "drops").exists()
