"""Print figures and keep them, with what they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def write_results(name: str, figures: Mapping[str, float], about: Mapping[str, Any]) -> None:
    """Print each figure as `name: value`, and write them to `results/<name>.json` with machine and versions."""
    rounded = {key: float(f"{value:.4g}") for key, value in figures.items()}
    for key, value in rounded.items():
        print(f"{key}: {value}")
    machine = {"cores": os.cpu_count(), "processor": _processor(), "python": platform.python_version()}
    versions = {package: version(package) for package in ("prefect", "torch", "openvino", "pyarrow")}
    content = {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "figures": rounded,
        "about": dict(about),
        "machine": machine,
        "versions": versions,
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
