"""What stands in the systemd units, the environment file, the Dockerfile and the compose file."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
HERE = ROOT / "deployments"
BIN = Path(sys.executable).parent
COMPOSE_TEXT = (HERE / "compose.yaml").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN_SERVICES = [name for name, service in SERVICES.items() if "build" in service]
ENV_FILE = HERE / "systemd" / "dn2.env"
UNITS = sorted((HERE / "systemd").glob("*.service"))
UNIT_NAMES = [path.stem for path in UNITS]
Unit = dict[str, dict[str, list[str]]]


def unit(path: Path) -> Unit:
    """Sections, keys and values of a unit; a key may stand there several times."""
    sections: Unit = {}
    text = re.sub(r"\\\n\s*", "", path.read_text("utf-8"))
    for line in (line for line in text.splitlines() if line and line[0] not in "#;"):
        if line.startswith("["):
            keys = sections.setdefault(line.strip("[]"), defaultdict(list))
        else:
            key, equals, value = line.partition("=")
            assert equals, line
            keys[key].append(value)
    return sections


def service(name: str) -> dict[str, list[str]]:
    return unit(HERE / "systemd" / f"{name}.service")["Service"]


def assignments(*, commented: bool) -> dict[str, str]:
    """NAME="value" of the environment file."""
    lines = re.findall(r'^(#?)([A-Z0-9_]+)="(.*)"$', ENV_FILE.read_text("utf-8"), re.MULTILINE)
    return {name: value for mark, name, value in lines if commented or not mark}


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each of the Dockerfile's instructions."""
    lines = [line for line in (HERE / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in whole.splitlines() if line]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]
