"""Write what was found out about groups: a row for each group, a row for each image, and the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.groups.cards import cards_of
from dn2.groups.findings import Findings
from dn2.layout import GROUPS_FILE
from dn2.records import Doubt, GroupReport
from dn2.records.doubts import texts
from dn2.reports.groups import write_page
from dn2.scoring.rows import living_rows
from dn2.scoring.selection import calibration_needed, images_needed
from dn2.store.schemas import GROUPS, MEMBERS
from dn2.store.storage import Store
from dn2.store.tables import keep_rows, writing


def write_report(findings: Findings, store: Store, folder: str) -> GroupReport:
    """Write groups.parquet, part-*.parquet, report.html, and summary.json, which makes the report whole.

    Raises:
        StoreError: the store cannot be written.
    """
    grouping, verdicts, bank, config = findings.grouping, findings.verdicts, findings.bank.record, findings.config
    with writing(store, f"{folder}/{GROUPS_FILE}", GROUPS, {"bank": bank.name, "version": bank.version}) as file:
        file.write(_groups(findings))
    parts = _write_members(findings, store, folder)
    cards = cards_of(findings, store)
    pairs = list(zip(findings.reported, grouping.readable, strict=True))
    images = sum(int(reported.sum()) for reported, _ in pairs)
    rejected = sum(int((reported & ~readable).sum()) for reported, readable in pairs)
    doubts = tuple(_doubts(findings, images, rejected))
    report = GroupReport(
        uri=store.uri_of(folder),
        bank=bank.name,
        version=bank.version,
        source=findings.embedded.dataset.source,
        groups=len(grouping.group_ids),
        scored=int(verdicts.scored.sum()),
        anomalous=int(verdicts.anomalous.sum()),
        selected=int(findings.selected.sum()),
        unscored=int((~verdicts.scored).sum()),
        images=images,
        ungrouped=grouping.ungrouped,
        rejected=rejected,
        false_alarm_rate=config.false_alarm_rate or bank.false_alarm_rate,
        false_discovery_rate=config.false_discovery_rate,
        warnings=texts(doubts),
        worst=tuple(card.group for card in cards),
        doubts=doubts,
    )
    reasons = zip(grouping.group_ids, verdicts.reasons, strict=True)
    unscored = [(name, reason) for name, reason in reasons if reason is not None]
    names = [GROUPS_FILE, *parts]
    write_page(report, store, folder, bank=bank, cards=cards, unscored=unscored, parts=names, config=config)
    return report


def _write_members(findings: Findings, store: Store, folder: str) -> list[str]:
    """Write a row for each image, a part for each shard with any; return the parts' names."""
    bank = findings.bank.record
    names = []
    for number, (shard, reported) in enumerate(zip(findings.embedded.shards, findings.reported, strict=True)):
        if not reported.any():
            continue
        table = living_rows(shard, store, ["group_id", "label", "image_id", "uri", "reject_reason"])
        table = keep_rows(table, reported)
        values, ranks = findings.explained[number][reported], findings.ranks[number][reported]
        path = f"{folder}/{layout.part(number)}"
        names.append(path.rpartition("/")[2])
        footer = {"bank": bank.name, "version": bank.version, "shard": shard.path}
        with writing(store, path, MEMBERS, footer) as file:
            file.write(
                {
                    **{name: table[name].combine_chunks() for name in table.column_names},
                    "contribution": np.ma.masked_invalid(values),
                    "rank": np.ma.masked_array(ranks, np.isnan(values)),
                }
            )
    return names


def _groups(findings: Findings) -> dict[str, Any]:
    """Return the columns of groups.parquet: the largest score first, and last the groups that have none."""
    bank, grouping, verdicts = findings.bank, findings.grouping, findings.verdicts
    scored = np.flatnonzero(verdicts.scored)
    order = np.argsort(-verdicts.scores, kind="stable")
    others = np.flatnonzero(~verdicts.scored)
    rows = np.concatenate([scored[order], others])
    near = [bank.rows["group_id"][int(row)].as_py() for row in verdicts.neighbors.rows[order].reshape(-1)]
    k = bank.record.k

    def padded(values: npt.NDArray[Any]) -> Any:
        filler = np.zeros(len(others), values.dtype)
        return np.ma.masked_array(np.concatenate([values[order], filler]), np.arange(len(rows)) >= len(scored))

    return {
        "group_id": [grouping.group_ids[row] for row in rows],
        "label": [grouping.labels[row] for row in rows],
        "members": grouping.members[rows],
        "rejected": grouping.rejected[rows],
        "effective": [None] * len(rows) if bank.record.near is None else padded(verdicts.sizes),
        "distance": padded(verdicts.distances),
        "score": padded(verdicts.scores),
        "p_value": padded(verdicts.p_values),
        "q_value": padded(verdicts.q_values),
        "threshold": padded(verdicts.thresholds),
        "is_anomaly": padded(verdicts.anomalous),
        "selected": padded(findings.selected),
        "neighbor_ids": [near[low : low + k] for low in range(0, len(near), k)] + [None] * len(others),
        "neighbor_distances": [*verdicts.neighbors.distances[order]] + [None] * len(others),
        "reason": [verdicts.reasons[row] for row in rows],
    }


def _doubts(findings: Findings, images: int, rejected: int) -> Iterator[Doubt]:
    """Yield what a reader should know before trusting the figures."""
    record, verdicts, config = findings.bank.record, findings.verdicts, findings.config
    scored = int(verdicts.scored.sum())
    asked = config.false_alarm_rate or record.false_alarm_rate
    if rejected > config.max_rejects and rejected > config.max_reject_rate * images:
        message = f"{rejected} of {images} images could not be read: the others may not represent their groups"
        yield Doubt("unreadable", message, {"rejected": rejected, "images": images})
    if not scored:
        known = len(verdicts.scored)
        message = f"none of {known} groups could be scored" if known else "no image here belongs to a group"
        yield Doubt("none-scored", message, {"groups": known})
        return
    if verdicts.promised > asked:
        yield Doubt(
            "rate-not-kept",
            f"the bank's {record.groups} normal groups promise a false-alarm rate of {verdicts.promised:.2%}, not the "
            f"{asked:.2%} asked for",
            {"groups": record.groups, "asked": asked, "promised": verdicts.promised},
        )
    largest = round(verdicts.sizes.max())
    if largest > 2 * record.sizes[-1]:
        yield Doubt(
            "large-groups",
            f"groups of up to {largest} {record.counted} are judged as if they had {record.sizes[-1]}, as fewer than "
            f"five normal groups are larger: they are flagged too rarely",
            {"largest": largest, "calibrated_to": record.sizes[-1]},
        )
    needed = images_needed(scored, verdicts.calibration_rows, config.false_discovery_rate)
    if not findings.selected.any() and needed > scored:
        more = calibration_needed(scored, scored, config.false_discovery_rate)
        yield Doubt(
            "none-selected",
            f"{verdicts.calibration_rows} calibration scores are too few to select any group at a false-discovery rate "
            f"of {100 * config.false_discovery_rate:.4g}%: {more} would do if all {scored} groups scored above them",
            {"calibration_scores": verdicts.calibration_rows, "scores_needed": more, "groups": scored},
        )
