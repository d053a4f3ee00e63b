"""What the tests' Prefect server has been told: flow runs, their artifacts, and events."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, StateType
from prefect.events import Event, Resource

SCHEDULED = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
_BATCH = 20  # events: so many at once are written down at once, fewer within some seconds


def write_sources(path: Path, **content: Any) -> str:
    """Write a sources file; return its path as flows are given it."""
    path.write_text(yaml.safe_dump(content))
    return str(path)


def ask(path: str, content: Mapping[str, Any]) -> Any:
    """Return the answer of the server's API to a POST."""
    with get_client(sync_client=True) as client:
        return client.request("POST", path, json=dict(content)).json()


def artifacts(flow_run: Any) -> dict[str, Artifact]:
    """Return the artifacts that are linked to a flow run by key, the latest of each."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=of_run)
    return {artifact.key or "": artifact for artifact in sorted(found, key=lambda one: one.created)}


def rows(table: Artifact) -> list[dict[str, Any]]:
    """Return the rows of a table artifact."""
    assert table.type == "table"
    found: list[dict[str, Any]] = json.loads(str(table.data))
    return found


def eventually(there: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Return the first true answer of a question that is asked again and again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := there():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s in vain")


def events(name: str, of: str) -> list[dict[str, Any]]:
    """Return all events of a name that are about resources whose name begins with `of`, the first told first.

    The server writes events down in their order: when one of our own is there, so is all that came before it.
    """
    marks = [Event(event="tests.mark", resource=Resource({"prefect.resource.id": "tests"})) for _ in range(_BATCH)]
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[mark.model_dump(mode="json") for mark in marks])
    eventually(lambda: _found({"id": {"id": [str(marks[0].id)]}}))
    about = {"labels": {"prefect.resource.name": f"{of}*"}}
    return _found({"event": {"name": [name]}, "resource": about, "order": "ASC"})


def _found(wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    answer = ask("/events/filter", {"filter": dict(wanted), "limit": 50})
    assert answer["total"] <= 50
    return list(answer["events"])


def run_id(state: Any) -> uuid.UUID:
    """Return the flow run that a state belongs to."""
    found = state.state_details.flow_run_id
    assert isinstance(found, uuid.UUID)
    return found


class Mender(logging.Handler):
    """Mends what is broken when the warning comes that a task failed and is tried again."""

    def __init__(self, mend: Callable[[], Any]) -> None:
        super().__init__()
        self.emit = lambda record: mend() if "trying again" in record.getMessage() else None


def task_runs(run: Any, parameters: Any, *, meanwhile: Callable[[], Any] | None = None) -> tuple[Any, Counter[str]]:
    """Run a flow; return its state, and how often each of its tasks was tried.

    `meanwhile` is called as soon as a task waits for its next try.
    """
    if meanwhile is not None:
        mender = Mender(meanwhile)
        logging.getLogger("dn2.tasks").addHandler(mender)
    state = run(parameters, return_state=True)
    if meanwhile is not None:
        logging.getLogger("dn2.tasks").removeHandler(mender)

    async def read() -> Counter[str]:
        of_flow = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[state.state_details.flow_run_id]))
        async with get_client() as client:
            for _ in range(100):  # task runs reach the server as events, a moment later
                runs = await client.read_task_runs(task_run_filter=of_flow)
                if runs and all(run.state is not None and run.state.is_final() for run in runs):
                    return Counter({run.name.rpartition("-")[0]: run.run_count for run in runs})
                await asyncio.sleep(0.1)
        raise AssertionError("the task runs never ended")

    return state, asyncio.run(read())
