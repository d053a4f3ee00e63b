"""Training images some of which are impurities, and what a cleaning promises of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dn2.config import CleanConfig
from dn2.records import Cleaning
from dn2.store.schemas import CLEANING
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.scoring.synthetic import clusters, mode

NORMAL, IMPURE = 380, 20
COUNT = NORMAL + IMPURE
AUTO, PAPER = (
    CleanConfig(rule="auto", clusters="drop", contamination=0.05),
    CleanConfig(rule="paper", contamination=0.05),
)


def contaminated(seed: int = 0) -> np.ndarray:
    """Return (400, 64) float16, of which the last 20 are impurities in clusters of 5; of any length."""
    vectors = np.concatenate([mode(NORMAL, seed=seed, spread=0.8), clusters(IMPURE // 5, 5)])
    return (vectors * np.random.default_rng(seed).uniform(1, 20, (COUNT, 1))).astype(np.float16)


def folder_of(done: Cleaning) -> Path:
    return Path(done.uri.removeprefix("file://"))


def cleaning_rows(store: Store, done: Cleaning) -> list[dict[str, Any]]:
    return read_table(store, f"cleaning/{done.fingerprint}/rows.parquet", CLEANING).to_pylist()


def number(row: dict[str, Any]) -> int:
    """Return the number that `write_shards` gave an image."""
    return int(row["uri"].rpartition("/")[2].removesuffix(".png"))


def check_rows(store: Store, done: Cleaning, expected: list[int]) -> None:
    """Assert all that is promised of rows.parquet and of the record's counts."""
    rows = cleaning_rows(store, done)
    count = len(expected)
    assert [number(row) for row in rows] == expected
    assert len({row["image_id"] for row in rows}) == count
    assert sorted(row["rank"] for row in rows) == list(range(1, count + 1))
    by_rank = sorted(rows, key=lambda row: row["rank"])
    scores = [row["score"] for row in by_rank]
    assert scores == sorted(scores, reverse=True)
    assert np.isfinite(scores).all()
    dropped, impurities = round(done.drop_fraction * count), round(done.contamination * count)
    assert [row["kept"] for row in by_rank] == [False] * dropped + [True] * (count - dropped)
    margin = dropped - impurities
    assert [row["reason"] for row in by_rank] == (
        ["impurity"] * impurities + ["margin"] * margin + [None] * (count - dropped)
    )
    assert (done.images, done.dropped, done.kept) == (count, dropped, count - dropped)
