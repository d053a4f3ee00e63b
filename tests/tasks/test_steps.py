from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prefect import Task, flow, get_client
from prefect.states import Completed, Failed

import dn2
import flows  # noqa: F401  (tells Prefect what to do with the library's log)
import tasks.steps
from dn2.errors import (
    BankError,
    ConfigError,
    EmptySourceError,
    NotFoundError,
    RejectedError,
    SourceError,
    StoreError,
)
from tests.flows.told import eventually

STEPS = sorted(name for name, value in vars(tasks.steps).items() if isinstance(value, Task))


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        SourceError("source: cannot read a.png: Input/output error"),
        StoreError("store: cannot write b: No space left on device"),
        caused(SourceError("source: cannot be listed"), TimeoutError()),
        caused(SourceError("source: vanished while it was listed"), FileNotFoundError()),
    ],
)
def test_fault_of_a_disk_or_network_may_pass_and_is_told(error: Exception, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, logger="dn2"):
        assert tasks.steps.may_pass(None, None, Failed(data=error)) is True
    assert caplog.messages == [f"{error}: trying again"]


@pytest.mark.parametrize(
    "error",
    [
        EmptySourceError("no image"),
        caused(SourceError("cannot be listed"), PermissionError()),
        caused(StoreError("cannot write"), NotADirectoryError()),
        NotFoundError("no bank"),
        ConfigError("k"),
        BankError("too few"),
        RejectedError("too many"),
        AssertionError("a bug"),
        KeyError("a bug"),
    ],
)
def test_lasting_error_does_not_pass(error: Exception, caplog: pytest.LogCaptureFixture):
    assert tasks.steps.may_pass(None, None, Failed(data=error)) is False
    assert caplog.messages == []


def test_success_is_no_fault():
    assert tasks.steps.may_pass(None, None, Completed(data=1)) is False


def test_every_step_has_the_same_retries_and_no_cache():
    """Retries in one place; whether something is done already is decided by the store alone."""
    assert STEPS == [
        "add",
        "choose_embedder",
        "clean",
        "compact",
        "embed",
        "export",
        "fit",
        "fit_groups",
        "ingest",
        "look",
        "mark",
        "mark_drop",
        "open_bank",
        "open_group_bank",
        "open_report",
        "plan",
        "prune",
        "remember",
        "remove",
        "report",
        "score",
        "score_groups",
        "search",
        "unscored",
        "use_version",
    ]
    for name in STEPS:
        step = getattr(tasks.steps, name)
        assert (step.retries, step.retry_delay_seconds) == (2, [2, 20]), name
        assert step.retry_condition_fn is tasks.steps.may_pass, name
        assert (step.cache_policy, step.persist_result) == (tasks.steps.NO_CACHE, False), name
        assert step.description, name


@pytest.fixture
def limited(prefect_server: None) -> Iterator[str]:
    """A bank for whose writers the server has a limit."""
    name = tasks.steps.writers_limit("limited")
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, 1)
    yield "limited"
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name(name)


def writing(bank: str) -> int:
    """Return how many writers of a bank the server knows at the moment."""
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(tasks.steps.writers_limit(bank)).active_slots


def test_second_training_waits_in_the_servers_queue_until_the_first_writer_is_done(
    limited: str, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = tmp_path / "store"
    embedded = dn2.embed(dn2.ingest(pictures, store), store)

    @flow(name="fits")
    def fits() -> dn2.BankVersion:
        return tasks.steps.fit(embedded, str(store), limited, dn2.FitConfig())

    with caplog.at_level(logging.INFO), ThreadPoolExecutor(1) as pool:
        with tasks.steps.one_writer(limited):
            assert writing(limited) == 1
            waiting = pool.submit(fits)
            eventually(lambda: [message for message in caplog.messages if "423 Locked" in message])
            assert not (store / "banks").exists()
        bank = waiting.result()
    assert dn2.open_bank(store, limited) == bank
    assert writing(limited) == 0
    assert [message for message in caplog.messages if "has no limit" in message] == []


def test_writer_that_fails_leaves_the_queue(limited: str):
    with pytest.raises(BankError, match="too few"), tasks.steps.one_writer(limited):
        raise BankError("too few")
    assert writing(limited) == 0


def test_server_without_a_limit_is_told_and_stops_nobody(prefect_server: None, caplog: pytest.LogCaptureFixture):
    level = caplog.at_level(logging.INFO, logger="dn2.tasks")
    with level, tasks.steps.one_writer("unlimited"), tasks.steps.one_writer("unlimited"):
        message = "the server has no limit dn2-bank-unlimited: the store's lock alone keeps writers apart"
        assert caplog.messages == [message] * 2


@pytest.mark.parametrize(
    ("config", "messages"),
    [
        (dn2.FitConfig(), [r"fitting bank b to 12 images", r"done in \d+\.\d{3} s"]),
        (dn2.FitConfig(k=500), [r"fitting bank b to 12 images"]),
    ],
    ids=["done", "failed"],
)
def test_step_logs_what_it_does_and_how_long_it_took(
    prefect_server: None,
    pictures: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    config: dn2.FitConfig,
    messages: list[str],
):
    """Into the run's own log; a step that failed was never done."""
    embedded = dn2.embed(dn2.ingest(pictures, tmp_path), tmp_path)

    @flow(name="fits")
    def fits() -> dn2.BankVersion:
        return tasks.steps.fit(embedded, str(tmp_path), "b", config)

    with caplog.at_level(logging.INFO, logger="prefect.task_runs"):
        fits(return_state=True)
    logged = [record.getMessage() for record in caplog.records if record.name == "prefect.task_runs"]
    ours = [message for message in logged if re.match("fitting|done", message)]
    assert len(ours) == len(messages)
    assert all(map(re.fullmatch, messages, ours)), ours


def test_slot_that_is_never_freed_stops_nobody_for_ever(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A holder or a server that was killed leaves a slot taken; the store's lock goes on keeping writers apart."""
    monkeypatch.setattr(tasks.steps, "_QUEUE", 0.5)
    limit = tasks.steps.writers_limit("ghost")
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(limit, 1)
        client.request(
            "POST", "/v2/concurrency_limits/increment", json={"names": [limit], "slots": 1, "mode": "concurrency"}
        )
    try:
        with caplog.at_level(logging.WARNING, logger="dn2"), tasks.steps.one_writer("ghost"):
            pass
    finally:  # the server is other tests' too
        with get_client(sync_client=True) as client:
            client.delete_global_concurrency_limit_by_name(limit)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("dn2")]
    assert ours == [f"limit {limit} is taken for over 0.5 s: the store's lock alone keeps writers apart"]
