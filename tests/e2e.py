"""From an empty machine to the last report, as a user sees it: `make e2e`.

Starts a real server, on a real PostgreSQL, and a real worker; deploys, drops images, kills worker and run in the middle
of the work, and looks at Prefect's pages and the report in a real browser. Prints what it sees, line by line; whatever
is not as it must be ends it with an error. Everything lies in one folder, screenshots in `screenshots` below it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from playwright.sync_api import Page, sync_playwright

from dn2.evaluation.bricks import write_images
from dn2.neighbors.versions import open_bank
from tests.conftest import make_pictures
from tests.deployments.conftest import ENTRIES
from tests.live import BIN, CHROMIUM, ROOT, Live, descendants, free_port
from tests.postgres import postgres

FOLDER = ROOT / "dn2-e2e"
BIG = 4000  # images of the run that is killed: enough to be in the middle of for half a minute
DEPLOYMENTS = {entry["name"] for entry in ENTRIES}


def say(text: str) -> None:
    """Print one thing that was seen, with the seconds since the start."""
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", flush=True)


BEGAN = time.monotonic()


def main(folder: Path = FOLDER) -> None:
    """Do everything, in order."""
    assert shutil.which("chromium"), "chromium is missing: install it with tests/install-system-packages"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "screenshots").mkdir(parents=True)
    normal, batch = write_images(folder / "images")
    store, incoming = folder / "store", folder / "incoming"
    incoming.mkdir()
    served = free_port()
    sources = folder / "sources.yaml"
    sources.write_text(
        yaml.safe_dump(
            {
                "store": "store",
                "nightly": [
                    {"source": "images/normal", "bank": "bricks"},
                    {"source": "big", "bank": "bricks", "dataset": "big"},
                ],
                "watch": [{"prefix": "incoming", "bank": "bricks", "marker": "_READY"}],
                "embed": {"shard_size": 100},
                "tell": {"report_base_url": f"http://127.0.0.1:{served}"},
            }
        )
    )
    make_pictures(folder / "big", 20)
    with postgres() as database, Live(folder / "live", database) as live:
        say(f"server answers at {live.url}")
        live.start(
            "reports", sys.executable, "-m", "http.server", str(served), "--bind", "127.0.0.1", "--directory", store
        )
        printed = live.run(BIN / "dn2", "train", normal, "--store", store, "--bank", "bricks")
        say(f"trained: {printed.splitlines()[0]}")
        _deploy_twice(live, sources)
        _see_schedule(live)
        worker = live.worker()
        drop_run = _drop(live, batch, incoming, store)
        _see_nothing_new_twice(live)
        nightly_run = _kill_and_recover(live, worker, folder / "big", store)
        _look(live, folder / "screenshots", drop_run, nightly_run)
    say("all of it was seen")


def _deploy_twice(live: Live, sources: Path) -> None:
    cron = f"0 {(datetime.now(UTC).hour + 12) % 24} * * *"  # not while this runs
    first, made = live.deploy(sources, DN2_CRON=cron), live.post("/automations/filter")
    second, automations = live.deploy(sources, DN2_CRON=cron), live.post("/automations/filter")
    assert first == second, "the second deployment printed something else"
    watching = [[one["updated"] for one in found if "run" in one["name"]] for found in (made, automations)]
    assert watching[0] == watching[1], "the second deployment touched what waits for dead runs"
    deployments = live.post("/deployments/filter")
    assert {one["name"] for one in deployments} == DEPLOYMENTS
    assert len(deployments) == len(DEPLOYMENTS)
    names = [one["name"] for one in automations]
    assert len(names) == len(set(names)) == 3, names
    limits = [one["name"] for one in live.post("/v2/concurrency_limits/filter") if one["name"].startswith("dn2-")]
    assert limits == [], "the store's lock alone keeps writers apart"
    say(f"deployed twice: {len(deployments)} deployments, automations: {', '.join(sorted(names))}")


def _see_schedule(live: Live) -> None:
    def scheduled() -> Any:
        return [run for run in live.flow_runs("nightly-score") if run["auto_scheduled"]]

    runs = live.wait("an auto-scheduled nightly run", scheduled, 120)
    say(f"the scheduler has planned {len(runs)} nightly runs, the next one for {runs[-1]['expected_start_time']}")


def _drop(live: Live, batch: Path, incoming: Path, store: Path) -> str:
    """Deliver images; see the event, the run that it starts, and the report. Return the run's id."""
    drop = incoming / "2026-11-24 line 3"
    shutil.copytree(batch, drop)
    live.look()
    assert live.events("dn2.drop.ready") == [], "a drop without its marker was told"
    say("a drop without its marker file is not told yet")
    (drop / "_READY").touch()
    live.look()
    (event,) = live.wait("the event dn2.drop.ready", lambda: live.events("dn2.drop.ready"), 30)
    say(f"event dn2.drop.ready: {event['payload']['images']} images in {event['payload']['uri']}")
    (run,) = live.wait("a run of score-drop", lambda: live.flow_runs("score-drop"), 60)
    run = live.finish(run["id"])
    say(f"the event has started run {run['name']}, completed in {run['total_run_time']:.1f} s")
    images = len(list(batch.iterdir()))
    (scored,) = live.wait("the event dn2.batch.scored", lambda: live.events("dn2.batch.scored"), 30)
    (anomalous,) = live.wait("the event dn2.batch.anomalous", lambda: live.events("dn2.batch.anomalous"), 30)
    payload = scored["payload"]
    assert payload == anomalous["payload"]
    assert payload["images"] == images
    assert sorted(_uris(payload)) == sorted(f"file://{path}" for path in drop.glob("*.*"))
    say(f"the report has {images} rows, {payload['anomalous']} of {payload['scored']} images are anomalous")
    live.look()
    assert len(live.events("dn2.drop.ready")) == 1
    assert len(live.flow_runs("score-drop")) == 1
    say("looking again tells nothing: a drop is scored once")
    return str(run["id"])


def _uris(payload: dict[str, Any]) -> list[str]:
    """Return the images in the report that an event tells of."""
    report = Path(payload["report"].removeprefix("file://"))
    assert (report / "summary.json").exists()
    parts = sorted(report.glob("part-*.parquet"))
    return [uri for part in parts for uri in pq.read_table(part, columns=["uri"])["uri"].to_pylist()]


def _see_nothing_new_twice(live: Live) -> None:
    first = live.finish(live.begin("nightly-score"))
    say(f"a first night is scored in {first['total_run_time']:.1f} s")
    second = live.finish(live.begin("nightly-score"))
    assert len(live.events("dn2.batch.scored")) == 3
    say(f"a night with nothing new takes {second['total_run_time']:.1f} s and scores nothing")


def _shards(store: Path) -> dict[str, tuple[int, int]]:
    found = (path for path in store.glob("embeddings/*/big/*.parquet") if ".thumbnails" not in path.name)
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def _kill_and_recover(live: Live, worker: Any, big: Path, store: Path) -> str:
    """Kill worker and run in the middle of the work; see the run come back by itself and lose nothing."""
    make_pictures(big / "tonight", BIG, seed=1)
    before = len(_shards(store))
    run = live.begin("nightly-score")
    live.wait("two more finished shards", lambda: len(_shards(store)) >= before + 2, 120)
    progress = live.wait("a progress artifact", lambda: live.artifacts(run).get("dn2-embedding"), 30)
    assert re.fullmatch(
        rf"\*\*[\d,]+\*\* of {BIG:,} images, \d+ images/s, (reading|network) limits, \d+ s left",
        progress["description"],
    ), progress
    say(f"progress artifact: {progress['description']}")
    second = live.begin("nightly-score")
    live.wait("the second nightly run's end", lambda: live.state(second) == "Cancelled", 60)
    say(f"a second nightly run is cancelled: {live.get(f'/flow_runs/{second}')['state']['message']}")
    assert live.state(run) == "Running"
    killed = [worker.pid, *descendants(worker.pid)]
    for process in killed:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    worker.wait()
    finished = _shards(store)
    assert before < len(finished) < before + BIG // 100, "it was not killed in the middle"
    say(
        f"killed the worker and its run ({len(killed)} processes) after {len(finished) - before} of {BIG // 100} shards"
    )
    live.wait("the dead run to be noticed", lambda: live.state(run) not in ("Running", "Retrying"), 150)
    say(f"no heartbeat: the run is {live.state(run)}")
    live.wait("the run to be scheduled again", lambda: live.state(run) == "AwaitingRetry", 30)
    say("the automation has scheduled it again; a new worker comes up")
    live.worker()
    done = live.finish(run, 180)
    names = [state["name"] for state in live.states(run)]
    assert "Crashed" in names, names
    say(f"it completed: {' > '.join(names)}; {done['run_count']} tries")
    kept = _shards(store)
    assert all(kept[name] == status for name, status in finished.items()), "a finished shard was written again"
    assert len(kept) == before + BIG // 100
    event = live.wait(
        "the event of the big batch",
        lambda: next((one for one in live.events("dn2.batch.scored") if one["payload"]["images"] == BIG), None),
        30,
    )
    uris = _uris(event["payload"])
    assert sorted(uris) == sorted(f"file://{path}" for path in (big / "tonight").iterdir())
    say(f"nothing is lost or doubled: {len(uris)} images, {len(set(uris))} different; finished shards are untouched")
    assert open_bank(store, "bricks").name == "bricks"
    return run


def _look(live: Live, folder: Path, drop_run: str, nightly_run: str) -> None:
    """Open the pages that a user opens, and keep pictures of them."""
    chromium = shutil.which("chromium")
    artifacts = live.artifacts(drop_run)
    assert {"dn2-report-bricks", "dn2-worst-bricks", "dn2-histogram-bricks", "dn2-embedding"} <= artifacts.keys()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        for name, path, text in (
            ("run", f"/runs/flow-run/{drop_run}", "score-drop"),
            ("report", f"/artifacts/artifact/{artifacts['dn2-report-bricks']['id']}", "images are anomalous"),
            ("worst", f"/artifacts/artifact/{artifacts['dn2-worst-bricks']['id']}", "material-28.png"),
            ("progress", f"/artifacts/artifact/{artifacts['dn2-embedding']['id']}", "images/s"),
            ("histogram", f"/artifacts/artifact/{artifacts['dn2-histogram-bricks']['id']}", "histogram.png"),
            ("recovered", f"/runs/flow-run/{nightly_run}", "nightly-score"),
            ("automations", "/automations", "crashed runs start again"),
        ):
            _open(page, f"{live.url}{path}", text, folder / f"{name}.png")
        page.goto(f"{live.url}/runs/flow-run/{drop_run}")
        page.get_by_text("Artifacts", exact=True).click()
        page.get_by_text("dn2-worst-bricks").last.wait_for()
        page.wait_for_timeout(1500)
        page.screenshot(path=folder / "artifacts.png")
        say("the run's page links its artifacts")
        page.goto(f"{live.url}/artifacts/artifact/{artifacts['dn2-report-bricks']['id']}")
        picture = page.get_by_role("img", name="histogram of the scores")
        picture.wait_for()
        assert picture.evaluate("image => image.naturalWidth") == 720
        with page.context.expect_page() as opened:
            page.get_by_role("link", name="open the report").first.click(modifiers=["Control"])
        opened.value.get_by_role("heading", level=1).wait_for()
        assert "do not look like the normal ones" in opened.value.inner_text("h1")
        opened.value.screenshot(path=folder / "served-report.png")
        say(f"the summary's link leads to the served report: {opened.value.inner_text('h1')}")
        browser.close()


def _open(page: Page, address: str, text: str, picture: Path) -> None:
    page.goto(address)
    page.get_by_text(text).first.wait_for(timeout=60_000)
    page.wait_for_timeout(1500)  # pictures and animations settle
    page.screenshot(path=picture)
    say(f"seen in the browser: {address.partition('/api')[0]} shows {text!r}; {picture.name}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
