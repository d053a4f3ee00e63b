"""A store of an earlier dn2: it opens, resumes and is scored again, and nothing in it is embedded a second time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dn2
from dn2.reports import words
from dn2.scoring.watermark import unscored
from tests import old_store

EXPECTED = json.loads(old_store.PACKED.with_name("store.json").read_text("utf-8"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    old_store.write_pictures()
    yield old_store.unpack(tmp_path)
    old_store.remove_pictures()


def files(store: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file but of locks, pointers, and the version to which adding leads each time anew."""
    grown = f"banks/parts/versions/{EXPECTED['versions']['grown']}."
    return {
        below: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in store.rglob("*")
        if path.is_file()
        and path.name != "current.json"
        and not (below := str(path.relative_to(store))).startswith((".locks/", grown))
    }


def test_packed_store_is_small():
    assert old_store.PACKED.stat().st_size < 1_000_000


def test_the_same_steps_make_nothing_anew(store: Path):
    """Same names, same figures, and not one file of the store was written again."""
    before = files(store)
    found: dict[str, Any] = json.loads(json.dumps(old_store.made(store)))
    assert found == EXPECTED
    assert files(store) == before


def test_scores_that_are_gone_come_out_the_same_without_embedding(store: Path):
    for top in ("scores", "reports"):
        for path in sorted((store / top).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    before = {path: state for path, state in files(store).items() if path.startswith("embeddings/")}
    found = json.loads(json.dumps(old_store.made(store)))
    assert {path: state for path, state in files(store).items() if path.startswith("embeddings/")} == before
    for name, worst in EXPECTED["worst"].items():
        assert [uri for uri, _ in found["worst"][name]] == [uri for uri, _ in worst]
        assert [score for _, score in found["worst"][name]] == pytest.approx([score for _, score in worst], rel=1e-4)
    assert {name: found[name] for name in EXPECTED if name != "worst"} == {
        name: value for name, value in EXPECTED.items() if name != "worst"
    }


def test_all_of_it_is_shown_and_none_of_it_is_stale(store: Path):
    found = dn2.show(store)
    assert found.errors == ()
    assert {bank.name: len(bank.versions) for bank in found.banks} == {
        "cells": 1,
        "centres": 1,
        "clean": 1,
        "lots": 1,
        "parts": 2,
    }
    assert sum(reports.count for reports in found.reports) == 6
    assert found.cleanings.count == 1
    assert dn2.prune(store, now=4e9).kinds == ()


def test_warnings_of_its_reports_are_still_told(store: Path):
    made = [one.made for reports in dn2.show(store).reports for one in reports.newest]
    told = [warning for one in made if one is not None for warning in one.warnings]
    assert len(told) > 3
    assert {doubt for one in made if one is not None for doubt in words.doubts(one)} == set(told)


def test_what_was_scored_counts_as_scored(store: Path):
    dataset = dn2.ingest(old_store.TODAY, store, dataset="today", pattern=old_store.PATTERN)
    assert (dataset.added, dataset.changed, dataset.vanished) == (0, 0, 0)
    assert unscored(dataset, store, bank=dn2.open_bank(store, "parts")) == ()
