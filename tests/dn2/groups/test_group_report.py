from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dn2
from dn2.config import GroupFitConfig, GroupScoreConfig
from dn2.records import Embedded
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import by_group, folder_of, groups_of, images, members_of, normal_groups, write_groups
from tests.dn2.scoring.synthetic import write_shards


def bank_of(store: Store, sizes: list[int], **settings: Any) -> dn2.GroupBankVersion:
    normal = write_groups(store, normal_groups(sizes, seed=0), shard_rows=40)
    return dn2.fit_groups(normal, store, bank="parts", config=GroupFitConfig(**{"false_alarm_rate": 0.1, **settings}))


def batch_of(store: Store, sizes: list[int], **settings: Any) -> Embedded:
    return write_groups(store, normal_groups(sizes, seed=1), **{"name": "batch", "shard_rows": 23, **settings})


def page_of(report: dn2.GroupReport) -> str:
    return (folder_of(report) / "report.html").read_text()


def test_summary_holds_the_record_and_only_numbers_that_json_knows(store: Store):
    bank_of(store, [5] * 12)
    report = dn2.score_groups(batch_of(store, [5, 9, 1]), store, bank="parts")

    text = (folder_of(report) / "summary.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {name: summary[name] for name in asdict(report)} == json.loads(json.dumps(asdict(report)))
    assert report.source == "file:///batch"
    assert Path(report.html.removeprefix("file://")).is_file()
    assert report.anomalous_rate == report.anomalous / 2


def test_worst_groups_are_the_first_rows(store: Store):
    bank_of(store, [5] * 12)
    groups = normal_groups([5] * 8, seed=1)
    groups["g004"] = images(5, seed=3) + 9 * np.eye(16)[7].astype(np.float16)
    batch = write_groups(store, groups, name="batch", labels=["red"] * 40)
    config = GroupScoreConfig(report_groups=3, report_members=2)
    report = dn2.score_groups(batch, store, bank="parts", config=config)

    rows = groups_of(store, report)
    assert rows[0]["group_id"] == "g004"
    for worst, row in zip(report.worst, rows[:3], strict=True):
        same = ("group_id", "members", "score", "p_value", "q_value", "is_anomaly", "selected")
        assert [getattr(worst, name) for name in same] == [row[name] for name in same]
        assert worst.nearest == row["neighbor_ids"][0]
        (odd,) = (one for one in members_of(store, report) if (one["group_id"], one["rank"]) == (worst.group_id, 1))
        assert worst.odd == odd["uri"]
    page = page_of(report)
    assert re.findall(r"<h3>\d+\. ([^<]*)</h3>", page) == [row["group_id"] for row in rows[:3]]
    assert page.count("contribute most to its distance, 2 of 5:") == 3
    assert page.count("no picture") == 6
    assert page.count("· label red") == 3


@pytest.mark.parametrize(("shown", "cards"), [(0, 0), (1, 1), (500, 6)])
def test_as_many_groups_are_shown_as_asked_for(store: Store, shown: int, cards: int):
    bank_of(store, [5] * 12)
    batch = batch_of(store, [5] * 6 + [1])
    report = dn2.score_groups(batch, store, bank="parts", config=GroupScoreConfig(report_groups=shown))

    assert (len(report.worst), page_of(report).count('<div class="card')) == (cards, cards)
    assert ("worst groups" in page_of(report)) == (cards > 0)
    assert len(groups_of(store, report)) == 7


def test_shares_on_the_page_are_those_of_the_rows_and_may_be_negative(store: Store):
    bank_of(store, [5] * 12)
    far = 8 * np.eye(16)[9]
    groups = {"odd": np.stack([*([far] * 4), 4 * np.eye(16)[0] - 2 * far]).astype(np.float16)}
    report = dn2.score_groups(write_groups(store, groups, name="batch", mixed=False), store, bank="parts")

    row = by_group(groups_of(store, report))["odd"]
    values = sorted((one["contribution"] / row["distance"] for one in members_of(store, report)), reverse=True)
    shares = [float(one) for one in re.findall(r"(-?[\d.]+)%</div>", page_of(report))]
    assert shares == pytest.approx([100 * value for value in values], abs=0.06)
    assert shares[-1] < 0
    assert sum(shares) == pytest.approx(100, abs=1)


@pytest.mark.parametrize("k", [1, 3])
def test_group_at_no_distance_has_no_shares_that_explode(store: Store, k: int):
    """All images are the same to the eye, and other bytes: what is left of the contributions is rounding."""
    alike = {f"g{number}": images(5, seed=0) for number in range(12)}
    normal, batch = (write_groups(store, alike, name=name) for name in ("normal", "batch"))
    dn2.fit_groups(normal, store, bank="parts", config=GroupFitConfig(k=k, false_alarm_rate=0.1))
    report = dn2.score_groups(batch, store, bank="parts")

    assert [row["distance"] for row in groups_of(store, report)] == [0] * 12
    assert report.anomalous == 0
    shares = [float(one) for one in re.findall(r"(-?[\d.]+)%</div>", page_of(report))]
    assert shares == [0] * 60


def test_images_that_could_not_be_read_are_counted_on_the_card(store: Store):
    bank_of(store, [5] * 12)
    batch = write_shards(store, images(6, seed=1), name="batch", groups=["a"] * 6, rejected=[2, 3])
    page = page_of(dn2.score_groups(batch, store, bank="parts"))

    assert "· 4 images, 2 could not be read" in page
    assert re.findall(r"<b>(\d+)</b>(images|could not be read|groups)", page) == [
        ("1", "groups"),
        ("6", "images"),
        ("2", "could not be read"),
    ]


def warnings_of(store: Store, batch: Embedded, **settings: Any) -> tuple[str, ...]:
    report = dn2.score_groups(batch, store, bank="parts", config=GroupScoreConfig(**settings))
    page = page_of(report)
    assert page.count('<div class="warning">') == len(report.warnings)
    return report.warnings


def test_report_without_anything_to_warn_of_has_no_warnings(store: Store):
    bank_of(store, [5] * 40)

    assert warnings_of(store, batch_of(store, [5] * 3)) == ()


def test_too_many_rejects_only_warn(store: Store):
    bank_of(store, [5] * 40)
    batch = batch_of(store, [30] * 3, rejected=range(21))
    message = "21 of 90 images could not be read: the others may not represent their groups"

    assert message in warnings_of(store, batch)
    assert message not in warnings_of(store, batch, max_rejects=21)
    assert message not in warnings_of(store, batch, max_reject_rate=0.5)


def test_rate_that_the_bank_cannot_promise_is_told(store: Store):
    bank_of(store, [5] * 12)
    (message,) = warnings_of(store, batch_of(store, [5] * 3), false_alarm_rate=0.01)

    assert message == "the bank's 12 normal groups promise a false-alarm rate of 7.69%, not the 1.00% asked for"


def test_groups_far_larger_than_the_normal_ones_are_told(store: Store):
    bank_of(store, [5] * 12)

    message = (
        "groups of up to 11 independent images are judged as if they had 5, as fewer than five normal groups are "
        "larger: they are flagged too rarely"
    )
    assert warnings_of(store, batch_of(store, [5, 11])) == (message,)
    assert warnings_of(store, batch_of(store, [5, 10])) == ()


def test_too_few_calibration_scores_to_select_any_group_are_told(store: Store):
    bank_of(store, [5] * 12)

    (message,) = warnings_of(store, batch_of(store, [5] * 3), false_discovery_rate=0.01)
    assert message == (
        "12 calibration scores are too few to select any group at a false-discovery rate of 1%: 99 would do if all 3 "
        "groups scored above them"
    )


def test_number_of_calibration_scores_that_would_do_really_does(store: Store):
    bank_of(store, [5] * 99)
    far = {f"g{number}": images(5, seed=number) + 9 * np.eye(16)[7].astype(np.float16) for number in range(3)}
    batch = write_groups(store, far, name="batch")
    report = dn2.score_groups(batch, store, bank="parts", config=GroupScoreConfig(false_discovery_rate=0.01))

    assert (report.selected, report.anomalous, report.warnings) == (3, 3, ())
