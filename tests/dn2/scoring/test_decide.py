"""What a report says under each rule, compared with all its scores at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import false_discovery_control

import dn2
from dn2.config import FitConfig, ScoreConfig, ThresholdConfig
from dn2.errors import SchemaError
from dn2.records import Embedded
from dn2.scoring.decide import decide
from dn2.scoring.plan import plan_scoring
from dn2.scoring.score import score_shard
from dn2.store.schemas import CALIBRATION, REPORT, SCORES
from dn2.store.storage import Store
from dn2.store.tables import read_table, writing
from tests.dn2.scoring.synthetic import normal_vectors, write_shards

RULES: list[dict[str, Any]] = [
    {},
    {"false_alarm_rate": 0.2},
    {"quantile": 0.5},
    {"value": 2.5},
    {"value": 0},
    {"budget": 1},
    {"budget": 7},
    {"budget": 29},
    {"budget": 1000},
]


@pytest.fixture
def bank(store: Store) -> dn2.BankVersion:
    normal = write_shards(store, normal_vectors(60, seed=0), shard_rows=25)
    return dn2.fit(normal, store, bank="parts", config=FitConfig(false_alarm_rate=0.1))


def mixed(store: Store, *, count: int = 32, rejected: tuple[int, ...] = (3, 20), name: str = "batch") -> Embedded:
    """A batch in shards of seven, of which every fourth image is far from normal, and some cannot be read."""
    vectors = normal_vectors(count, seed=1)
    vectors[::4] *= 3
    return write_shards(store, vectors, name=name, rejected=rejected, shard_rows=7)


def rows_of(store: Store, report: dn2.Report) -> list[dict[str, Any]]:
    folder = report.uri.removeprefix(f"{store.uri}/")
    parts = [name for name in store.names(folder) if name.startswith("part-")]
    return [row for part in parts for row in read_table(store, f"{folder}/{part}", REPORT).to_pylist()]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rows_and_counts_are_those_of_the_whole_batch_at_once(
    store: Store, bank: dn2.BankVersion, rule: dict[str, Any]
):
    config = ScoreConfig(threshold=ThresholdConfig(**rule), false_discovery_rate=0.2)
    report = dn2.score(mixed(store), store, bank=bank, config=config)
    rows = rows_of(store, report)

    scored = [row for row in rows if row["score"] is not None]
    assert (len(rows), len(scored)) == (32, 30)
    assert {row["threshold"] for row in rows} == {np.float32(report.threshold)}
    assert [row["is_anomaly"] for row in scored] == [row["score"] > np.float32(report.threshold) for row in scored]
    expected = false_discovery_control([row["p_value"] for row in scored])
    np.testing.assert_allclose([row["q_value"] for row in scored], expected, rtol=1e-12)
    assert [row["selected"] for row in scored] == [row["q_value"] <= 0.2 for row in scored]
    assert report.anomalous == sum(row["is_anomaly"] for row in scored)
    assert report.selected == sum(row["selected"] for row in scored) >= 7
    assert report.false_discovery_rate == 0.2
    if "budget" in rule:
        assert report.anomalous == min(rule["budget"], 30)
    if "value" in rule:
        assert report.threshold == rule["value"]
    for worst in report.worst:
        (row,) = [row for row in scored if row["uri"] == worst.uri]
        names = ("score", "p_value", "q_value", "is_anomaly", "selected")
        assert [getattr(worst, name) for name in names] == [row[name] for name in names]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_page_says_how_the_threshold_was_chosen_and_what_lies_above_it(
    store: Store, bank: dn2.BankVersion, rule: dict[str, Any]
):
    report = dn2.score(mixed(store), store, bank=bank, config=ScoreConfig(threshold=ThresholdConfig(**rule)))

    known = read_table(store, f"banks/parts/versions/{bank.version}.calibration.parquet", CALIBRATION)["score"]
    above = int((known.to_numpy() > np.float32(report.threshold)).sum())
    page = " ".join(Path(report.html.removeprefix("file://")).read_text().split())
    rule_text = report.rule.replace("'", "&#39;")
    assert (
        f"Its rule: {rule_text}. Of the 60 calibration scores of normal images (leave-one-out, 60 scores), {above} lie"
        in page
    )
    assert f"<div><b>{report.selected}</b>selected</div>" in page
    assert f">threshold {report.threshold:.4g}</text>" in page
    assert page.count("· selected") == report.selected


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_batch_without_a_readable_image_can_be_decided(store: Store, bank: dn2.BankVersion, rule: dict[str, Any]):
    batch = mixed(store, count=9, rejected=tuple(range(9)))
    report = dn2.score(batch, store, bank=bank, config=ScoreConfig(threshold=ThresholdConfig(**rule)))

    assert (report.images, report.scored, report.anomalous, report.selected, report.rejected) == (9, 0, 0, 0, 9)
    assert report.warnings == ("none of the 9 images could be read: nothing was scored",)
    assert {row["is_anomaly"] for row in rows_of(store, report)} == {None}
    assert report.threshold == (bank.threshold if not rule or "budget" in rule else report.threshold)


def test_batch_of_one_image(store: Store, bank: dn2.BankVersion):
    batch = mixed(store, count=1, rejected=())
    report = dn2.score(batch, store, bank=bank, config=ScoreConfig(threshold=ThresholdConfig(budget=1)))

    (row,) = rows_of(store, report)
    assert (report.anomalous, report.selected, row["q_value"]) == (1, 1, row["p_value"])
    assert row["threshold"] == np.nextafter(np.float32(row["score"]), np.float32(0))


def test_shortage_of_calibration_scores_is_warned_of_in_record_and_page(store: Store, bank: dn2.BankVersion):
    """61 images at the least of all p-values are needed for one: 100 / (0.01 * 61) is over 100."""
    vectors = normal_vectors(100, seed=1)
    vectors[5] *= 3
    report = dn2.score(
        write_shards(store, vectors, name="batch"), store, bank=bank, config=ScoreConfig(false_discovery_rate=0.01)
    )

    warning = (
        "60 calibration scores are too few to select any image at a false-discovery rate of 1%: 99 would do if all "
        "100 images scored above them, 9999 if one did"
    )
    assert report.warnings == (warning,)
    assert f"<p>{warning} <code>none-selected</code></p>" in Path(report.html.removeprefix("file://")).read_text()


def test_decided_again_after_a_crash_the_report_is_the_same(store: Store, bank: dn2.BankVersion):
    batch = mixed(store)
    plan = plan_scoring(batch, store, bank, ScoreConfig())
    parts = [
        score_shard(shard, store, bank=bank, folder=plan.folder, number=number, config=ScoreConfig())
        for number, shard in plan.shards
    ]
    scored = plan.gather(parts)
    first = decide(scored, store, bank=bank)
    folder = Path(first.uri.removeprefix("file://"))
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "summary.json").unlink()
    (folder / "report.html").write_text("half a pa")

    assert decide(scored, store, bank=bank) == first == dn2.score(batch, store, bank=bank)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_scores_that_are_not_those_of_the_record_are_refused(store: Store, bank: dn2.BankVersion):
    report = dn2.score(mixed(store), store, bank=bank)
    scored = json.loads(store.read(report.uri.removeprefix(f"{store.uri}/") + "/summary.json"))["scores"]
    first, second = scored["parts"][:2]
    table = read_table(store, second["path"], SCORES).slice(1)
    with writing(store, first["path"], SCORES, {}) as file:
        file.write({name: table[name].combine_chunks() for name in table.column_names})

    with pytest.raises(SchemaError, match=r"got 6 scores of 6 images, expected 6 of 7; delete that file and score"):
        dn2.rethreshold(report, config=ScoreConfig(false_discovery_rate=0.2))
