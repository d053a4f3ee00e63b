"""Write what was found out about groups: a row for each group, a row for each image, and the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2.config import GroupScoreConfig
from dn2.groups.bank import GroupBank
from dn2.groups.grouping import Grouping
from dn2.groups.judge import Verdicts
from dn2.records import Embedded, GroupReport, WorstGroup
from dn2.reports.files import GROUPS_FILE, part_path
from dn2.reports.groups import GroupCard, Member, NormalGroup, write_page
from dn2.reports.pictures import thumbnails
from dn2.scoring.rows import living_rows
from dn2.scoring.selection import calibration_needed, images_needed
from dn2.store.schemas import GROUPS, MEMBERS
from dn2.store.storage import Store
from dn2.store.tables import keep_rows, writing

_Rows = list[npt.NDArray[Any]]


def write_report(
    embedded: Embedded,
    store: Store,
    folder: str,
    bank: GroupBank,
    grouping: Grouping,
    verdicts: Verdicts,
    explained: list[npt.NDArray[np.float32]],
    config: GroupScoreConfig,
) -> GroupReport:
    """Write groups.parquet, part-*.parquet, report.html, and summary.json, which makes the report whole.

    Args:
        embedded: the batch.
        store: where dn2 keeps its files.
        folder: where to.
        bank: what it was compared with.
        grouping: its groups.
        verdicts: what was found out about them.
        explained: for each shard (R,) float32, what each row contributes.
        config: false-discovery rate and the size of the report.

    Raises:
        StoreError: the store cannot be written.
    """
    selected = verdicts.q_values <= config.false_discovery_rate
    footer = {"bank": bank.record.name, "version": bank.record.version}
    with writing(store, f"{folder}/{GROUPS_FILE}", GROUPS, footer) as file:
        file.write(_groups(bank, grouping, verdicts, selected))
    ranks = _ranks(grouping, explained)
    parts = []
    images = rejected = 0
    for number, shard in enumerate(embedded.shards):
        wanted = grouping.group_of[number] != -2
        if wanted.any():
            parts.append(part_path(folder, number))
            rows = living_rows(shard, store, ["group_id", "label", "image_id", "uri", "reject_reason"])
            table = keep_rows(rows, wanted)
            columns = {name: table[name].combine_chunks() for name in table.column_names}
            values = explained[number][wanted]
            columns["contribution"] = np.ma.masked_invalid(values)
            columns["rank"] = np.ma.masked_array(ranks[number][wanted], np.isnan(values))
            with writing(store, parts[-1], MEMBERS, {**footer, "shard": shard.path}) as file:
                file.write(columns)
            images += int(wanted.sum())
            rejected += int((wanted & ~grouping.readable[number]).sum())
    cards = _cards(embedded, store, bank, grouping, verdicts, selected, explained, ranks, config)
    report = GroupReport(
        uri=store.uri_of(folder),
        bank=bank.record.name,
        version=bank.record.version,
        source=embedded.dataset.source,
        groups=len(grouping.group_ids),
        scored=int(verdicts.scored.sum()),
        anomalous=int(verdicts.anomalous.sum()),
        selected=int(selected.sum()),
        small=int((~verdicts.scored).sum()),
        images=images,
        ungrouped=grouping.ungrouped,
        rejected=rejected,
        false_alarm_rate=config.false_alarm_rate or bank.record.false_alarm_rate,
        false_discovery_rate=config.false_discovery_rate,
        warnings=tuple(_warnings(bank, grouping, verdicts, int(selected.sum()), images, rejected, config)),
        worst=tuple(card.group for card in cards),
    )
    names = [GROUPS_FILE, *(part.rpartition("/")[2] for part in parts)]
    write_page(report, store, folder, bank=bank.record, cards=cards, parts=names, config=config)
    return report


def _groups(bank: GroupBank, grouping: Grouping, verdicts: Verdicts, selected: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return the columns of groups.parquet: the largest score first, and last the groups that have none."""
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
        "distance": padded(verdicts.distances),
        "score": padded(verdicts.scores),
        "p_value": padded(verdicts.p_values),
        "q_value": padded(verdicts.q_values),
        "threshold": padded(verdicts.thresholds),
        "is_anomaly": padded(verdicts.anomalous),
        "selected": padded(selected),
        "neighbor_ids": [near[low : low + k] for low in range(0, len(near), k)] + [None] * len(others),
        "neighbor_distances": [*verdicts.neighbors.distances[order]] + [None] * len(others),
        "reason": [None] * len(scored)
        + [f"{grouping.members[row]} readable images, expected at least {bank.record.min_size}" for row in others],
    }


def _ranks(grouping: Grouping, explained: list[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.int64]]:
    """Return for each shard (R,) int64: the place of each row in its group, 1 contributes most."""
    groups, values = np.concatenate(grouping.group_of), np.concatenate(explained)
    order = np.lexsort((-values, groups))  # nan comes last
    _, first, inverse = np.unique(groups[order], return_index=True, return_inverse=True)
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - first[inverse] + 1
    return np.split(ranks, np.cumsum([len(one) for one in grouping.group_of])[:-1])


def _warnings(
    bank: GroupBank,
    grouping: Grouping,
    verdicts: Verdicts,
    selected: int,
    images: int,
    rejected: int,
    config: GroupScoreConfig,
) -> Iterator[str]:
    """Yield what a reader should know before trusting the figures."""
    record, scored = bank.record, int(verdicts.scored.sum())
    asked = config.false_alarm_rate or record.false_alarm_rate
    if rejected > config.max_rejects and rejected > config.max_reject_rate * images:
        yield f"{rejected} of {images} images could not be read: the others may not stand for their groups"
    if not scored:
        yield f"no group has {record.min_size} readable images: nothing was scored"
        return
    if verdicts.promised > asked:
        yield (
            f"the bank's {record.groups} normal groups promise a false-alarm rate of {verdicts.promised:.2%}, not the "
            f"{asked:.2%} asked for"
        )
    largest = int(grouping.members[verdicts.scored].max())
    if largest > 2 * record.sizes[-1]:
        yield (
            f"groups of up to {largest} images are judged as if they had {record.sizes[-1]}, as no normal group is "
            f"that large: they are flagged too rarely"
        )
    needed = images_needed(scored, verdicts.calibration_rows, config.false_discovery_rate)
    if not selected and needed > scored:
        more = calibration_needed(scored, scored, config.false_discovery_rate)
        yield (
            f"{verdicts.calibration_rows} calibration scores are too few to select any group at a false-discovery rate "
            f"of {100 * config.false_discovery_rate:.4g}%: {more} would do if all {scored} groups scored above them"
        )


def _cards(
    embedded: Embedded,
    store: Store,
    bank: GroupBank,
    grouping: Grouping,
    verdicts: Verdicts,
    selected: npt.NDArray[np.bool_],
    explained: list[npt.NDArray[np.float32]],
    ranks: list[npt.NDArray[np.int64]],
    config: GroupScoreConfig,
) -> list[GroupCard]:
    """Return the groups with the largest scores, each with the images that contribute most."""
    order = np.argsort(-verdicts.scores, kind="stable")[: config.report_groups]
    members = _members(embedded, store, verdicts, grouping, order, explained, ranks, config.report_members)
    near = bank.rows.take(verdicts.neighbors.rows[order].reshape(-1)).to_pylist()
    shards = {one["image_id"]: one["shard"] for group in members for one in group}
    shards |= {
        name: shard for row in near for name, shard in zip(row["example_ids"], row["example_shards"], strict=True)
    }
    found = thumbnails(store, shards)
    numbers = np.flatnonzero(verdicts.scored)[order]
    cards = []
    for place, (row, number) in enumerate(zip(order, numbers, strict=True)):
        distance = float(verdicts.distances[row]) or np.inf  # at no distance, contributions are rounding
        nearest = near[place * bank.record.k : (place + 1) * bank.record.k]
        cards.append(
            GroupCard(
                group=WorstGroup(
                    group_id=grouping.group_ids[number],
                    members=int(grouping.members[number]),
                    score=float(verdicts.scores[row]),
                    p_value=float(verdicts.p_values[row]),
                    q_value=float(verdicts.q_values[row]),
                    is_anomaly=bool(verdicts.anomalous[row]),
                    selected=bool(selected[row]),
                    nearest=nearest[0]["group_id"],
                    odd=members[place][0]["uri"],
                ),
                label=grouping.labels[number],
                rejected=int(grouping.rejected[number]),
                threshold=float(verdicts.thresholds[row]),
                members=[
                    Member(one["uri"], one["contribution"] / distance, found.get(one["image_id"]))
                    for one in members[place]
                ],
                neighbors=[
                    NormalGroup(one["group_id"], one["members"], [found.get(name) for name in one["example_ids"]])
                    for one in nearest
                ],
            )
        )
    return cards


def _members(
    embedded: Embedded,
    store: Store,
    verdicts: Verdicts,
    grouping: Grouping,
    order: npt.NDArray[np.int64],
    explained: list[npt.NDArray[np.float32]],
    ranks: list[npt.NDArray[np.int64]],
    count: int,
) -> list[list[dict[str, Any]]]:
    """Return for each of some groups its images that contribute most, in the order of their ranks."""
    place_of = {int(row): place for place, row in enumerate(order)}
    found: list[list[dict[str, Any]]] = [[] for _ in order]
    for shard, groups, values, rank in zip(embedded.shards, grouping.group_of, explained, ranks, strict=True):
        scored = verdicts.places(groups)
        shown = np.flatnonzero(np.isin(scored, order) & (rank <= count) & ~np.isnan(values))
        if len(shown):
            rows = living_rows(shard, store, ["image_id", "uri"]).take(shown).to_pylist()
            for row, at in zip(rows, shown, strict=True):
                one = {**row, "contribution": float(values[at]), "rank": int(rank[at]), "shard": shard.path}
                found[place_of[int(scored[at])]].append(one)
    return [sorted(group, key=lambda one: one["rank"]) for group in found]
