from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from prefect.settings import PREFECT_API_URL

from tests.flows.told import write_sources

ROOT = Path(__file__).parents[2]
YAML = (ROOT / "deployments" / "prefect.yaml").read_text("utf-8")
ENTRIES: list[dict[str, Any]] = yaml.safe_load(YAML)["deployments"]


@dataclass(frozen=True)
class Deployed:
    """What `python -m deployments.deploy` has left on the tests' server.

    Attributes:
        env: the environment in which it ran.
        sources: the sources file it was told of.
        out: what it printed.
        told: what was POSTed to DN2_NOTIFY_URL since.
    """

    env: Mapping[str, str]
    sources: Path
    out: str
    told: list[bytes]


def deploy(env: Mapping[str, str]) -> str:
    """Deploy as a user does; return what was printed."""
    command = [sys.executable, "-m", "deployments.deploy"]
    done = subprocess.run(command, cwd=ROOT, env=dict(env), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


class Listener(BaseHTTPRequestHandler):
    """Somebody who is told."""

    told: ClassVar[list[bytes]]

    def do_POST(self) -> None:
        self.told.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200 if self.headers["Content-Type"] == "application/json" else 415)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def deployed(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Everything is deployed, with a time zone, a sources file in a folder with a bad name, and somebody to tell."""
    folder = tmp_path_factory.mktemp("deployed") / 'it\'s "my" #1: {conf}'
    folder.mkdir()
    nightly, watch = [{"source": "a", "bank": "parts"}], [{"prefix": "in", "bank": "welds"}]
    sources = write_sources(folder / "sources.yaml", store="store", nightly=nightly, watch=watch)
    told: list[bytes] = []
    with HTTPServer(("127.0.0.1", 0), type("Own", (Listener,), {"told": told})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DN2_") or "CACHE" in name},
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "DN2_SOURCES": sources,
            "DN2_CRON": "30 1 * * 1-5",
            "DN2_TIMEZONE": "Europe/Berlin",
            "DN2_NOTIFY_URL": f"http://127.0.0.1:{server.server_port}/hook",
        }
        yield Deployed(env, Path(sources), deploy(env), told)
        server.shutdown()
