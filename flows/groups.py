"""Flows about groups: make a bank of them, and score others against it."""

from __future__ import annotations

from prefect import flow

import dn2
import tasks.steps as step
from dn2.groups.grouping import check_grouped
from dn2.neighbors.versions import check_kind
from dn2.records import GroupBankVersion, GroupReport
from dn2.reports.export import check_target
from dn2.store.documents import GROUP_BANK_VERSION
from flows.artifacts import display_bank, display_report
from flows.events import tell_report
from flows.images import embed_source
from flows.parameters import ScoreGroupsParameters, TrainGroupsParameters
from flows.watched import watched


@flow(name="train-groups")
def train_groups(parameters: TrainGroupsParameters) -> GroupBankVersion:
    """Embed groups of normal images, and make a bank version with thresholds for every group size."""
    with watched():
        check_grouped(parameters.source, parameters.pattern)
        check_kind(dn2.Store.open(parameters.store), parameters.bank, GROUP_BANK_VERSION)
        bank = step.fit_groups(embed_source(parameters), parameters.store, parameters.bank, parameters.fit)
        display_bank(bank)
    return bank


@flow(name="score-groups")
def score_groups(parameters: ScoreGroupsParameters) -> GroupReport:
    """Embed a batch as the bank was embedded, score its groups, and write the report."""
    if parameters.out is not None:
        check_target(parameters.out, parameters.store)
    with watched():
        check_grouped(parameters.source, parameters.pattern)
        bank = step.open_group_bank(parameters.store, parameters.bank)
        report = step.score_groups(embed_source(parameters, bank), parameters.store, bank, parameters.score)
        if parameters.out is not None:
            step.export(report, parameters.store, parameters.out)
        display_report(report, parameters.store, parameters.tell)
        tell_report(report, parameters.store, parameters.tell)
    return report
