"""deployments/README.md: what it tells is there."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.util import find_spec

import pytest
import yaml
from prefect.cli import app as prefect

from tests.deployments.units import HERE, SERVICES, UNITS, arguments, unit

README = (HERE / "README.md").read_text("utf-8")


def code_of(page: str) -> list[str]:
    """Every command line of a page's sh blocks, and every piece of inline code."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)).replace("\\\n", "")
    return blocks.splitlines() + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))


def prefect_commands() -> list[str]:
    """Every `prefect` command of the page, the units, the image and the compose file."""
    found = {code for code in code_of(README) if code.startswith("prefect ")}
    for path in UNITS:
        programs = [
            value for key, values in unit(path)["Service"].items() if key.startswith("Exec") for value in values
        ]
        found |= {"prefect " + program.partition("/prefect ")[2] for program in programs if "/prefect " in program}
    found |= {shlex.join(one["command"]) for one in SERVICES.values() if one.get("command", [""])[0] == "prefect"}
    found |= {shlex.join(yaml.safe_load(command)) for command in arguments("CMD")}
    return sorted(found)


def test_page_tells_of_every_deployment():
    entries = yaml.safe_load((HERE / "prefect.yaml").read_text("utf-8"))["deployments"]
    rows = re.findall(r"^\| (`.*?`) \|", README, re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`([^`]+)`", row)) == sorted(
        one["name"] for one in entries
    )


def test_files_that_the_page_installs_are_there():
    words = [
        word
        for line in code_of(README)
        if line.startswith("sudo install -m")
        for word in shlex.split(line, comments=True)
    ]
    sources = [word for word in words if word.startswith(("systemd/", "sources"))]
    assert len(sources) == 3
    assert all(list(HERE.glob(source)) for source in sources)


@pytest.mark.parametrize("command", prefect_commands())
def test_prefect_knows_the_command_and_its_options(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Its `prefect` in this process: each of its own takes two seconds to begin."""
    _, *words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", ["prefect", *words, "--help"])
    with pytest.raises(SystemExit) as ended:
        prefect()
    out = capsys.readouterr().out
    usage = re.match(r"Usage: prefect (.+)", out)
    assert (ended.value.code or 0, usage is not None) == (0, True), out
    assert "COMMAND" not in usage[1], usage[1]
    assert shlex.join(words).startswith(re.sub(r" *(\[|[A-Z]).*", "", usage[1]))
    assert [word for word in words if word.startswith("--") and f"{word} " not in out] == []


def test_python_modules_that_are_run_are_there():
    commands = [*code_of(README), *(shlex.join(one.get("command", [])) for one in SERVICES.values())]
    commands += [one for path in UNITS for one in unit(path)["Service"]["ExecStart"]]
    modules = {name for command in commands for name in re.findall(r"python[\w.]* (?:-P )?-m ([\w.]+)", command)}
    assert modules == {"deployments.deploy", "http.server", "pip", "venv"}
    assert all(find_spec(module) is not None for module in modules)
