"""Flow: take images out of a bank."""

from __future__ import annotations

from prefect import flow

import tasks.steps as step
from dn2.records import Growth
from flows.artifacts import show_bank
from flows.parameters import RemoveParameters
from flows.watched import watched


@flow(name="bank-remove")
def bank_remove(parameters: RemoveParameters) -> Growth:
    """Make a version of a bank without some images, and make it the current one."""
    with watched():
        step.open_bank(parameters.store, parameters.bank)  # one of groups, or none at all, is refused
        growth = step.remove(parameters.store, parameters.bank, parameters.image_ids)
        show_bank(growth.bank)
    return growth
