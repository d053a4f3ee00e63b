"""Flow: score groups of images against a bank of groups."""

from __future__ import annotations

from prefect import flow

import tasks.steps as step
from dn2.groups.grouping import check_grouped
from dn2.records import GroupReport
from dn2.reports.export import check_target
from flows.artifacts import show_groups
from flows.events import tell_report
from flows.parameters import ScoreGroupsParameters
from flows.steps import embed_source
from flows.watched import watched


@flow(name="score-groups")
def score_groups(parameters: ScoreGroupsParameters) -> GroupReport:
    """Embed a batch as the bank was embedded, score its groups, and write the report."""
    if parameters.out is not None:
        check_target(parameters.out, parameters.store)
    with watched():
        check_grouped(parameters.source, parameters.pattern)
        bank = step.open_group_bank(parameters.store, parameters.bank)
        embedded = embed_source(parameters, bank)
        report = step.score_groups(embedded, parameters.store, bank, parameters.score)
        if parameters.out is not None:
            step.export(report, parameters.store, parameters.out)
        show_groups(report, parameters.store, parameters.tell)
        tell_report(report, parameters.store, parameters.tell)
    return report
