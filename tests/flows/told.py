"""What the tests' Prefect server has been told: flow runs, their artifacts, and events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact
from prefect.events import Event, Resource

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
