"""`python -m deployments.deploy` against a real server: what is there afterwards, and what it does by itself."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas import FlowRun
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events import Event, Resource
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed, Failed, Running

import deployments.automations
import deployments.deploy
from tests.deployments.conftest import ENTRIES, Deployed, deploy
from tests.flows.told import ask, eventually, write_sources
from tests.pages import blocks

HOUSEKEEPING = "docs/housekeeping.md"
PREFECT = Path(sys.executable).parent / "prefect"
NAMES = sorted(entry["name"] for entry in ENTRIES)
NASTY = "a|b \"c\" 'd' {{ e }} {% f %} <g> \\ ü"


@pytest.fixture
def client(deployed: Deployed) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found


def read(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """Return the deployments of our flows by name."""
    found = [one for one in client.read_deployments() if "dn2" in one.tags]
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def automations() -> dict[str, dict[str, Any]]:
    """Return the automations by name; each is there once."""
    found = [one for one in ask("/automations/filter", {}) if one["name"].startswith("dn2")]
    assert len({one["name"] for one in found}) == len(found)
    return {one["name"]: one for one in found}


def limits() -> dict[str, int]:
    return {one["name"]: one["limit"] for one in ask("/v2/concurrency_limits/filter", {}) if "dn2-" in one["name"]}


def test_all_is_there_and_is_said(deployed: Deployed, client: SyncPrefectClient):
    assert sorted(read(client)) == NAMES
    names = [
        "dn2: crashed runs start again",
        "dn2: dead runs are marked Crashed",
        "dn2: score drops that are ready",
        "dn2: tell of anomalous batches",
        "dn2: tell of failed runs",
        "dn2: tell of scored batches",
    ]
    assert sorted(automations()) == names
    assert [name for name, one in automations().items() if not one["enabled"]] == [names[-1]]
    assert limits() == {}
    assert client.read_work_pool("dn2").type == "process"
    said = deployed.out.splitlines()
    assert said[0] == "work pool: dn2"
    assert {line for line in said if line.startswith("deployment")} == {f"deployment: {name}/{name}" for name in NAMES}
    assert {line.partition(": ")[2] for line in said if line.startswith("automation")} == {*names} - {names[2]}
    assert said[-2:] == [f"sources: file://{deployed.sources}", "now start a worker: prefect worker start --pool dn2"]


def test_deployment_is_given_a_time_by_the_command_of_the_page(deployed: Deployed, client: SyncPrefectClient):
    (line,) = [one for block in blocks(HOUSEKEEPING, "sh") for one in block.splitlines() if " schedule create " in one]
    subprocess.run([PREFECT, *shlex.split(line)[1:]], env=dict(deployed.env), capture_output=True, check=True)
    compact = read(client)["compact"]
    assert [(one.schedule.cron, one.schedule.timezone) for one in compact.schedules] == [("0 6 * * 0", "UTC")]
    client.delete_deployment_schedule(compact.id, compact.schedules[0].id)


def test_schedules_parameters_and_limits_come_from_file_and_environment(deployed: Deployed, client: SyncPrefectClient):
    found = read(client)
    schedules = {
        name: [(one.slug, one.schedule.cron, one.schedule.timezone, one.active) for one in entry.schedules]
        for name, entry in found.items()
    }
    assert schedules == {name: [] for name in NAMES} | {
        "nightly-score": [("nightly", "30 1 * * 1-5", "Europe/Berlin", True)],
        "watch-drops": [("every-five-minutes", "*/5 * * * *", "UTC", True)],
    }
    queues = {
        name: (entry.global_concurrency_limit.limit, entry.concurrency_options.collision_strategy.value)
        for name, entry in found.items()
        if entry.global_concurrency_limit and entry.concurrency_options
    }
    assert queues == {
        "nightly-score": (1, "CANCEL_NEW"),
        "watch-drops": (1, "CANCEL_NEW"),
        "score-drop": (1, "ENQUEUE"),
    }
    parameters = {"parameters": {"sources": f"file://{deployed.sources}"}}
    assert found["nightly-score"].parameters == found["watch-drops"].parameters == parameters
    for entry in found.values():
        assert (entry.work_pool_name, entry.tags) == ("dn2", ["dn2"])
        assert entry.job_variables == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
        assert entry.description


def post(event: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
    body = Event(event=event, resource=Resource(resource), payload=payload).model_dump(mode="json")
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[body])


def test_event_of_a_drop_schedules_a_run_with_the_payloads_parameters(client: SyncPrefectClient):
    """Names keep every character, settings stay objects, and what is missing gets its default."""
    of_drops = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[read(client)["score-drop"].id]))
    whole = {
        "drop": "0f" * 16,
        "uri": f"file:///in/{NASTY}",
        "store": f"s3://bucket/{NASTY}",
        "bank": "parts",
        "images": 3,
        "pattern": "{label}/{group_id}/*",
        "groups": True,
        "embed": {"batch_size": 7, "device": "cpu"},
        "score": {"max_reject_rate": 0.25},
        "group_score": {"report_groups": 5},
        "tell": {"alert_rate": 0.5, "report_base_url": "http://host/a?b=c&d"},
    }
    least = {"uri": "s3://bucket/in/x", "store": "s3://bucket/dn2", "bank": "default"}
    post("dn2.drop.ready", {"prefect.resource.id": f"somebody-elses.{uuid4().hex}"}, least)
    post("dn2.drop.read", {"prefect.resource.id": f"dn2.drop.{uuid4().hex}"}, least)
    for payload in (whole, least):
        post("dn2.drop.ready", {"prefect.resource.id": f"dn2.drop.{uuid4().hex}"}, payload)

    def made() -> list[FlowRun]:
        """Without those of a drop that another test has told."""
        found = client.read_flow_runs(flow_run_filter=of_drops)
        return [run for run in found if run.parameters["parameters"]["source"] in (whole["uri"], least["uri"])]

    runs = eventually(lambda: len(found := made()) > 1 and found)
    assert [run.state.type.value for run in runs] == ["SCHEDULED"] * 2
    wanted = [
        {name: value for name, value in whole.items() if name not in ("uri", "images")} | {"source": whole["uri"]},
        {"source": "s3://bucket/in/x", "store": "s3://bucket/dn2", "bank": "default"}
        | {"drop": None, "pattern": None, "groups": False, "embed": {}, "score": {}, "group_score": {}, "tell": {}},
    ]
    for run in sorted(runs, key=lambda run: str(run.parameters["parameters"]["source"])):
        assert run.parameters == {"parameters": wanted.pop(0)}
        client.delete_flow_run(run.id)


def begun(client: SyncPrefectClient, deployment: UUID) -> UUID:
    """Return a run of a deployment that is at work, as the server knows it."""
    made = client.create_flow_run_from_deployment(deployment, parameters={"parameters": {"source": "x"}})
    client.set_flow_run_state(made.id, Running(), force=True)
    return made.id


def test_run_that_crashed_is_scheduled_again(client: SyncPrefectClient):
    run = begun(client, read(client)["ingest"].id)
    client.set_flow_run_state(run, Crashed(message="killed"), force=True)
    again = eventually(lambda: (found := client.read_flow_run(run)).state.is_scheduled() and found)
    assert (again.state.name, again.state.message) == ("AwaitingRetry", "The run crashed and starts again by itself.")
    assert again.parameters == {"parameters": {"source": "x"}}
    client.delete_flow_run(run)


def test_somebody_is_told_of_failed_runs_and_anomalous_batches_in_one_line_of_json(
    deployed: Deployed, client: SyncPrefectClient
):
    """Whatever the names hold."""
    deployed.told.clear()
    run = begun(client, read(client)["ingest"].id)
    client.set_flow_run_state(run, Failed(message=f"source {NASTY}: nothing is there"), force=True)
    eventually(lambda: len(deployed.told) == 1)
    counts = {"anomalous": 3, "scored": 40, "source": f"file:///in/{NASTY}"}
    for place in ({"report": "s3://bucket/r", "report_url": None}, {"report": "x", "report_url": "http://host/r.html"}):
        post("dn2.batch.anomalous", {"prefect.resource.id": f"dn2.report.parts.{uuid4().hex}"}, counts | place)
    eventually(lambda: len(deployed.told) == 3)
    failed, *anomalous = map(json.loads, deployed.told)
    # A link to the run follows where the server knows the address of its pages: this one has none.
    assert failed == {"event": "failed", "text": f"dn2: ingest failed: source {NASTY}: nothing is there "}
    line = f"dn2: 3 of 40 images of file:///in/{NASTY} are anomalous: "
    assert sorted(one["text"] for one in anomalous) == [f"{line}http://host/r.html", f"{line}s3://bucket/r"]
    assert {one["event"] for one in anomalous} == {"anomalous"}
    client.delete_flow_run(run)


def test_run_of_somebody_elses_deployment_is_left_alone(client: SyncPrefectClient):
    """The automations are about runs with our tag; one of ours that crashes later is started again before."""
    other = client.create_deployment(client.create_flow_from_name("other"), "other", tags=["not-dn2"])
    theirs, ours = begun(client, other), begun(client, read(client)["ingest"].id)
    for run in (theirs, ours):
        client.set_flow_run_state(run, Crashed(), force=True)
    eventually(lambda: client.read_flow_run(ours).state.is_scheduled())
    assert client.read_flow_run(theirs).state.is_crashed()
    client.delete_flow_run(ours)
    client.delete_deployment(other)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DN2_CRON", "0 2 * *", "DN2_CRON, DN2_TIMEZONE: got '0 2 * *' and 'UTC', expected five fields such as"),
        ("DN2_CRON", "60 2 * * *", "DN2_CRON, DN2_TIMEZONE: got '60 2 * * *' and 'UTC', expected"),
        ("DN2_CRON", "every night", "DN2_CRON, DN2_TIMEZONE: got 'every night' and 'UTC', expected"),
        ("DN2_TIMEZONE", "Mars/Base", "got '0 2 * * *' and 'Mars/Base', expected .* a name such as Europe/Berlin"),
        ("DN2_TIMEZONE", "+02:00", "got '0 2 * * *' and '+02:00', expected"),
        ("DN2_SOURCES", "/nowhere/sources.yaml", "sources file file:///nowhere/sources.yaml: nothing is there"),
        ("DN2_SOURCES", "nope://a", "URL 'nope://a' cannot be opened: Protocol not known: nope"),
        ("DN2_NOTIFY_URL", "chat.example", "DN2_NOTIFY_URL: got 'chat.example', expected an http:// or https://"),
    ],
)
def test_bad_setting_is_one_line_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, message: str
):
    """It is refused before the server is asked: here is none."""
    monkeypatch.setenv(name, value)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert deployments.deploy.main() == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(f"error: [^\n]*{re.escape(message).replace(re.escape('.*'), '.*')}[^\n]*\n", printed.err)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "PREFECT_API_URL: got nothing, expected the address of a running server: start one with 'prefect serve"),
        ("http://127.0.0.1:9/api", "Connection refused"),
    ],
    ids=["no server", "no server at the address"],
)
def test_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], url: str | None, message: str):
    with temporary_settings({PREFECT_API_URL: url}):
        assert deployments.deploy.main() == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(f"error: [^\n]*{re.escape(message)}[^\n]*\n", printed.err), printed.err


def test_order_in_which_an_automation_lists_its_events_makes_it_no_other():
    """Equal sets may be walked in different orders, which are as likely to differ as the sets are large."""
    dead, again = deployments.automations.automations(None)

    def expecting(events: Iterable[str]) -> AutomationCore:
        return dead.model_copy(update={"trigger": dead.trigger.model_copy(update={"expect": set(events)})})

    events = [f"event.{number}" for number in range(1000)]
    assert deployments.deploy._same(expecting(events), expecting(reversed(events)))
    assert not deployments.deploy._same(expecting(events), expecting(events[1:]))
    assert not deployments.deploy._same(dead, again)


def test_second_time_changes_what_is_there_and_doubles_nothing(deployed: Deployed, client: SyncPrefectClient):
    """Nobody is to be told any more, the night begins at the default time, and limits of an older dn2 go."""
    client.upsert_global_concurrency_limit_by_name("dn2-bank-parts", 1)
    client.upsert_global_concurrency_limit_by_name("somebodys-own", 1)
    before = {name: entry.id for name, entry in read(client).items()}
    client.pause_automation(UUID(automations()["dn2: crashed runs start again"]["id"]))
    watching = {name: one["updated"] for name, one in automations().items()}
    write_sources(deployed.sources, store="store", nightly=[{"source": "a", "bank": "more"}])
    out = deploy(
        {name: value for name, value in deployed.env.items() if not name.startswith("DN2_")}
        | {"DN2_SOURCES": str(deployed.sources)}
    )
    assert {name: entry.id for name, entry in read(client).items()} == before
    assert sorted(automations()) == [
        "dn2: crashed runs start again",
        "dn2: dead runs are marked Crashed",
        "dn2: score drops that are ready",
    ]
    for name in ("dn2: crashed runs start again", "dn2: dead runs are marked Crashed"):
        assert automations()[name]["updated"] == watching[name]  # an update forgets which runs it waits for
    assert not automations()["dn2: crashed runs start again"]["enabled"]  # as its user has left it
    assert limits() == {}
    assert "limit removed: dn2-bank-parts" in out.splitlines()
    assert client.read_global_concurrency_limit_by_name("somebodys-own").limit == 1
    (nightly,) = read(client)["nightly-score"].schedules
    assert (nightly.schedule.cron, nightly.schedule.timezone) == ("0 2 * * *", "UTC")
    assert "no messages about failed runs: set DN2_NOTIFY_URL to get them" in out.splitlines()
