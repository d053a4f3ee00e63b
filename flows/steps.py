"""What several flows have in common: bring a source's embeddings up to date."""

from __future__ import annotations

import dn2
import tasks.steps as step
from dn2.config import EmbedConfig
from dn2.features.embed import embedded
from dn2.records import BankVersion, Dataset, Embedded, EmbeddedShard, GroupBankVersion
from flows.parameters import EmbedParameters, IngestParameters

MOST_TASKS = 100  # runs of one task in one flow: more would make Prefect's page slow, not the work faster


def ranges(count: int, *, most: int = MOST_TASKS) -> list[range]:
    """Cut `count` shards into at most `most` runs of neighbours, as even as can be."""
    runs = min(count, most)
    return [range(count * run // runs, count * (run + 1) // runs) for run in range(runs)]


def embed_source(parameters: EmbedParameters, bank: BankVersion | GroupBankVersion | None = None) -> Embedded:
    """List the source, and embed what is not embedded yet."""
    dn2.Store.open(parameters.store).check_writable()
    config = step.choose_embedder(parameters.embed, bank)
    return embed_dataset(list_source(parameters), parameters.store, config)


def list_source(parameters: IngestParameters) -> Dataset:
    """Bring the source's manifest up to date."""
    return step.ingest(
        parameters.source,
        parameters.store,
        parameters.dataset,
        pattern=parameters.pattern,
        split=parameters.split,
    )


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
