"""Flow: make a bank from a folder of normal images."""

from __future__ import annotations

from prefect import flow

import dn2
import tasks.steps as step
from dn2.neighbors.versions import check_kind
from dn2.records import BankVersion
from dn2.store.documents import BANK_VERSION
from flows.artifacts import show_bank, show_cleaning
from flows.parameters import TrainParameters
from flows.steps import embed_source
from flows.watched import watched


@flow(name="train")
def train(parameters: TrainParameters) -> BankVersion:
    """Embed normal images, clean them if asked to, and make a bank version with a threshold."""
    with watched():
        check_kind(dn2.Store.open(parameters.store), parameters.bank, BANK_VERSION)
        embedded = embed_source(parameters)
        cleaning = None
        if parameters.clean.rule != "none":
            cleaning = step.clean(embedded, parameters.store, parameters.clean)
            show_cleaning(cleaning, parameters.store)
        bank = step.fit(embedded, parameters.store, parameters.bank, parameters.fit, cleaning)
        show_bank(bank)
    return bank
