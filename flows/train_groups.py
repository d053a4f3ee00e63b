"""Flow: make a bank of groups from groups of normal images."""

from __future__ import annotations

from prefect import flow

import tasks.steps as step
from dn2.records import GroupBankVersion
from flows.artifacts import show_group_bank
from flows.parameters import TrainGroupsParameters
from flows.steps import embed_source
from flows.watched import watched


@flow(name="train-groups")
def train_groups(parameters: TrainGroupsParameters) -> GroupBankVersion:
    """Embed groups of normal images, and make a bank version with thresholds for every group size."""
    with watched():
        embedded = embed_source(parameters)
        bank = step.fit_groups(embedded, parameters.store, parameters.bank, parameters.fit)
        show_group_bank(bank)
    return bank
