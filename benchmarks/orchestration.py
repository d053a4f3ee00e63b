"""What Prefect adds to the work: `make bench-orchestration`.

A real server (on PostgreSQL) and worker run three things that users wait for:

* `drop_to_report_s`: the run that a drop of 200 images starts, from Running to Completed;
* `empty_nightly_s`: a nightly run over three sources with nothing new, from Running to Completed;
* `orchestration_share`: of a nightly run over 5,000 new images, the share of the wall time, from Running to Completed,
  that is not spent inside calls of the library. What the library took is read from the run's own log (`done in ... s`,
  one line for each task), so that both times belong to one run.

The pictures are noise of 256 x 192 px, saved as JPEG; the network is EfficientNet-Lite0 with its real weights.
"""

from __future__ import annotations

import re
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from benchmarks.results import write_results
from tests.live import BIN, Live
from tests.postgres import postgres

DROP, MANY, REPEATS = 200, 5000, 3


def pictures(folder: Path, count: int, seed: int) -> None:
    """Write JPEG pictures of smooth noise, all different."""
    folder.mkdir(parents=True)

    def write(number: int) -> None:
        random = np.random.default_rng((seed, number))
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        coarse.resize((256, 192), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(count)))


def main() -> None:
    """Measure, print and keep the figures."""
    with tempfile.TemporaryDirectory(prefix="dn2-bench-") as name:
        folder = Path(name)
        pictures(folder / "normal", 300, seed=0)
        for source in ("one", "two", "three"):
            pictures(folder / source, 20, seed=1)
        (folder / "incoming").mkdir()
        sources = folder / "sources.yaml"
        nightly = [{"source": source, "bank": "noise"} for source in ("one", "two", "three")]
        watch = [{"prefix": "incoming", "bank": "noise", "marker": "_READY"}]
        sources.write_text(yaml.safe_dump({"store": "store", "nightly": nightly, "watch": watch}))
        with postgres() as database, Live(folder / "live", database) as live:
            live.run(BIN / "dn2", "train", folder / "normal", "--store", folder / "store", "--bank", "noise")
            live.deploy(sources)
            live.worker()
            drops = [drop_to_report(live, folder / "incoming" / f"drop-{number}", number) for number in range(REPEATS)]
            live.finish(live.begin("nightly-score"))
            empty = [seconds(live, live.begin("nightly-score")) for _ in range(REPEATS)]
            pictures(folder / "one" / "tonight", MANY, seed=9)
            share, wall = orchestration_share(live, live.begin("nightly-score"))
    figures = {
        "drop_to_report_s": statistics.median(drops),
        "empty_nightly_s": statistics.median(empty),
        "orchestration_share": share,
    }
    write_results("orchestration", figures, {"images_of_share": MANY, "wall_of_share_s": wall, "repeats": REPEATS})


def seconds(live: Live, run: str) -> float:
    """Return how long a run takes from Running to Completed."""
    live.finish(run, 600)
    times = {state["type"]: state["timestamp"] for state in live.states(run)}
    began, ended = (np.datetime64(times[name].rstrip("Z")) for name in ("RUNNING", "COMPLETED"))
    return float((ended - began) / np.timedelta64(1, "s"))


def drop_to_report(live: Live, drop: Path, number: int) -> float:
    """Deliver a drop, have it told, and return how long the run took that it started."""
    known = {run["id"] for run in live.flow_runs("score-drop")}
    pictures(drop, DROP, seed=100 + number)
    (drop / "_READY").touch()
    live.look()

    def started() -> list[str]:
        return [run["id"] for run in live.flow_runs("score-drop") if run["id"] not in known]

    (run,) = live.wait("the run that the drop starts", started, 60)
    return seconds(live, run)


def orchestration_share(live: Live, run: str) -> tuple[float, float]:
    """Return the share of a run's wall time outside of the library, and the wall time in seconds."""
    wall = seconds(live, run)

    def inside() -> list[float]:
        """Return what the library took in each task; the log arrives a moment after the end."""
        found: list[dict[str, Any]] = []
        while not len(found) % 200:
            asked = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200, "offset": len(found)}
            lines = live.post("/logs/filter", asked)
            if not lines:
                break
            found += lines
        ended = any(line["task_run_id"] is None and line["message"].startswith("Finished in") for line in found)
        times = [re.fullmatch(r"done in ([\d.]+) s", line["message"]) for line in found]
        return [float(match[1]) for match in times if match] if ended else []

    return 1 - sum(live.wait("the run's log", inside, 60)) / wall, wall


if __name__ == "__main__":
    main()
