"""The commands that end before a bank is made: list a source, embed it, look at how it would be cleaned."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from flows import console
from flows.console import say
from flows.describe import describe_cleaning, describe_dataset
from flows.given import clean_settings, embed_settings, source_settings
from flows.options import (
    Backbone,
    BatchSize,
    Clean,
    Contamination,
    Crop,
    Dataset,
    Device,
    Download,
    Drop,
    Engine,
    EngineOption,
    Pattern,
    ShardSize,
    Source,
    Split,
    Store,
    Verbose,
    Weights,
    WeightsSha256,
)


def ingest(
    source: Source,
    store: Store = "dn2-store",
    dataset: Dataset = None,
    pattern: Pattern = None,
    split: Split = None,
    verbose: Verbose = False,
) -> None:
    """List a source and note new, changed and vanished images."""
    with console.session(verbose=verbose) as run:
        from flows.parameters import IngestParameters

        parameters = IngestParameters.model_validate(source_settings(source, store, dataset, pattern, split))
        describe_dataset(run("ingest", parameters))


def embed(
    source: Source,
    store: Store = "dn2-store",
    dataset: Dataset = None,
    pattern: Pattern = None,
    split: Split = None,
    backbone: Backbone = "auto",
    crop: Crop = "auto",
    weights: Weights = None,
    weights_sha256: WeightsSha256 = None,
    download: Download = False,
    engine: EngineOption = Engine.auto,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    shard_size: ShardSize = 2000,
    verbose: Verbose = False,
) -> None:
    """Embed a source without training or scoring."""
    with console.session(verbose=verbose) as run:
        from flows.parameters import EmbedParameters

        parameters = EmbedParameters.model_validate(
            {
                **source_settings(source, store, dataset, pattern, split),
                "embed": embed_settings(
                    backbone, crop, weights, weights_sha256, download, engine, device, batch_size, shard_size
                ),
            }
        )
        done = run("embed", parameters)
        describe_dataset(done.dataset)
        say(f"embedded {done.embedded}, rejected {done.rejected}, by {done.embedder}, in {len(done.shards)} shards")


def clean(
    source: Source,
    store: Store = "dn2-store",
    dataset: Dataset = None,
    pattern: Pattern = None,
    split: Split = None,
    backbone: Backbone = "auto",
    crop: Crop = "auto",
    weights: Weights = None,
    weights_sha256: WeightsSha256 = None,
    download: Download = False,
    rule: Annotated[Clean, typer.Option("--clean", help="The rule: auto, or the paper's.")] = Clean.auto,
    contamination: Contamination = None,
    drop: Drop = None,
    engine: EngineOption = Engine.auto,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    shard_size: ShardSize = 2000,
    verbose: Verbose = False,
) -> None:
    """Show which training images do not look like the others. Training drops them with --clean."""
    with console.session(verbose=verbose) as run:
        from flows.parameters import CleanParameters

        parameters = CleanParameters.model_validate(
            {
                **source_settings(source, store, dataset, pattern, split),
                "embed": embed_settings(
                    backbone, crop, weights, weights_sha256, download, engine, device, batch_size, shard_size
                ),
                "clean": clean_settings(rule, contamination, drop),
            }
        )
        began = time.monotonic()
        done = run("clean", parameters)
        describe_cleaning(done, time.monotonic() - began)
