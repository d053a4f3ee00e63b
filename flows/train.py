"""Flow: make a bank from a folder of normal images."""

from __future__ import annotations

from prefect import flow

import tasks.steps as step
from dn2.records import BankVersion
from flows.parameters import TrainParameters
from flows.steps import embed_source


@flow(name="train")
def train(parameters: TrainParameters) -> BankVersion:
    """Embed normal images and make a bank version with a threshold."""
    embedded = embed_source(parameters)
    return step.fit(embedded, parameters.store, parameters.bank, parameters.fit)
