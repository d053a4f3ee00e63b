"""The systemd units, the image and the compose file, checked without a container engine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import prefect.settings
import pytest
import yaml

from tests.conftest import need
from tests.deployments.units import (
    BIN,
    COMPOSE,
    COMPOSE_TEXT,
    ENV_FILE,
    HERE,
    OWN_SERVICES,
    ROOT,
    SERVICES,
    UNIT_NAMES,
    UNITS,
    arguments,
    assignments,
    instructions,
    service,
    unit,
)

SERVICE_KEYS = {"image", "build", "command", "environment", "volumes", "ports", "depends_on", "healthcheck", "restart"}
SERVICE_KEYS |= {"init", "cap_drop", "security_opt", "stop_grace_period"}


def settings_with(**values: str) -> dict[str, Any]:
    """What Prefect makes of these variables, in a process of its own."""
    code = "from prefect.settings import get_current_settings as now; print(now().model_dump_json())"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DN2_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **values}, capture_output=True, text=True, check=True
    )
    settings: dict[str, Any] = yaml.safe_load(done.stdout)
    return settings


def check_guarded(settings: dict[str, Any]) -> None:
    """A server with these settings asks for a password, refuses other sites' pages, and can write its own."""
    server = settings["server"]
    assert server["api"]["auth_string"]
    assert server["api"]["csrf_protection_enabled"] is True
    origins = server["api"]["cors_allowed_origins"].split(",")
    assert origins == ["http://127.0.0.1:4200", "http://localhost:4200"]
    assert server["ui"]["api_url"] == f"{origins[0]}/api"
    assert server["ui"]["static_directory"] == f"{settings['home']}/ui"
    assert server["analytics_enabled"] is False
    assert settings["results"]["default_serializer"] == "json"


# Units


@pytest.mark.parametrize("name", UNIT_NAMES)
def test_unit_starts_again_and_can_always_be_ended(name: str):
    assert list(unit(HERE / "systemd" / f"{name}.service")) == ["Unit", "Service", "Install"]
    keys = service(name)
    assert keys["Restart"] == ["always"]
    assert keys["KillMode"] == ["mixed"]
    assert keys["SendSIGKILL"] == ["yes"]
    assert keys["FinalKillSignal"] == ["SIGKILL"]
    assert 5 <= int(keys["TimeoutStopSec"][0]) <= 60
    assert keys["User"] == keys["Group"] == ["dn2"]
    assert keys["NoNewPrivileges"] == ["yes"]
    assert keys["ProtectSystem"] == ["strict"]


@pytest.mark.parametrize("name", UNIT_NAMES)
def test_programs_of_a_unit_are_there(name: str):
    programs = [shlex.split(one)[0] for key in ("ExecStartPre", "ExecStart") for one in service(name)[key]]
    assert len(service(name)["ExecStart"]) == 1
    for program in programs:
        here = program.replace("/opt/dn2/.venv/bin", str(BIN))
        assert os.access(here, os.X_OK), program
        assert here != program or program == "/bin/sh"


def test_systemd_accepts_the_units(tmp_path: Path):
    need(shutil.which("systemd-analyze") is not None, "systemd-analyze, from Debian's package systemd")
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text("utf-8").replace("/opt/dn2/.venv/bin", str(BIN)))
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / path.name) for path in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "dn2" in line]) == (0, []), done.stderr


def test_folders_of_the_environment_file_are_made_by_the_worker():
    made = {f"/var/lib/{folder}" for folder in service("dn2-worker")["StateDirectory"][0].split()}
    values = assignments(commented=False)
    assert {values["PREFECT_HOME"], values["DN2_CACHE_DIR"]} <= made
    assert set(service("dn2-reports")["BindReadOnlyPaths"]) <= made


def test_worker_waits_for_its_server():
    assert service("dn2-worker")["ExecStartPre"] == ["/opt/dn2/.venv/bin/prefect server status --wait"]


def test_reports_unit_sees_reports_alone_and_no_secrets():
    keys = service("dn2-reports")
    assert keys["TemporaryFileSystem"] == ["/var/lib/dn2:ro"]
    assert keys["BindReadOnlyPaths"] == ["/var/lib/dn2/store/reports"]
    assert keys["ExecStart"][0].endswith(" -m http.server 8080 --bind 127.0.0.1 --directory /var/lib/dn2/store")
    assert "EnvironmentFile" not in keys


@pytest.mark.parametrize(("password", "code"), [("CHANGE-ME", 1), ("of-my-own", 0)])
def test_server_starts_only_with_a_password_of_ones_own(password: str, code: int, tmp_path: Path):
    file = tmp_path / "dn2.env"
    file.write_text(ENV_FILE.read_text("utf-8").replace("CHANGE-ME", password))
    (check,) = service("dn2-server")["ExecStartPre"]
    (path,) = service("dn2-server")["EnvironmentFile"]
    done = subprocess.run(shlex.split(check.replace(path, str(file))), capture_output=True, text=True)
    assert (done.returncode, bool(done.stdout)) == (code, bool(code))


# Environment


def test_environment_file_means_the_same_to_a_shell():
    lines = [line for line in ENV_FILE.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    values = assignments(commented=False)
    assert len(lines) == len(values) > 10
    script = f"set -a; . {ENV_FILE}; env -0"
    shell = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=True).stdout
    seen = dict(entry.split("=", 1) for entry in shell.split("\0") if entry)
    assert {name: seen[name] for name in values} == values


def test_environment_file_guards_the_server():
    values = assignments(commented=False)
    settings = settings_with(**values)
    check_guarded(settings)
    assert settings["server"]["api"]["host"] == "127.0.0.1"
    assert values["PREFECT_SERVER_API_AUTH_STRING"] == values["PREFECT_API_AUTH_STRING"]
    assert settings["api"]["url"] == "http://127.0.0.1:4200/api"


@pytest.mark.parametrize(
    "path",
    [HERE / "README.md", HERE / "compose.yaml", HERE / "Dockerfile", ENV_FILE, *UNITS],
    ids=lambda path: path.name,
)
def test_every_prefect_variable_is_a_setting(path: Path):
    names = set(re.findall(r"\bPREFECT_[A-Z0-9_]+", path.read_text("utf-8")))
    assert names or path.suffix == ".service"
    assert [name for name in sorted(names) if not hasattr(prefect.settings, name)] == []


def test_every_variable_of_dn2_is_read_by_its_code():
    code = "".join(path.read_text("utf-8") for room in ("dn2", "flows") for path in (ROOT / room).rglob("*.py"))
    code += (HERE / "deploy.py").read_text("utf-8")
    names = [name for name in assignments(commented=True) if name.startswith("DN2_")]
    names += [name for one in OWN_SERVICES for name in SERVICES[one].get("environment", {}) if name.startswith("DN2_")]
    assert len(names) > 5
    assert [name for name in names if f'"{name}"' not in code] == []


# Compose file


def test_compose_file_holds_these_services():
    assert list(SERVICES) == ["postgres", "server", "deploy", "worker", "reports"]
    assert set(COMPOSE) == {"name", "x-image", "x-client", "x-config", "services", "volumes"}
    assert OWN_SERVICES == ["server", "deploy", "worker", "reports"]
    for name, one in SERVICES.items():
        assert one["image"]
        assert set(one) <= SERVICE_KEYS
        assert one["restart"] == ("no" if name == "deploy" else "unless-stopped")
    for name in OWN_SERVICES:
        assert (HERE / SERVICES[name]["build"]["context"] / SERVICES[name]["build"]["dockerfile"]).is_file()
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


def test_compose_publishes_on_this_machine_only():
    ports = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    assert ports == {"server": ["127.0.0.1:4200:4200"], "reports": ["127.0.0.1:8080:8080"]}


def test_compose_declares_the_volumes_it_uses_and_the_image_has_their_folders():
    mounts = [(name, mount) for name, one in SERVICES.items() for mount in one.get("volumes", [])]
    named = [(name, *mount.split(":")) for name, mount in mounts if isinstance(mount, str)]
    bound = [mount for _, mount in mounts if not isinstance(mount, str)]
    assert {volume for _, volume, *_ in named} == set(COMPOSE["volumes"]) == {"postgres", "store", "cache"}
    made = " ".join(arguments("RUN"))
    assert all(name == "postgres" or f" {folder} " in made for name, _, folder, *_ in named)
    assert all(mount["read_only"] and not mount["bind"]["create_host_path"] for mount in bound)
    assert ("reports", "store", "/var/lib/dn2/store", "ro") in named


def test_compose_asks_for_secrets_and_its_head_names_every_variable():
    head, body = COMPOSE_TEXT.split("\nname: dn2\n")
    asked = set(re.findall(r"\$\{(\w+):\?", body))
    assert asked == set(re.findall(r"^#     (\w+)=", head, re.MULTILINE))
    assert asked == {"DN2_AUTH", "DN2_POSTGRES_PASSWORD", "DN2_CONFIG", "DN2_IMAGES"}
    assert all(name in head for name in re.findall(r"\$\{(\w+):-", body))
    assert set(re.findall(r"\$\{(\w+)\}", body)) <= asked
    for one in SERVICES.values():
        for name, value in one.get("environment", {}).items():
            assert not re.search("AUTH|PASSWORD|CONNECTION_URL", name) or "${DN2_" in value


def test_compose_starts_services_in_order():
    waits = {
        name: {on: how["condition"] for on, how in one.get("depends_on", {}).items()} for name, one in SERVICES.items()
    }
    assert waits == {
        "postgres": {},
        "server": {"postgres": "service_healthy"},
        "deploy": {"server": "service_healthy"},
        "worker": {"server": "service_healthy", "deploy": "service_completed_successfully"},
        "reports": {},
    }
    healthy = {on for waiting in waits.values() for on, how in waiting.items() if how == "service_healthy"}
    assert healthy == {name for name, one in SERVICES.items() if "healthcheck" in one}
    assert SERVICES["worker"]["stop_grace_period"] == f"{service('dn2-worker')['TimeoutStopSec'][0]}s"


def test_compose_guards_the_server_and_gives_the_others_its_password():
    image = dict(pair.split("=", 1) for pair in shlex.split(" ".join(arguments("ENV"))))
    prefects = {name: value for name, value in image.items() if name.startswith("PREFECT_")}
    check_guarded(settings_with(**prefects, **SERVICES["server"]["environment"]))
    password = SERVICES["server"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert "environment" not in SERVICES["reports"]
    for name in ("deploy", "worker"):
        values = SERVICES[name]["environment"]
        assert values["PREFECT_API_AUTH_STRING"] == password
        assert values["PREFECT_API_URL"] == "http://server:4200/api"
        assert values["DN2_SOURCES"].startswith(SERVICES[name]["volumes"][0]["target"])


def test_docker_compose_accepts_the_file(tmp_path: Path):
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is missing: it comes with Docker; the other tests read the file without it")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [docker, "compose", "--file", str(HERE / "compose.yaml"), "config", "--quiet"]
    refused = subprocess.run(command, env=env, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "set it in .env" in refused.stderr
    values = {"DN2_AUTH": "user:word", "DN2_POSTGRES_PASSWORD": "word", "DN2_CONFIG": "/etc", "DN2_IMAGES": "/srv"}
    accepted = subprocess.run(command, env={**env, **values}, capture_output=True, text=True)
    assert (accepted.returncode, accepted.stderr) == (0, "")


# Image


def test_image_runs_as_a_user_who_is_not_root():
    known = {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD"}
    assert {name for name, _ in instructions()} == known
    user = arguments("USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert all(
        f"{option} {number} " in arguments("RUN")[0]
        for option, number in zip(("--uid", "--gid"), user.split(":"), strict=True)
    )
    assert [name for name, _ in instructions()][-2:] == ["USER", "CMD"]


def test_image_is_built_from_files_that_are_there_and_nothing_else():
    rules = [line for line in (HERE / "Dockerfile.dockerignore").read_text("utf-8").splitlines() if line[:1] != "#"]
    sources = {source.rstrip("/") for copy in arguments("COPY") for source in copy.split()[:-1]}
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == sources
    assert rules[-2:] == ["**/__pycache__", "**/.*"]
    assert all((ROOT / source).exists() for source in sources)
    assert {"dn2", "tasks", "flows", "deployments"} <= sources


def test_image_installs_what_the_project_asks_for():
    """The Dockerfile's own command is run; what it prints is given to pip."""
    (run,) = (run for run in arguments("RUN") if "tomllib" in run)
    command = re.search(
        r"(python -c .+?) > /tmp/requirements\.txt && .*pip install .*--requirement /tmp/requirements", run
    )
    assert command is not None
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(["/bin/sh", "-c", command[1]], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["s3"]]
    assert done.stdout.splitlines() == [*project["build-system"]["requires"], *wanted]


@pytest.fixture
def reports_address(tmp_path: Path) -> Iterator[str]:
    """The compose file's command for the reports, run over the folders that the Dockerfile makes."""
    (run,) = (run for run in arguments("RUN") if "ln --symbolic" in run)
    link = re.search(r"ln --symbolic (\S+) (\S+)", run)
    assert link is not None
    target, name = (tmp_path / path.lstrip("/") for path in link.groups())
    for file in ("reports/parts/1a2b/report.html", "banks/parts/current.json"):
        path = tmp_path / "var/lib/dn2/store" / file
        path.parent.mkdir(parents=True)
        path.write_text("found")
    name.parent.mkdir(parents=True)
    name.symlink_to(target)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    _, *options = SERVICES["reports"]["command"]
    folder = options[options.index("--directory") + 1]
    options = [{"8080": str(port), folder: str(tmp_path / folder.lstrip("/"))}.get(one, one) for one in options]
    with subprocess.Popen([sys.executable, *options, "--bind", "127.0.0.1"], stderr=subprocess.DEVNULL) as server:
        yield f"http://127.0.0.1:{port}"
        server.terminate()


def test_reports_server_shows_reports_and_nothing_else_of_the_store(reports_address: str):
    with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:  # it needs a moment to start
        page = client.get(f"{reports_address}/reports/parts/1a2b/report.html")
        assert (page.status_code, page.text) == (200, "found")
        for path in ("/banks/parts/current.json", "/reports/%2e%2e/banks/parts/current.json", "/store/banks/"):
            assert client.get(reports_address + path).status_code == 404
