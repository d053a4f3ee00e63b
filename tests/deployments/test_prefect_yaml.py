"""deployments/prefect.yaml, deployed to a real server and run by a real worker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from prefect import Flow, get_client
from prefect.exceptions import PrefectHTTPStatusError
from pydantic import BaseModel

import dn2
from tests.conftest import Bricks
from tests.deployments.conftest import ENTRIES, ROOT, Deployed
from tests.flows.told import SCHEDULED


def prefect(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Prefect's own command line against the tests' server."""
    command = [str(Path(sys.executable).parent / "prefect"), "--no-prompt", *arguments]
    return subprocess.run(command, cwd=ROOT, env=dict(env), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_entry_names_a_flow_that_is_there(entry: dict[str, Any]):
    module, _, name = entry["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    assert isinstance(flow, Flow)
    assert flow.name == entry["name"]
    assert entry["work_pool"]["name"] == "dn2"


def parameters_of(entry: dict[str, Any]) -> type[BaseModel]:
    """Return the model of the one parameter that a flow takes."""
    module, _, name = entry["entrypoint"].rpartition(".")
    found = get_type_hints(getattr(import_module(module), name).fn)["parameters"]
    assert issubclass(found, BaseModel)
    return found


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_parameters_in_the_file_are_those_of_the_flow(entry: dict[str, Any]):
    """The deployment's own, and those that its trigger fills in."""
    fields = parameters_of(entry).model_fields
    for given in (entry, *entry.get("triggers", [])):
        assert set(given.get("parameters", {})) <= {"parameters"}
        assert set(given.get("parameters", {}).get("parameters", {})) <= set(fields)


def test_every_flow_is_deployed_with_described_parameters(deployed: Deployed):
    with get_client(sync_client=True) as client:
        found = {entry["name"]: client.read_deployment_by_name(f"{entry['name']}/{entry['name']}") for entry in ENTRIES}
    modules = [import_module(f"flows.{path.stem}") for path in (ROOT / "flows").glob("*.py")]
    flows = {one.name for module in modules for one in vars(module).values() if isinstance(one, Flow)}
    assert set(found) == flows
    for entry in ENTRIES:
        fields = found[entry["name"]].parameter_openapi_schema["definitions"][parameters_of(entry).__name__]
        assert fields["additionalProperties"] is False
        assert all(field.get("description") for field in fields["properties"].values())


@pytest.mark.slow
def test_worker_runs_a_deployed_training(deployed: Deployed, bricks: Bricks, tmp_path: Path):
    """As a user would: a run is asked for, and a worker of the pool does it."""
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=SCHEDULED):  # left by other tests: not for this worker
            client.delete_flow_run(run.id)
    store = tmp_path / "store"
    parameters = json.dumps({"source": str(bricks.normal), "store": str(store), "bank": "bricks"})
    asked = prefect("deployment", "run", "train/train", "--param", f"parameters={parameters}", env=deployed.env)
    assert asked.returncode == 0, asked.stderr
    worked = prefect("worker", "start", "--pool", "dn2", "--run-once", env=deployed.env)
    assert worked.returncode == 0, worked.stderr
    assert dn2.open_bank(store, "bricks") == bricks.bank


@pytest.mark.parametrize("name", ["train", "nightly-score", "score-drop"])
def test_unknown_parameter_is_refused_by_the_server(deployed: Deployed, name: str):
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"{name}/{name}")
        with pytest.raises(PrefectHTTPStatusError, match="409") as refused:
            client.create_flow_run_from_deployment(
                deployment.id, parameters={"parameters": {"source": "photos", "sources": "file", "colour": "red"}}
            )
    assert "colour" in refused.value.response.text
