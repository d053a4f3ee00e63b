"""Flow: make an older version of a bank the current one again."""

from __future__ import annotations

from prefect import flow

import tasks.steps as step
from dn2.records import BankVersion, GroupBankVersion
from flows.artifacts import show_bank, show_group_bank
from flows.parameters import UseVersionParameters
from flows.watched import watched


@flow(name="use-version")
def use_version(parameters: UseVersionParameters) -> BankVersion | GroupBankVersion:
    """Point a bank, of images or of groups, at one of its versions; nothing else is written."""
    with watched():
        bank = step.use_version(parameters.store, parameters.bank, parameters.version)
        if isinstance(bank, GroupBankVersion):
            show_group_bank(bank)
        else:
            show_bank(bank)
    return bank
