"""Flow: tell the training images that look like the others from those that do not."""

from __future__ import annotations

from prefect import flow

import tasks.steps as step
from dn2.records import Cleaning
from flows.artifacts import show_cleaning
from flows.parameters import CleanParameters
from flows.steps import embed_source
from flows.watched import watched


@flow(name="clean")
def clean(parameters: CleanParameters) -> Cleaning:
    """Embed training images, score each against the others, and write down which would be dropped."""
    with watched():
        embedded = embed_source(parameters)
        cleaning = step.clean(embedded, parameters.store, parameters.clean)
        show_cleaning(cleaning, parameters.store)
    return cleaning
