"""What every flow run does besides its work: a progress artifact, and an end to crashing for ever."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry, Cancelled, Crashed, Failed, Pending, Running, State

import dn2
from dn2.progress import advance
from flows.images import embed
from flows.parameters import EmbedParameters
from flows.watched import MOST_CRASHES, CrashedTooOftenError, watched
from tests.flows.told import artifacts, run_id

pytestmark = pytest.mark.usefixtures("prefect_server")
CRASH = (Running(), Crashed(message="killed"), AwaitingRetry())


@flow(name="work")
def work() -> int:
    with watched():
        return 7


def run_with(history: Iterable[State]) -> FlowRun:
    """Return a run on the server that has been through some states."""
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(work, state=Pending())
        for state in history:
            client.set_flow_run_state(made.id, state.model_copy(), force=True)
        return client.read_flow_run(made.id)


def start_again(made: FlowRun) -> State:
    """Run it once more, as a worker does; return the state it ends in."""
    state = run_flow(work, flow_run=made, parameters={}, return_type="state")
    assert isinstance(state, State)
    return state


def test_run_that_crashed_three_times_in_a_row_is_not_tried_again():
    made = run_with(CRASH * 3)
    assert made.run_count == MOST_CRASHES
    state = start_again(made)
    assert state.is_failed()
    with pytest.raises(CrashedTooOftenError, match="has crashed 3 times in a row, expected at most 2: it is not start"):
        state.result()


def test_run_that_crashed_twice_is_tried_again():
    assert start_again(run_with(CRASH * 2)).result() == 7


@pytest.mark.parametrize("end", [Failed(), Cancelled()], ids=lambda end: end.name)
def test_crashes_are_counted_anew_after_an_end_of_another_kind(end: State):
    """As when somebody has retried it by hand."""
    history = (*CRASH * 3, Running(), end, *CRASH)
    assert start_again(run_with(history)).result() == 7
    state = start_again(run_with((*history, *CRASH * 2)))
    with pytest.raises(CrashedTooOftenError, match="has crashed 3 times in a row"):
        state.result()


def test_run_that_was_stopped_for_its_crashes_may_be_retried_by_hand():
    made = run_with(CRASH * 3)
    assert start_again(made).is_failed()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(made.id, AwaitingRetry(), force=True)
        again = client.read_flow_run(made.id)
    assert start_again(again).result() == 7


def progress_of(state: State) -> tuple[float, str] | None:
    """Return how far the embedding of a run was last shown to be, in percent and in words."""
    found = artifacts(run_id(state)).get("dn2-embedding")
    if found is None:
        return None
    assert found.type == "progress"
    return float(str(found.data)), str(found.description)


def test_embedding_shows_in_a_progress_artifact_that_ends_at_a_hundred_percent(pictures: Path, tmp_path: Path):
    parameters = EmbedParameters(
        source=str(pictures), store=str(tmp_path / "store"), embed=dn2.EmbedConfig(shard_size=5, batch_size=2)
    )
    percent, text = progress_of(embed(parameters, return_state=True)) or (0, "")
    assert percent == 100
    assert re.fullmatch(r"\*\*12\*\* of 12 images, \d+ images/s, (reading|network) limits, done", text)


def test_run_that_embeds_nothing_shows_no_progress(pictures: Path, tmp_path: Path):
    parameters = EmbedParameters(source=str(pictures), store=str(tmp_path / "store"))
    assert progress_of(embed(parameters, return_state=True)) is not None
    assert progress_of(embed(parameters, return_state=True)) is None


def test_images_that_an_earlier_run_has_embedded_count_as_done(pictures: Path, tmp_path: Path):
    store, config = tmp_path / "store", dn2.EmbedConfig(shard_size=4)
    dn2.embed(dn2.ingest(pictures, store), store, config=config)
    for name in ("000.png", "001.png", "002.png"):
        shutil.copy(pictures / name, pictures / f"more-{name}")
    state = embed(EmbedParameters(source=str(pictures), store=str(store), embed=config), return_state=True)
    percent, text = progress_of(state) or (0, "")
    assert (percent, text.partition(" images,")[0]) == (100, "**15** of 15")


@flow(name="slow")
def slow(steps: int) -> UUID:
    """Say that an embedding is half done, then fail."""
    with watched():
        for _ in range(steps):
            advance("embed", 1, total=2 * steps, limit="network")
            advance("score", 100, total=100)
        raise dn2.StoreError("the disk is full")


def test_failed_run_shows_how_far_it_came():
    """Other stages are not the embedding's progress."""
    state = slow(4, return_state=True)
    assert state.is_failed()
    percent, text = progress_of(state) or (0, "")
    assert percent == 50
    assert re.fullmatch(r"\*\*4\*\* of 8 images, \d+ images/s, network limits, \d+ s left", text)


def test_progress_that_cannot_be_shown_stops_no_work(caplog: pytest.LogCaptureFixture):
    """Outside of a run there is nothing that an artifact could be linked to."""
    with caplog.at_level(logging.DEBUG, logger="dn2.flows"), watched():
        advance("embed", 1, total=2, limit="reading")
    assert [message.partition(":")[0] for message in caplog.messages] == ["cannot show progress"]
