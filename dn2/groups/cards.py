"""The cards of the page about groups: the worst ones, what makes them odd, and the normal ones beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dn2.groups.findings import Findings
from dn2.records import WorstGroup
from dn2.reports.groups import GroupCard, Member, NormalGroup
from dn2.reports.pictures import thumbnails
from dn2.scoring.rows import living_rows
from dn2.store.storage import Store


def cards_of(findings: Findings, store: Store) -> list[GroupCard]:
    """Return the groups with the largest scores, each with the images that contribute most.

    Raises:
        StoreError: the store cannot be read.
    """
    bank, grouping, verdicts, config = findings.bank, findings.grouping, findings.verdicts, findings.config
    order = np.argsort(-verdicts.scores, kind="stable")[: config.report_groups]
    members = _members(findings, store, order)
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
                    selected=bool(findings.selected[row]),
                    nearest=nearest[0]["group_id"],
                    odd=members[place][0]["uri"],
                    effective=None if bank.record.near is None else float(verdicts.sizes[row]),
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


def _members(findings: Findings, store: Store, order: npt.NDArray[np.int64]) -> list[list[dict[str, Any]]]:
    """Return for each of some groups its images that contribute most, in the order of their ranks."""
    place_of = {int(row): place for place, row in enumerate(order)}
    found: list[list[dict[str, Any]]] = [[] for _ in order]
    shards, groups_of = findings.embedded.shards, findings.grouping.group_of
    for shard, groups, values, rank in zip(shards, groups_of, findings.explained, findings.ranks, strict=True):
        scored = findings.verdicts.places(groups)
        among_first = (rank <= findings.config.report_members) & ~np.isnan(values)
        shown = np.flatnonzero(np.isin(scored, order) & among_first)
        if len(shown):
            rows = living_rows(shard, store, ["image_id", "uri"]).take(shown).to_pylist()
            for row, at in zip(rows, shown, strict=True):
                one = {**row, "contribution": float(values[at]), "rank": int(rank[at]), "shard": shard.path}
                found[place_of[int(scored[at])]].append(one)
    return [sorted(group, key=lambda one: one["rank"]) for group in found]
