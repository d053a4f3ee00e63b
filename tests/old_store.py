"""A small store as an earlier dn2 wrote it, and the pictures it was made of: in memory, the same on any machine.

`tests/data/store.tar.xz` was written once, by `python -m tests.old_store FOLDER` with the code of that time, and is
never written anew: it stands for the stores that people have.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from PIL import Image

import dn2

PACKED = Path(__file__).parent / "data" / "store.tar.xz"
NORMAL, MORE, TODAY = "memory://parts/good", "memory://parts/confirmed", "memory://parts/today"
PATTERN = "{group_id}/*"
_LISTED = datetime(2026, 11, 1, 12, tzinfo=UTC)  # when the files were made, as their versions say
_OLD = dn2.FitConfig(units="images")  # what was done before there was a choice
_CONFIGS = {
    "parts": _OLD,
    "cells": _OLD.model_copy(update={"index": "ivf", "nlist": 3, "recall": 1.0, "segment_rows": 20}),
    "centres": _OLD.model_copy(update={"index": "centroids", "centroids": 5, "metric": "cosine"}),
}


def write_pictures() -> None:
    """Put the pictures where the store's manifests say that they are."""
    fs = fsspec.filesystem("memory")
    random = np.random.default_rng(0)
    for place, groups, each, odd in ((NORMAL, 6, 5, False), (MORE, 1, 3, False), (TODAY, 3, 4, True)):
        for group in range(groups):
            for number in range(each):
                pixels = random.integers(90, 130, (6, 6, 3)) + 8 * group
                if odd and (group, number) in ((1, 0), (2, 3)):
                    pixels = random.integers(0, 256, (6, 6, 3))
                picture = Image.fromarray(pixels.astype(np.uint8)).resize((24, 24), Image.Resampling.NEAREST)
                buffer = io.BytesIO()
                picture.save(buffer, "BMP")  # uncompressed: the same bytes whatever wrote them
                _put(fs, f"{place.removeprefix('memory:/')}/g{group}/{number}.bmp", buffer.getvalue())
    _put(fs, f"{TODAY.removeprefix('memory:/')}/g0/broken.png", b"no picture")


def _put(fs: Any, path: str, data: bytes) -> None:
    fs.pipe_file(path, data)
    fs.store[path].created = fs.store[path].modified = _LISTED


def remove_pictures() -> None:
    """Leave nothing in memory for other tests."""
    fs = fsspec.filesystem("memory")
    if fs.exists("/parts"):
        fs.rm("/parts", recursive=True)


def unpack(folder: Path) -> Path:
    """Return the store, unpacked into a folder."""
    with tarfile.open(PACKED) as archive:
        archive.extractall(folder, filter="data")
    return folder / "store"


def made(store: Path) -> dict[str, Any]:
    """Return what these steps make in a store, as names and figures; what is finished there is not made again."""
    normal = dn2.embed(dn2.ingest(NORMAL, store, dataset="good", pattern=PATTERN), store)
    cleaning = dn2.clean(normal, store, config=dn2.CleanConfig(rule="auto", clusters="drop", contamination=0.1))
    banks = {name: dn2.fit(normal, store, bank=name, config=config) for name, config in _CONFIGS.items()}
    banks["clean"] = dn2.fit(normal, store, bank="clean", config=_OLD, cleaning=cleaning)
    groups = dn2.GroupFitConfig(pooling="histogram", cells=3, units="images")  # likewise
    lots = dn2.fit_groups(normal, store, bank="lots", config=groups)
    batch = dn2.embed(dn2.ingest(TODAY, store, dataset="today", pattern=PATTERN), store, bank=banks["parts"])
    reports = {name: dn2.score(batch, store, bank=bank) for name, bank in banks.items()}
    fewest = dn2.ScoreConfig(threshold=dn2.ThresholdConfig(budget=2))
    reports["budget"] = dn2.rethreshold(reports["parts"], store, config=fewest)
    groups = dn2.score_groups(batch, store, bank=lots)
    more = dn2.embed(dn2.ingest(MORE, store, dataset="confirmed", pattern=PATTERN), store, bank=banks["parts"])
    dn2.use_version(store, "parts", banks["parts"].version)  # where the steps are repeated, it has grown
    grown = dn2.add(more, store, bank="parts").bank
    return {
        "versions": {name: bank.version for name, bank in {**banks, "lots": lots, "grown": grown}.items()},
        "thresholds": {name: bank.threshold for name, bank in {**banks, "grown": grown}.items()},
        "cleaning": [cleaning.uri.rpartition("/")[2], cleaning.kept],
        "reports": {
            name: one.uri.removeprefix(f"file://{store}/") for name, one in {**reports, "groups": groups}.items()
        },
        "anomalous": {name: one.anomalous for name, one in {**reports, "groups": groups}.items()},
        "worst": {name: [[one.uri, one.score] for one in report.worst[:5]] for name, report in reports.items()},
    }


def main() -> None:
    """Write the store and what it holds into a folder."""
    folder = Path(sys.argv[1]).absolute()
    write_pictures()
    found = made(folder / "store")
    (folder / "store.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    with tarfile.open(folder / "store.tar.xz", "w:xz") as archive:
        archive.add(folder / "store", "store")


if __name__ == "__main__":
    main()
