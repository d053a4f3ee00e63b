"""Flows that end before a bank is made: list a source, embed it, clean it; and what all others begin with."""

from __future__ import annotations

from prefect import flow

import dn2
import tasks.steps as step
from dn2.config import EmbedConfig
from dn2.features.embed import embedded
from dn2.records import AnyBank, Cleaning, Dataset, Embedded, EmbeddedShard
from flows.artifacts import display_cleaning, display_dataset, display_embedded
from flows.parameters import CleanParameters, EmbedParameters, IngestParameters
from flows.watched import watched

MOST_TASKS = 100  # runs of one task in one flow: more would make Prefect's page slow, not the work faster


@flow(name="ingest")
def ingest(parameters: IngestParameters) -> Dataset:
    """List a source and write down new, changed and vanished images."""
    dn2.Store.open(parameters.store).check_writable()
    with watched():
        dataset = list_source(parameters)
        display_dataset(dataset)
    return dataset


@flow(name="embed")
def embed(parameters: EmbedParameters) -> Embedded:
    """List a source, and embed what is not embedded yet."""
    with watched():
        done = embed_source(parameters)
        display_embedded(done)
    return done


@flow(name="clean")
def clean(parameters: CleanParameters) -> Cleaning:
    """Embed training images, score each against the others, and write down which would be dropped."""
    with watched():
        cleaning = step.clean(embed_source(parameters), parameters.store, parameters.clean)
        display_cleaning(cleaning, parameters.store)
    return cleaning


def list_source(parameters: IngestParameters) -> Dataset:
    """Bring the source's manifest up to date."""
    it = parameters
    return step.ingest(it.source, it.store, it.dataset, pattern=it.pattern, split=it.split)


def embed_source(parameters: EmbedParameters, bank: AnyBank | None = None) -> Embedded:
    """List the source, and embed what is not embedded yet."""
    dn2.Store.open(parameters.store).check_writable()
    config = step.choose_embedder(parameters.embed, bank)
    return embed_dataset(list_source(parameters), parameters.store, config)


def embed_dataset(
    dataset: Dataset, store: str, config: EmbedConfig, *, parts: tuple[str, ...] | None = None
) -> Embedded:
    """Embed what is not embedded yet, of some manifest parts or of all."""
    shards = step.plan(dataset, store, config, parts=parts)
    total = sum(shard.images for shard in shards)
    done: list[EmbeddedShard] = []
    for number, run in enumerate(ranges(len(shards))):
        done += step.embed(shards[run.start : run.stop], store, config, number=number, total=total)
    return embedded(dataset, done, config)


def ranges(count: int, *, most: int = MOST_TASKS) -> list[range]:
    """Cut `count` shards into at most `most` runs of neighbours, as even as can be."""
    runs = min(count, most)
    return [range(count * run // runs, count * (run + 1) // runs) for run in range(runs)]
