"""Runs at the same time on one store: no image is scored twice, and none other than it is if nothing else runs."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import dn2
from flows.banks import train
from flows.nightly import nightly_score, score_drop
from flows.parameters import DropParameters, NightlyParameters, TrainParameters
from tests.conftest import Bricks
from tests.flows.meanwhile import Meanwhile
from tests.flows.told import events, write_sources

pytestmark = pytest.mark.usefixtures("prefect_server")


def put(bricks: Bricks, folder: Path, *names: str) -> str:
    """Put images of the batch into a folder; return the folder's URI."""
    folder.mkdir(parents=True)
    for name in names:
        shutil.copy(bricks.batch / f"{name}.png", folder)
    return f"file://{folder}"


def rows(store: Path) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """Return the rows of all reports in a store by image and threshold, which tells the bank's version."""
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for path in sorted(store.glob("reports/*/*/part-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            found.setdefault((row["uri"], row["threshold"]), []).append(row)
    return found


def check_rows(store: Path, calm: Path, sources: list[str], banks: list[dn2.BankVersion]) -> None:
    """Assert that each image has one row, and the one that it has if nothing else runs at the same time."""
    for bank in banks:
        for source in sources:
            dn2.score(dn2.embed(dn2.ingest(source, calm), calm, bank=bank), calm, bank=bank)
    expected, found = rows(calm), rows(store)
    assert sorted(image for image, _ in found) == sorted({image for image, _ in expected})
    for key, mine in found.items():
        assert mine == expected[key], key


@pytest.mark.parametrize("step", ["looking up", "embedding", "noting"])
def test_second_run_in_the_middle_of_the_first_makes_no_second_report(own_bricks: Bricks, tmp_path: Path, step: str):
    """The same drop twice: the second begins when the first is at some step, and ends before that step."""
    uri = put(own_bricks, tmp_path / "drop", "good-01", "material-00")
    parameters = DropParameters(source=uri, store=str(own_bricks.store), bank="bricks", drop="1" * 32)
    calm = shutil.copytree(own_bricks.store, tmp_path / "calm")
    with Meanwhile(step, lambda: score_drop(parameters)) as second:
        first = score_drop(parameters)
    assert [report is not None for report in second.done] == [True]
    assert first == (None if step == "looking up" else second.done[0])
    check_rows(own_bricks.store, calm, [uri], [own_bricks.bank])
    assert len(events("dn2.batch.scored", uri)) == 1


def test_night_drop_and_training_at_the_same_time_give_what_they_give_one_after_another(
    own_bricks: Bricks, tmp_path: Path
):
    """One store and one bank, which gets a new version: each report is that of the version it names."""
    drop = put(own_bricks, tmp_path / "in" / "drop", "good-01", "material-00", "hole-01")
    night = put(own_bricks, tmp_path / "night", "good-03", "scratch-02", "pasted-01", "broken-text")
    store = own_bricks.store
    calm = shutil.copytree(store, tmp_path / "calm")
    nightly = [{"source": "night", "bank": "bricks"}]
    nights = NightlyParameters(sources=write_sources(tmp_path / "sources.yaml", store="store", nightly=nightly))
    dropped = DropParameters(source=drop, store=str(store), bank="bricks", drop="1" * 32)
    fit = dn2.FitConfig(k=5)
    training = TrainParameters(source=str(own_bricks.normal), store=str(store), bank="bricks", fit=fit)
    with ThreadPoolExecutor(2) as pool:
        others = pool.submit(lambda: (train(training), score_drop(dropped)))
        outcomes = pool.submit(nightly_score, nights).result()
        trained, report = others.result()
    assert (outcomes[0].error, report.version) == (None, trained.version)
    assert dn2.open_bank(store, "bricks") == trained
    normal = dn2.embed(dn2.ingest(own_bricks.normal, calm), calm)
    assert dn2.fit(normal, calm, bank="bricks", config=fit) == trained
    check_rows(store, calm, [drop, night], [own_bricks.bank, trained])
