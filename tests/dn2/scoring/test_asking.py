"""Cleaning that asks: clusters stay in until someone says what they are, and an answer is kept to."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

import dn2
from dn2.config import CleanConfig
from dn2.errors import BankError, ConfigError
from dn2.records import Embedded
from dn2.scoring.asking import examined
from dn2.scoring.judged import Images
from dn2.store.schemas import CLEANING
from dn2.store.storage import Store
from dn2.store.tables import read_config
from tests.dn2.scoring.impure import cleaning_rows, number
from tests.dn2.scoring.synthetic import mode, write_shards

MAIN, SECOND = 600, 60


def two_kinds(second: int = SECOND) -> np.ndarray:
    """Return (600 + second, 64) float16: one spread-out mode, and another kind elsewhere."""
    return np.concatenate([mode(MAIN, seed=0, spread=0.8), mode(second, seed=50, spread=0.6)]).astype(np.float16)


@pytest.fixture
def mixed(store: Store) -> Embedded:
    return write_shards(store, two_kinds(), shard_rows=200)


def answered(**answers: list[str]) -> CleanConfig:
    return CleanConfig(rule="auto", **answers)


def test_second_kind_is_asked_about_and_stays_in(store: Store, mixed: Embedded, caplog: pytest.LogCaptureFixture):
    done = dn2.clean(mixed, store)

    (cluster,) = done.clusters
    rows = cleaning_rows(store, done)
    assert re.fullmatch("[0-9a-f]{6}", cluster.id)
    assert {number(row) for row in rows if row["cluster"] == cluster.id} == set(range(MAIN, MAIN + SECOND))
    assert (cluster.images, cluster.units, cluster.answer) == (SECOND, SECOND, "undecided")
    assert sum(not row["kept"] for row in rows[MAIN:]) < SECOND / 5
    assert done.dropped < 0.06 * len(rows)
    assert done.low is not None
    assert done.high is not None
    assert done.low <= 0.01 < SECOND / len(rows) < done.high
    assert "normal or not? Until that is said, " in caplog.text


def test_cluster_that_is_kept_is_no_question_any_more(store: Store, mixed: Embedded, caplog: pytest.LogCaptureFixture):
    asked = dn2.clean(mixed, store)
    caplog.clear()

    done = dn2.clean(mixed, store, config=answered(keep=[asked.clusters[0].id]))

    assert done.uri != asked.uri
    assert done.clusters == (replace(asked.clusters[0], answer="keep"),)
    assert (done.undecided, done.warnings, caplog.text) == ((), (), "")
    assert [row["kept"] for row in cleaning_rows(store, done)] == [row["kept"] for row in cleaning_rows(store, asked)]
    assert done.high < asked.high - 0.05


def test_cluster_that_is_dropped_goes_whole_and_counts_as_anomalies(store: Store, mixed: Embedded):
    asked = dn2.clean(mixed, store)

    done = dn2.clean(mixed, store, config=answered(drop_cluster=[asked.clusters[0].id]))

    rows = cleaning_rows(store, done)
    assert {row["reason"] for row in rows[MAIN:]} == {"impurity"}
    assert {row["reason"] for row in rows[:MAIN]} == {"margin", None}
    assert sum(not row["kept"] for row in rows[:MAIN]) <= 0.6 * MAIN
    assert done.contamination == pytest.approx(SECOND / len(rows), abs=0.01)
    assert done.low < SECOND / len(rows) < done.high
    assert {number(row) for row in sorted(rows, key=lambda row: row["rank"])[:SECOND]} == set(range(MAIN, len(rows)))
    bank = dn2.fit(mixed, store, bank="b", cleaning=done)
    assert (bank.rows, bank.contamination) == (done.kept, done.contamination)


def test_ids_are_those_of_the_images_and_survive_a_rerun(store: Store, mixed: Embedded):
    first = dn2.clean(mixed, store)
    again = dn2.clean(mixed, store, config=CleanConfig(rule="auto", report_images=3))
    cut = dn2.clean(write_shards(store, two_kinds(), shard_rows=77), store)
    other = dn2.clean(write_shards(store, two_kinds(61), name="other"), store)

    assert {one.clusters for one in (first, again, cut)} == {first.clusters}
    assert other.clusters[0].id != first.clusters[0].id


@pytest.mark.parametrize("field", ["keep", "drop_cluster"])
def test_answer_to_what_was_not_asked_is_refused_with_the_ids(store: Store, mixed: Embedded, field: str):
    (cluster,) = dn2.clean(mixed, store).clusters
    with pytest.raises(ConfigError, match=f"{field}: got 'ffffff', expected one of {cluster.id}$"):
        dn2.clean(mixed, store, config=answered(**{field: ["ffffff"]}))
    plain = write_shards(store, mode(MAIN, seed=0, spread=0.8), name="plain")
    with pytest.raises(ConfigError, match=f"{field}: got 'ffffff', expected none: there are no clusters"):
        dn2.clean(plain, store, config=answered(**{field: ["ffffff"]}))
    assert len(store.names("cleaning")) == 1


def test_answers_need_a_rule_that_asks_and_do_not_contradict_each_other():
    for settings in ({"rule": "paper"}, {"rule": "auto", "clusters": "drop"}):
        with pytest.raises(ValidationError, match="got keep or drop_cluster, expected rule auto with clusters ask"):
            CleanConfig(**settings, keep=["abcdef"])
    with pytest.raises(ValidationError, match="got cluster abcdef in keep and in drop_cluster"):
        answered(keep=["abcdef"], drop_cluster=["abcdef"])
    one, other = answered(keep=["b", "a", "b"]), answered(keep=["a", "b"])
    assert one.fingerprint() == other.fingerprint()
    plain, drops = CleanConfig(rule="auto"), answered(drop_cluster=["a", "b"])
    assert len({config.fingerprint() for config in (plain, one, drops)}) == 3
    assert "keep" not in plain.identity()


def test_one_kind_of_image_is_not_asked_about(store: Store):
    for seed in range(3):
        done = dn2.clean(write_shards(store, mode(MAIN, seed=seed, spread=0.8), name=f"plain{seed}"), store)
        assert (done.clusters, done.low) == ((), 0.0)
        assert done.dropped < 0.06 * MAIN


def test_images_like_no_other_are_dropped_unasked(store: Store):
    strangers = np.concatenate([mode(1, seed=100 + seed, spread=0.8) for seed in range(12)])
    vectors = np.concatenate([mode(400, seed=0, spread=0.4), strangers]).astype(np.float16)

    rows = cleaning_rows(store, dn2.clean(write_shards(store, vectors), store))

    assert not any(row["kept"] for row in rows[400:])
    assert "impurity" in {row["reason"] for row in rows[400:]}
    assert sum(row["kept"] for row in rows[:400]) > 0.94 * 400


def test_bursts_count_once_and_are_no_cluster(store: Store):
    """Every picture was taken ten times: what was asked about is what is asked about without the shots."""
    parts, random = two_kinds().astype(np.float64), np.random.default_rng(0)
    shots = np.repeat(parts, 4, axis=0) + 0.02 * random.standard_normal((4 * len(parts), 64)) / 8
    embedded = write_shards(store, shots.astype(np.float16))

    done = dn2.clean(embedded, store)

    assert done.units == pytest.approx(len(parts), rel=0.03)
    (cluster,) = done.clusters
    assert (cluster.images, cluster.units) == (4 * SECOND, pytest.approx(SECOND, abs=2))
    kept = np.array([row["kept"] for row in cleaning_rows(store, done)]).reshape(-1, 4)
    assert (kept.all(axis=1) | ~kept.any(axis=1)).mean() > 0.98
    assert done.dropped < 0.06 * len(shots)


def test_more_than_forty_percent_stop_with_an_explanation(store: Store):
    embedded = write_shards(store, two_kinds(500))
    (cluster,) = dn2.clean(embedded, store).clusters
    with pytest.raises(BankError, match=r"4\d% of the images would be taken for anomalies, expected at most 40%"):
        dn2.clean(embedded, store, config=answered(drop_cluster=[cluster.id]))


def test_told_contamination_and_drop_fraction_are_kept_to(store: Store, mixed: Embedded):
    told = dn2.clean(mixed, store, config=CleanConfig(rule="auto", contamination=0.2))
    dropped = dn2.clean(mixed, store, config=CleanConfig(rule="auto", drop_fraction=0.3))

    assert (told.contamination, told.low, told.high, told.estimated) == (0.2, 0.2, 0.2, False)
    assert dropped.dropped == round(0.3 * len(two_kinds()))
    little = CleanConfig(rule="auto", drop_fraction=0.01, drop_cluster=[told.clusters[0].id])
    with pytest.raises(ConfigError, match=r"drop_fraction: got 0\.01, expected at least what is taken for anomalies"):
        dn2.clean(mixed, store, config=little)


def test_images_beyond_the_sample_belong_to_the_kind_of_their_nearest(
    store: Store, mixed: Embedded, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dn2.scoring.asking.SAMPLE", 220)
    assert len(examined(Images(mixed, store)).chosen) == 220

    done = dn2.clean(mixed, store)

    (cluster,) = done.clusters
    assert (cluster.images, 10 < cluster.units < 35) == (SECOND, True)
    dropped = dn2.clean(mixed, store, config=answered(drop_cluster=[cluster.id]))
    assert not any(row["kept"] for row in cleaning_rows(store, dropped)[MAIN:])


def test_footer_holds_the_interval_and_the_answers(store: Store, mixed: Embedded):
    (cluster,) = dn2.clean(mixed, store).clusters
    done = dn2.clean(mixed, store, config=answered(keep=[cluster.id]))
    footer = read_config(store, f"cleaning/{done.fingerprint}/rows.parquet", CLEANING)
    assert (footer["contamination_low"], footer["contamination_high"]) == (done.low, done.high)
    assert (footer["keep"], footer["clusters"]) == ([cluster.id], "ask")
