"""What a report holds for those who show it elsewhere: a picture, and the worst images by name."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import dn2
from dn2.config import EmbedConfig
from dn2.records import Report, WorstImage
from dn2.reports.figure import Histogram, histogram_png
from dn2.reports.report import finished
from tests.conftest import Bricks
from tests.dn2.reports.batches import Batch, scored

EDGES = np.linspace(0.0, 6.0, 61)


def counted(batch: list[float], calibration: list[float]) -> Histogram:
    return Histogram(EDGES, np.histogram(batch, EDGES)[0], np.histogram(calibration, EDGES)[0])


def opened(data: bytes) -> Image.Image:
    """A PNG file, checked to its last byte."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        picture.verify()
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        picture.load()
        return picture.convert("RGB")


def top(folder: Path) -> list[WorstImage]:
    """The scored images of a report's parts, worst first."""
    rows = [row for part in sorted(folder.glob("part-*")) for row in pq.read_table(part).to_pylist()]
    rows = sorted((row for row in rows if row["score"] is not None), key=lambda row: -row["score"])
    names = ("uri", "score", "p_value", "q_value", "is_anomaly", "selected")
    return [WorstImage(*(row[name] for name in names), row["neighbor_uris"][0]) for row in rows]


def test_picture_is_a_small_png_file(batch: Batch):
    data = (batch.folder / "histogram.png").read_bytes()
    assert len(data) < 100_000
    assert opened(data).size == (720, 232)


def test_picture_shows_batch_calibration_and_threshold():
    """Bars of their two colours where their scores are, and a line at the threshold."""
    pixels = np.asarray(opened(histogram_png(counted([5.05] * 3, [1.05] * 3), 3.0)), int)
    columns = {
        name: np.flatnonzero((np.abs(pixels[:150] - colour).max(axis=2) < 40).any(axis=0))
        for name, colour in (("batch", (218, 135, 101)), ("normal", (119, 177, 172)), ("limit", (51, 65, 85)))
    }
    assert all(len(found) for found in columns.values())
    assert columns["normal"].min() < columns["limit"].mean() < columns["batch"].max()


def test_same_numbers_give_the_same_bytes():
    one, two = (histogram_png(counted([1, 2, 2], [1, 1]), 1.5) for _ in range(2))
    assert one == two
    assert histogram_png(counted([1, 2, 3], [1, 1]), 1.5) != one
    assert histogram_png(counted([1, 2, 2], [1, 1]), 1.6) != one


def test_another_process_gives_the_same_bytes():
    code = """
import sys
import numpy as np
from dn2.reports.figure import Histogram, histogram_png
edges = np.linspace(0.0, 6.0, 61)
counts = [np.histogram(values, edges)[0] for values in ([1, 2, 2], [1, 1])]
sys.stdout.buffer.write(histogram_png(Histogram(edges, *counts), 1.5))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == histogram_png(counted([1, 2, 2], [1, 1]), 1.5)


def test_empty_batch_is_drawn():
    assert opened(histogram_png(counted([], [1.0]), 1.0)).size == (720, 232)


def test_picture_is_made_again_as_it_was(batch: Batch):
    data = (batch.folder / "histogram.png").read_bytes()
    (batch.folder / "histogram.png").write_bytes(b"half a pic")
    (batch.folder / "summary.json").unlink()
    assert dn2.score(batch.embedded, batch.store, bank=batch.bank) == batch.report
    assert (batch.folder / "histogram.png").read_bytes() == data


def test_picture_is_not_exported_into_what_may_be_a_source(batch: Batch, tmp_path: Path):
    folder = dn2.export(batch.report, batch.store, tmp_path / "report")
    assert sorted(path.name for path in folder.iterdir()) == ["part-00000.parquet", "report.html", "summary.json"]


def test_batch_without_a_readable_image_has_a_picture_and_no_worst_image(own_bricks: Bricks, tmp_path: Path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.png").write_bytes(b"no picture")
    batch = scored(tmp_path / "broken", own_bricks)
    assert batch.report.worst == ()
    assert opened((batch.folder / "histogram.png").read_bytes()).size == (720, 232)


@pytest.mark.parametrize("count", [0, 1, 500])
def test_worst_images_are_the_top_of_the_parts(own_bricks: Bricks, count: int):
    batch = scored(own_bricks.batch, own_bricks, report_images=count)
    assert len(batch.report.worst) == min(count, 160)
    assert list(batch.report.worst) == top(batch.folder)[:count]


def test_worst_images_of_many_parts_are_the_worst_of_all(own_bricks: Bricks):
    """None of the parts alone holds the top."""
    store, bank = own_bricks.store, own_bricks.bank
    dataset = dn2.ingest(own_bricks.batch, store)
    embedded = dn2.embed(dataset, store, bank=bank, config=EmbedConfig(shard_size=20))
    report = dn2.score(embedded, store, bank=bank)
    folder = Path(report.uri.removeprefix("file://"))
    assert len(list(folder.glob("part-*"))) == 9
    assert list(report.worst) == top(folder)[:24]
    owners = {
        part.name
        for part in folder.glob("part-*")
        if {worst.uri for worst in report.worst} & set(pq.read_table(part)["uri"].to_pylist())
    }
    assert len(owners) > 1


def test_summary_holds_the_worst_images_and_a_finished_report_has_them_again(batch: Batch):
    store = dn2.Store.open(batch.store)
    summary = json.loads((batch.folder / "summary.json").read_text())
    assert summary["worst"] == [asdict(worst) for worst in batch.report.worst]
    read = finished(store, batch.report.uri.removeprefix(f"{store.uri}/"))
    assert read == batch.report
    assert {type(worst) for worst in read.worst} == {WorstImage}


def test_worst_images_with_hostile_names_keep_them(hostile: Batch):
    assert list(hostile.report.worst) == top(hostile.folder)
    store = dn2.Store.open(hostile.store)
    assert finished(store, hostile.report.uri.removeprefix(f"{store.uri}/")) == hostile.report


@pytest.mark.parametrize(("anomalous", "scored", "rate"), [(0, 0, 0.0), (0, 4, 0.0), (1, 4, 0.25), (4, 4, 1.0)])
def test_rate_is_that_of_the_scored_images(anomalous: int, scored: int, rate: float):
    report = Report("file:///x", "parts", "v", "file:///in", scored + 4, scored, anomalous, 0, 4, 1.0, "fixed", 0.1)
    assert report.anomalous_rate == rate
