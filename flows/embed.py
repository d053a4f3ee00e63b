"""Flow: embed a source."""

from __future__ import annotations

from prefect import flow

from dn2.records import Embedded
from flows.artifacts import show_embedded
from flows.parameters import EmbedParameters
from flows.steps import embed_source
from flows.watched import watched


@flow(name="embed")
def embed(parameters: EmbedParameters) -> Embedded:
    """List a source, and embed what is not embedded yet."""
    with watched():
        embedded = embed_source(parameters)
        show_embedded(embedded)
    return embedded
