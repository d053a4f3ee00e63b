"""Flow: bring a dataset's manifest up to date with its source."""

from __future__ import annotations

from prefect import flow

import dn2
from dn2.records import Dataset
from flows.artifacts import show_dataset
from flows.parameters import IngestParameters
from flows.steps import list_source
from flows.watched import watched


@flow(name="ingest")
def ingest(parameters: IngestParameters) -> Dataset:
    """List a source and write down new, changed and vanished images."""
    dn2.Store.open(parameters.store).check_writable()
    with watched():
        dataset = list_source(parameters)
        show_dataset(dataset)
    return dataset
