"""Flow: add confirmed normal images to a bank."""

from __future__ import annotations

from prefect import flow

import tasks.steps as step
from dn2.records import Growth
from flows.artifacts import show_bank
from flows.parameters import AddParameters
from flows.steps import embed_source
from flows.watched import watched


@flow(name="bank-add")
def bank_add(parameters: AddParameters) -> Growth:
    """Embed normal images as the bank was embedded, and add those that are new to it."""
    with watched():
        bank = step.open_bank(parameters.store, parameters.bank)
        embedded = embed_source(parameters, bank)
        growth = step.add(embedded, parameters.store, parameters.bank, parameters.add)
        show_bank(growth.bank)
    return growth
