"""Flow: make a bank of groups from groups of normal images."""

from __future__ import annotations

from prefect import flow

import dn2
import tasks.steps as step
from dn2.groups.grouping import check_grouped
from dn2.neighbors.versions import check_kind
from dn2.records import GroupBankVersion
from dn2.store.documents import GROUP_BANK_VERSION
from flows.artifacts import show_group_bank
from flows.parameters import TrainGroupsParameters
from flows.steps import embed_source
from flows.watched import watched


@flow(name="train-groups")
def train_groups(parameters: TrainGroupsParameters) -> GroupBankVersion:
    """Embed groups of normal images, and make a bank version with thresholds for every group size."""
    with watched():
        check_grouped(parameters.source, parameters.pattern)
        check_kind(dn2.Store.open(parameters.store), parameters.bank, GROUP_BANK_VERSION)
        embedded = embed_source(parameters)
        bank = step.fit_groups(embedded, parameters.store, parameters.bank, parameters.fit)
        show_group_bank(bank)
    return bank
