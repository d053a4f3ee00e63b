"""Flows that make versions of banks of images, and choose the current one of any bank."""

from __future__ import annotations

from prefect import flow

import dn2
import tasks.steps as step
from dn2.neighbors.versions import check_kind
from dn2.records import AnyBank, BankVersion, Growth
from dn2.store.documents import BANK_VERSION
from flows.artifacts import display_bank, display_cleaning
from flows.images import embed_source
from flows.parameters import AddParameters, RemoveParameters, TrainParameters, UseVersionParameters
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
            display_cleaning(cleaning, parameters.store)
        bank = step.fit(embedded, parameters.store, parameters.bank, parameters.fit, cleaning)
        display_bank(bank)
    return bank


@flow(name="bank-add")
def bank_add(parameters: AddParameters) -> Growth:
    """Embed normal images as the bank was embedded, and add those that are new to it."""
    with watched():
        bank = step.open_bank(parameters.store, parameters.bank)
        growth = step.add(embed_source(parameters, bank), parameters.store, parameters.bank, parameters.add)
        display_bank(growth.bank)
    return growth


@flow(name="bank-remove")
def bank_remove(parameters: RemoveParameters) -> Growth:
    """Make a version of a bank without some images, and make it the current one."""
    with watched():
        step.open_bank(parameters.store, parameters.bank)  # one of groups, or none at all, is refused
        growth = step.remove(parameters.store, parameters.bank, parameters.image_ids)
        display_bank(growth.bank)
    return growth


@flow(name="use-version")
def use_version(parameters: UseVersionParameters) -> AnyBank:
    """Point a bank, of images or of groups, at one of its versions; nothing else is written."""
    with watched():
        bank = step.use_version(parameters.store, parameters.bank, parameters.version)
        display_bank(bank)
    return bank
