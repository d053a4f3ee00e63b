"""deployments/prefect.yaml, deployed to a real server and run by a real worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow, get_client
from prefect.settings import PREFECT_API_URL

import dn2
from tests.conftest import Bricks

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deployments" / "prefect.yaml"
ENTRIES: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["deployments"]


def prefect(*arguments: str, env: Mapping[str, str]) -> str:
    """Run Prefect's own command line against the tests' server."""
    command = [str(Path(sys.executable).parent / "prefect"), "--no-prompt", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def deployed(prefect_server: None) -> dict[str, str]:
    """The environment in which everything in the file is deployed."""
    env = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PREFECT_LOGGING_LEVEL": "WARNING"}
    prefect("work-pool", "create", "dn2", "--type", "process", env=env)
    prefect("deploy", "--all", "--prefect-file", str(FILE), env=env)
    return env


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_entry_names_a_flow_that_is_there(entry: dict[str, Any]):
    module, _, name = entry["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    assert isinstance(flow, Flow)
    assert flow.name == entry["name"]
    assert entry["work_pool"]["name"] == "dn2"


def test_every_flow_is_deployed_with_described_parameters(deployed: dict[str, str]):
    with get_client(sync_client=True) as client:
        found = {entry["name"]: client.read_deployment_by_name(f"{entry['name']}/{entry['name']}") for entry in ENTRIES}
    assert set(found) == {"ingest", "train", "score"}
    for name, deployment in found.items():
        fields = deployment.parameter_openapi_schema["definitions"][f"{name.title()}Parameters"]
        assert fields["additionalProperties"] is False
        assert all(field.get("description") for field in fields["properties"].values())


@pytest.mark.slow
def test_worker_runs_a_deployed_training(deployed: dict[str, str], bricks: Bricks, tmp_path: Path):
    """As a user would: a run is asked for, and a worker of the pool does it."""
    store = tmp_path / "store"
    parameters = json.dumps({"source": str(bricks.normal), "store": str(store), "bank": "bricks"})
    prefect("deployment", "run", "train/train", "--param", f"parameters={parameters}", env=deployed)
    prefect("worker", "start", "--pool", "dn2", "--run-once", env=deployed)
    assert dn2.open_bank(store, "bricks") == bricks.bank


def test_unknown_parameter_is_refused_by_the_server(deployed: dict[str, str]):
    command = [str(Path(sys.executable).parent / "prefect"), "--no-prompt", "deployment", "run", "train/train"]
    parameters = json.dumps({"source": "photos", "colour": "red"})
    done = subprocess.run(
        [*command, "--param", f"parameters={parameters}"], cwd=ROOT, env=deployed, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "colour" in done.stdout + done.stderr
