"""Flow: make a bank from a folder of normal images."""

from __future__ import annotations

from prefect import flow

import tasks.steps as step
from dn2.records import BankVersion
from flows.artifacts import show_bank
from flows.parameters import TrainParameters
from flows.steps import embed_source
from flows.watched import watched


@flow(name="train")
def train(parameters: TrainParameters) -> BankVersion:
    """Embed normal images and make a bank version with a threshold."""
    with watched():
        embedded = embed_source(parameters)
        bank = step.fit(embedded, parameters.store, parameters.bank, parameters.fit)
        show_bank(bank)
    return bank
