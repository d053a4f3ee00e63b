"""Bring a Prefect server up to date: work pool, deployments and automations. Can be repeated at any time.

    python -m deployments.deploy

The environment tells the rest; what is not set has a default:

    PREFECT_API_URL   the server (or Prefect's own profile)
    DN2_SOURCES       path or URL of the sources file: deployments/sources.example.yaml
    DN2_CRON          when the nightly run starts: 0 2 * * *
    DN2_TIMEZONE      in which time zone: UTC
    DN2_NOTIFY_URL    web address that is POSTed to when a run fails or a batch is anomalous: nothing is told
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from deployments.automations import TELLING, automations, webhook
from dn2.errors import ConfigError, Dn2Error
from dn2.store.files import locate
from flows.sources_file import read_sources

HERE = Path(__file__).parent
POOL = "dn2"
_WRITERS = "dn2-bank-"  # how the names of outdated limits begin
DEFAULTS = {
    "DN2_SOURCES": str(HERE / "sources.example.yaml"),
    "DN2_CRON": "0 2 * * *",
    "DN2_TIMEZONE": "UTC",
    "DN2_NOTIFY_URL": "",
}


def settings() -> dict[str, str]:
    """Return the four settings, checked.

    Raises:
        ConfigError: one of them cannot work.
        NotFoundError: there is no sources file.
    """
    values = {name: os.environ.get(name) or default for name, default in DEFAULTS.items()}
    values["DN2_SOURCES"] = locate(values["DN2_SOURCES"]).uri
    try:
        CronSchedule(cron=values["DN2_CRON"], timezone=values["DN2_TIMEZONE"])
    except ValueError as error:
        raise ConfigError(
            f"DN2_CRON, DN2_TIMEZONE: got {values['DN2_CRON']!r} and {values['DN2_TIMEZONE']!r}, expected five fields "
            f"such as '0 2 * * *' and a name such as Europe/Berlin"
        ) from error
    if values["DN2_NOTIFY_URL"] and not values["DN2_NOTIFY_URL"].startswith(("http://", "https://")):
        raise ConfigError(f"DN2_NOTIFY_URL: got {values['DN2_NOTIFY_URL']!r}, expected an http:// or https:// address")
    return values


def deploy() -> None:
    """Create or update everything, and say what there is now.

    Raises:
        ConfigError: a setting cannot work, or there is no server.
    """
    values = settings()
    file = read_sources(values["DN2_SOURCES"])
    if not PREFECT_API_URL.value():
        raise ConfigError(
            "PREFECT_API_URL: got nothing, expected the address of a running server: start one with "
            "'prefect server start', then set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        print(f"work pool: {POOL}")
        for limit in client.read_global_concurrency_limits(limit=200):
            if limit.name.startswith(_WRITERS):  # an older dn2 made them; the store's lock alone decides
                client.delete_global_concurrency_limit_by_name(limit.name)
                print(f"limit removed: {limit.name}")
    _deploy_flows({**values, "DN2_STORE": file.store})
    hook = webhook(values["DN2_NOTIFY_URL"]) if values["DN2_NOTIFY_URL"] else None
    with get_client(sync_client=True) as client:
        for automation in automations(hook):
            print(f"automation: {automation.name}")
            known = client.read_automations_by_name(automation.name)
            if not known:
                client.create_automation(automation)
                continue
            wanted = automation.model_copy(update={"enabled": known[0].enabled})  # its switch is the user's
            if not _same(known[0], wanted):  # an update would forget which runs it is waiting for
                client.update_automation(known[0].id, wanted)
        for name in () if hook else TELLING:
            for outdated in client.read_automations_by_name(name):
                client.delete_automation(outdated.id)
    if hook is None:
        print("no messages about failed runs: set DN2_NOTIFY_URL to get them")
    print(f"sources: {values['DN2_SOURCES']}\nnow start a worker: prefect worker start --pool {POOL}")


def _same(known: AutomationCore, wanted: AutomationCore) -> bool:
    fields = set(AutomationCore.model_fields)
    return known.model_dump(include=fields) == wanted.model_dump(include=fields)  # not as JSON: sets have no order


def _deploy_flows(values: dict[str, str]) -> None:
    """Let Prefect's own command deploy prefect.yaml.

    Raises:
        ConfigError: it failed; its last line says why.
    """
    done = subprocess.run(  # noqa: S603  (this interpreter's own prefect)
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", HERE / "prefect.yaml"],
        cwd=HERE.parent,
        env={**os.environ, **values, "PREFECT_API_URL": str(PREFECT_API_URL.value())},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        text = (done.stderr or done.stdout).strip()
        raise ConfigError(f"prefect deploy failed with exit code {done.returncode}:\n{text}")
    for name in re.findall(r"Deployment '([^']+)' successfully", done.stdout):
        print(f"deployment: {name}")


def main() -> int:
    """Run the script; return its exit code."""
    try:
        deploy()
    except Dn2Error as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        print(
            f"error: PREFECT_API_URL: got {PREFECT_API_URL.value()}, expected the address of a running Prefect server "
            f"({error or type(error).__name__}); start it with 'prefect server start', or set the right address",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
