from __future__ import annotations

import logging

import pytest
from prefect import Task
from prefect.states import Completed, Failed

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
    assert STEPS == ["choose_embedder", "embed", "export", "fit", "ingest", "open_bank", "plan", "report", "score"]
    for name in STEPS:
        step = getattr(tasks.steps, name)
        assert (step.retries, step.retry_delay_seconds) == (2, [2, 20]), name
        assert step.retry_condition_fn is tasks.steps.may_pass, name
        assert (step.cache_policy, step.persist_result) == (tasks.steps.NO_CACHE, False), name
        assert step.description, name
