"""A real Prefect server, a real worker, and what a user sees of them: shared by the end-to-end run and a benchmark."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CHROMIUM = [  # a browser without a screen that asks nobody for anything
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Live:
    """A server of its own on a free port, with everything that was started beside it; all of it ends with the block.

    Args:
        folder: for logs and Prefect's files.
        database: URL of the server's database, as production has one.
    """

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.env = inherited | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_UI_API_URL": f"{self.url}/api",
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "NO_PROXY": "127.0.0.1",
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Live:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start("server", BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        self.wait("the server", lambda: self._healthy(), 120)
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            kill(process, signal.SIGTERM)
        for process in reversed(self._started):
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            kill(process, signal.SIGKILL)

    def start(self, name: str, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a process that ends with the block; what it prints goes to a log in the folder."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # killing its group ends what it has started, and nothing else
            )
        self._started.append(process)
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker of the pool."""
        return self.start("worker", BIN / "prefect", "worker", "start", "--pool", "dn2")

    def run(self, *command: str | Path, **more: str) -> str:
        """Run a command as a user would, and return what it printed."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**self.env, **more},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def deploy(self, sources: Path, **more: str) -> list[str]:
        """Do what `make deploy` does; return its lines."""
        return self.run(sys.executable, "-m", "deployments.deploy", DN2_SOURCES=str(sources), **more).splitlines()

    def _healthy(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/api/health", timeout=5, trust_env=False).status_code == 200
        return False

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """Return the answer of the server's API; ask again while its database is busy, as Prefect's own client does."""
        for pause in (0.5, 1, 2, 4, None):
            answer = httpx.request(method, f"{self.url}/api{path}", timeout=90, trust_env=False, **more)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or pause is None:
                break
            time.sleep(pause)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def post(self, path: str, content: Any = None) -> Any:
        """Return the answer to a question with content."""
        return self.ask("POST", path, json=content or {})

    def get(self, path: str) -> Any:
        """Return the answer to a question without content."""
        return self.ask("GET", path)

    def flow_runs(self, flow: str) -> list[dict[str, Any]]:
        """Return the runs of a flow, the latest first."""
        return list(
            self.post("/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"})
        )

    def begin(self, name: str, parameters: Mapping[str, Any] | None = None) -> str:
        """Ask for a run of a deployment, with its own parameters by default; return the run's id."""
        deployment = self.get(f"/deployments/name/{name}/{name}")
        content = {"parameters": {"parameters": dict(parameters)}} if parameters is not None else {}
        return str(self.post(f"/deployments/{deployment['id']}/create_flow_run", content)["id"])

    def state(self, run: str) -> str:
        """Return the name of the state of a run."""
        return str(self.get(f"/flow_runs/{run}")["state"]["name"])

    def finish(self, run: str, seconds: float = 120) -> dict[str, Any]:
        """Return a run as soon as it has completed.

        Raises:
            AssertionError: it has ended in another way, or not in time.
        """

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = self.get(f"/flow_runs/{run}")
            return found if found["state"]["type"] in ("COMPLETED", "FAILED", "CANCELLED") else None

        done: dict[str, Any] = self.wait(f"flow run {run}", ended, seconds)
        assert done["state"]["type"] == "COMPLETED", done["state"]
        return done

    def look(self) -> None:
        """Have somebody look for drops; a scheduled look that runs at the same time cancels this one."""

        def looked() -> bool:
            run = self.begin("watch-drops")
            self.wait(f"flow run {run}", lambda: self.state(run) in ("Completed", "Failed", "Cancelled"), 120)
            assert self.state(run) != "Failed", self.get(f"/flow_runs/{run}")["state"]
            return self.state(run) == "Completed"

        self.wait("a look for drops", looked, 240)

    def states(self, run: str) -> list[dict[str, Any]]:
        """Return all states of a run, the oldest first."""
        found = self.ask("GET", "/flow_run_states/", params={"flow_run_id": run})
        return sorted(found, key=lambda state: str(state["timestamp"]))

    def artifacts(self, run: str) -> dict[str, dict[str, Any]]:
        """Return the artifacts of a run by key."""
        found = self.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        return {artifact["key"]: artifact for artifact in found}

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of a name, the latest first."""
        return list(self.post("/events/filter", {"filter": {"event": {"name": [name]}}})["events"])

    @staticmethod
    def wait(what: str, there: Callable[[], Any], seconds: float) -> Any:
        """Return the first true answer of a question that is asked twice a second.

        Raises:
            AssertionError: there was none in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = there()
            if answer:
                return answer
            time.sleep(0.5)
        raise AssertionError(f"{what}: waited {seconds:g} s in vain")


def kill(process: subprocess.Popen[bytes], sign: int) -> None:
    """Send a signal to a process that was started here, and to all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, sign)


def descendants(process: int) -> list[int]:
    """Return the processes that a process has started, and those that they have started."""
    found: list[int] = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
