from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prefect import Task, flow
from prefect.states import Completed, Failed

import dn2
import flows  # noqa: F401  (tells Prefect what to do with the library's log)
import tasks.steps
from dn2 import layout
from dn2.errors import (
    BankError,
    ConfigError,
    EmptySourceError,
    NotFoundError,
    RejectedError,
    SourceError,
    StoreError,
)
from dn2.store.lock import locked
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


def test_second_training_waits_until_the_first_writer_is_done(
    prefect_server: None, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The lock of the store alone keeps writers apart: the server need not know of them."""
    store = tmp_path / "store"
    embedded = dn2.embed(dn2.ingest(pictures, store), store)

    @flow(name="fits")
    def fits() -> dn2.BankVersion:
        return tasks.steps.fit(embedded, str(store), "b", dn2.FitConfig())

    with caplog.at_level(logging.INFO), ThreadPoolExecutor(1) as pool:
        with locked(dn2.Store.open(store), layout.bank("b")):
            waiting = pool.submit(fits)
            message = f"store file://{store}: waiting for another writer of banks/b"
            eventually(lambda: message in caplog.messages)
            assert not (store / "banks").exists()
        bank = waiting.result()
    assert dn2.open_bank(store, "b") == bank


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
