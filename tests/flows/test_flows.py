from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prefect import flow
from prefect.exceptions import ParameterTypeError

import dn2
import tasks.steps
from dn2.records import EmbeddedShard
from flows.banks import train
from flows.images import embed, ingest
from flows.parameters import EmbedParameters, IngestParameters, ScoreParameters, TrainParameters
from flows.scoring import score
from tests.conftest import Bricks
from tests.flows.told import task_runs

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_ingest_flow_returns_what_the_library_returns(pictures: Path, tmp_path: Path):
    done = ingest(IngestParameters(source=str(pictures), store=str(tmp_path / "flow")))
    assert done == dn2.ingest(pictures, tmp_path / "library")
    assert ingest(IngestParameters(source=str(pictures), store=str(tmp_path / "flow"))) == replace(done, added=0)


def test_embed_flow_returns_what_the_library_returns(pictures: Path, tmp_path: Path):
    """The same shards, with `auto` resolved, however the flow divides them among its tasks."""
    config = dn2.EmbedConfig(shard_size=5)
    done = embed(EmbedParameters(source=str(pictures), store=str(tmp_path / "flow"), embed=config))
    expected = dn2.embed(dn2.ingest(pictures, tmp_path / "library"), tmp_path / "library", config=config)
    assert done == expected
    assert [shard.embedded for shard in done.shards] == [5, 5, 2]


def test_train_and_score_flows_give_the_librarys_report(bricks: Bricks, tmp_path: Path):
    """The same records, the same version, the same rows."""
    store = tmp_path / "store"
    bank = train(TrainParameters(source=str(bricks.normal), store=str(store), bank="bricks"))
    assert bank == bricks.bank
    embed_config = dn2.EmbedConfig(shard_size=60)
    parameters = ScoreParameters(
        source=str(bricks.batch), store=str(store), bank="bricks", embed=embed_config, out=str(tmp_path / "out")
    )
    report = score(parameters)
    library = tmp_path / "library"
    shutil.copytree(bricks.store, library)
    batch = dn2.embed(dn2.ingest(bricks.batch, library), library, config=embed_config, bank=bricks.bank)
    expected = dn2.score(batch, library, bank=bricks.bank)
    assert report == replace(expected, uri=expected.uri.replace("/library/", "/store/"))
    for number in range(3):
        name = f"part-{number:05d}.parquet"
        theirs = pq.read_table(f"{expected.uri.removeprefix('file://')}/{name}")
        assert pq.read_table(f"{report.uri.removeprefix('file://')}/{name}").equals(theirs)
        assert pq.read_table(tmp_path / "out" / name).equals(theirs)


def test_finished_report_is_returned_without_scoring_again(own_bricks: Bricks):
    """The second run scores nothing, reports nothing, and returns the same record."""
    parameters = ScoreParameters(source=str(own_bricks.batch), store=str(own_bricks.store), bank="bricks")
    first, tried = task_runs(score, parameters)
    assert {"score", "report"} <= tried.keys()
    second, tried = task_runs(score, parameters)
    assert {"score", "report"}.isdisjoint(tried.keys())
    assert second.result() == first.result()


def test_passing_fault_is_retried_and_then_succeeds(pictures: Path, tmp_path: Path):
    """A listed picture cannot be read at first; nothing of the fault is left in the store."""
    store, broken = tmp_path / "store", pictures / "003.png"
    dataset = dn2.ingest(pictures, store)
    content = broken.read_bytes()
    broken.unlink()
    broken.mkdir()

    @flow
    def embed_listed(parameters: None) -> tuple[EmbeddedShard, ...]:
        config = tasks.steps.choose_embedder(dn2.EmbedConfig(), None)
        shards = tasks.steps.plan(dataset, str(store), config)
        return tasks.steps.embed(shards, str(store), config, number=0, total=dataset.images)

    state, tried = task_runs(embed_listed, None, meanwhile=lambda: (broken.rmdir(), broken.write_bytes(content)))
    assert tried == {"choose-embedder": 1, "plan": 1, "embed": 2}
    assert [(shard.embedded, shard.rejected) for shard in state.result()] == [(12, 0)]


@pytest.mark.parametrize(
    ("fit", "error", "message"),
    [
        (dn2.FitConfig(k=12), dn2.BankError, "got 12 with 12 different normal images"),
        (dn2.FitConfig(max_rejects=0, max_reject_rate=0), dn2.RejectedError, "got 1 of 13 that cannot be read"),
    ],
)
def test_lasting_error_is_not_retried(
    pictures: Path, tmp_path: Path, fit: dn2.FitConfig, error: type[Exception], message: str
):
    (pictures / "broken.png").write_bytes(b"no picture")
    state, tried = task_runs(train, TrainParameters(source=str(pictures), store=str(tmp_path / "store"), fit=fit))
    assert state.is_failed()
    with pytest.raises(error, match=message):
        state.result()
    assert tried == {"choose-embedder": 1, "ingest": 1, "plan": 1, "embed": 1, "fit": 1}
    assert not (tmp_path / "store" / "banks").exists()


def test_unknown_parameters_stop_a_run_before_it_begins(tmp_path: Path):
    """Prefect validates what comes from a form or an API call; nothing is written."""
    state = train({"source": "x", "store": str(tmp_path / "store"), "fit": {"kk": 3}}, return_state=True)
    with pytest.raises(ParameterTypeError, match=r"parameters\.fit\.kk: Extra inputs are not permitted"):
        state.result()
    assert not (tmp_path / "store").exists()
