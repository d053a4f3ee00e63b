"""Flow: embed a source."""

from __future__ import annotations

from prefect import flow

from dn2.records import Embedded
from flows.parameters import EmbedParameters
from flows.steps import embed_source


@flow(name="embed")
def embed(parameters: EmbedParameters) -> Embedded:
    """List a source, and embed what is not embedded yet."""
    return embed_source(parameters)
