"""The commands about groups."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from flows import console
from flows.describe import describe_group_bank, describe_groups
from flows.given import embed_settings, given, source_settings
from flows.options import (
    Backbone,
    BatchSize,
    Crop,
    Dataset,
    Device,
    Download,
    Engine,
    EngineOption,
    GroupBank,
    GroupDiscoveries,
    Metric,
    Out,
    Pattern,
    Pooling,
    ShardSize,
    Source,
    Split,
    Store,
    Verbose,
    Weights,
    WeightsSha256,
)


def train_groups(
    source: Source,
    store: Store = "dn2-store",
    bank: GroupBank = "groups",
    pattern: Pattern = None,
    pooling: Annotated[
        Pooling, typer.Option(help="mean as in the paper, histogram for mixtures of kinds, concat for one size.")
    ] = Pooling.mean,
    min_size: Annotated[int, typer.Option(help="Groups with fewer readable images are left out.")] = 2,
    k: Annotated[int, typer.Option(help="Neighbours whose distances are averaged.")] = 2,
    metric: Annotated[Metric, typer.Option(help="l2, or cosine: images are scaled to length 1 first.")] = Metric.l2,
    far: Annotated[float, typer.Option(help="Share of normal groups that may be flagged (false-alarm rate).")] = 0.01,
    dataset: Dataset = None,
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
    """Learn what groups of images are normal, such as lots, patients or bursts."""
    with console.session(verbose=verbose) as run:
        from flows.parameters import TrainGroupsParameters

        parameters = TrainGroupsParameters.model_validate(
            {
                **source_settings(source, store, dataset, pattern, split),
                "bank": bank,
                "embed": embed_settings(
                    backbone, crop, weights, weights_sha256, download, engine, device, batch_size, shard_size
                ),
                "fit": {
                    "pooling": pooling.value,
                    "min_size": min_size,
                    "k": k,
                    "metric": metric.value,
                    "false_alarm_rate": far,
                },
            }
        )
        began = time.monotonic()
        describe_group_bank(run("train-groups", parameters), time.monotonic() - began)


def score_groups(
    source: Source,
    store: Store = "dn2-store",
    bank: GroupBank = "groups",
    pattern: Pattern = None,
    out: Out = None,
    far: Annotated[
        float | None, typer.Option(help="Share of normal groups that may be flagged. Default: that of the bank.")
    ] = None,
    fdr: GroupDiscoveries = None,
    dataset: Dataset = None,
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
    """Score groups of images, each as one, against a bank of groups, and write a report with pictures."""
    with console.session(verbose=verbose) as run:
        from dn2.reports.export import check_target
        from flows.parameters import ScoreGroupsParameters

        values = {
            **source_settings(source, store, dataset, pattern, split),
            "bank": bank,
            "embed": embed_settings(
                backbone, crop, weights, weights_sha256, download, engine, device, batch_size, shard_size
            ),
            "score": given(false_alarm_rate=far, false_discovery_rate=fdr),
        }
        target = None if out is None else str(check_target(out, str(values["store"])))
        parameters = ScoreGroupsParameters.model_validate({**values, "out": target})
        began = time.monotonic()
        describe_groups(run("score-groups", parameters), target, time.monotonic() - began)
