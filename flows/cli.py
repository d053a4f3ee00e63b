"""The command line. Every command but `show`, which only looks, builds a flow's parameters and runs that flow."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import console
from flows.cli_groups import score_groups, train_groups
from flows.cli_house import compact, prune
from flows.cli_images import clean, embed, ingest
from flows.cli_store import bank, show
from flows.console import say
from flows.describe import (
    describe_bank,
    describe_demo,
    describe_night,
    describe_report,
)
from flows.given import absolute, clean_settings, embed_settings, given, source_settings
from flows.options import (
    Backbone,
    Bank,
    BatchSize,
    Budget,
    Centroids,
    Clean,
    CleanOption,
    Contamination,
    Crop,
    Dataset,
    Device,
    Discoveries,
    Download,
    Drop,
    Engine,
    EngineOption,
    ExpectedQueries,
    Index,
    IndexOption,
    Metric,
    Nlist,
    Nprobe,
    Out,
    Pattern,
    Quantile,
    Rate,
    Recall,
    SegmentRows,
    ShardSize,
    Source,
    Split,
    Store,
    Threshold,
    Verbose,
    Weights,
    WeightsSha256,
)

EXAMPLES = r"""
Find the images that do not look like the normal ones. No training, no labels.

* try it: **dn2 demo**
* learn what is normal: **dn2 train photos/normal --bank parts**
* score new images: **dn2 score photos/today --bank parts --out report**
* the training images may hold anomalies: **dn2 train photos/all --clean auto**
* flag fewer or more of them, at once: **dn2 rethreshold report --budget 20**
* sets of images, each as one: **dn2 train-groups photos/lots --pattern '{group_id}/\*'**
* images turned out to be normal: **dn2 bank add photos/confirmed --bank parts**
* what there is: **dn2 show**; an older version of a bank again: **dn2 bank use VERSION --bank parts**
* what nobody needs any more: **dn2 prune**; many small deliveries as one: **dn2 compact --all**

A source is a folder or any fsspec URL (s3://bucket/prefix), searched recursively for images (.jpg, .png, .webp, .tif,
.bmp, .gif), a glob ('photos/2026-\*/\*\*'), .tar files, .parquet files with image bytes, or a table (.csv, .parquet)
that lists images. Everything dn2 keeps lies in one store. A stopped command goes on where it was when
it is run again. Exit codes: 0 done, 1 failed, 2 wrong use.
"""
app = typer.Typer(
    help=EXAMPLES,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command()(ingest)
app.command()(embed)
app.command()(clean)


@app.command()
def train(
    source: Source,
    store: Store = "dn2-store",
    bank: Bank = "default",
    dataset: Dataset = None,
    pattern: Pattern = None,
    split: Split = None,
    backbone: Backbone = "auto",
    crop: Crop = "auto",
    weights: Weights = None,
    weights_sha256: WeightsSha256 = None,
    download: Download = False,
    k: Annotated[int, typer.Option(help="Neighbours whose distances are averaged.")] = 2,
    metric: Annotated[Metric, typer.Option(help="l2 as in the paper, or cosine.")] = Metric.l2,
    far: Annotated[float, typer.Option(help="Share of normal images that may be flagged (false-alarm rate).")] = 0.01,
    clean: CleanOption = Clean.none,
    contamination: Contamination = None,
    drop: Drop = None,
    index: IndexOption = Index.auto,
    centroids: Centroids = None,
    nlist: Nlist = None,
    nprobe: Nprobe = None,
    recall: Recall = None,
    expected_queries: ExpectedQueries = None,
    segment_rows: SegmentRows = None,
    engine: EngineOption = Engine.auto,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    shard_size: ShardSize = 2000,
    verbose: Verbose = False,
) -> None:
    """Learn what is normal: make a bank from a folder of normal images."""
    with console.session(verbose=verbose) as run:
        _train(
            run,
            {
                **source_settings(source, store, dataset, pattern, split),
                "bank": bank,
                "embed": embed_settings(
                    backbone, crop, weights, weights_sha256, download, engine, device, batch_size, shard_size
                ),
                "clean": clean_settings(clean, contamination, drop),
                "fit": {
                    **{"k": k, "metric": metric.value, "false_alarm_rate": far, "index": index.value},
                    **given(centroids=centroids, nlist=nlist, nprobe=nprobe, recall=recall),
                    **given(expected_queries=expected_queries, segment_rows=segment_rows),
                },
            },
        )


def _train(run: console.Run, values: dict[str, Any]) -> None:
    from flows.parameters import TrainParameters

    parameters = TrainParameters.model_validate(values)
    began = time.monotonic()
    done = run("train", parameters)
    describe_bank(done, parameters.store, time.monotonic() - began)


@app.command()
def score(
    source: Source,
    store: Store = "dn2-store",
    bank: Bank = "default",
    out: Out = None,
    far: Rate = None,
    quantile: Quantile = None,
    threshold: Threshold = None,
    budget: Budget = None,
    fdr: Discoveries = None,
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
    """Score new images against a bank and write a report with pictures."""
    with console.session(verbose=verbose) as run:
        _score(
            run,
            {
                **source_settings(source, store, dataset, pattern, split),
                "bank": bank,
                "embed": embed_settings(
                    backbone, crop, weights, weights_sha256, download, engine, device, batch_size, shard_size
                ),
                "score": {
                    "threshold": given(false_alarm_rate=far, quantile=quantile, value=threshold, budget=budget),
                    **given(false_discovery_rate=fdr),
                },
                "out": out,
            },
        )


def _score(run: console.Run, values: dict[str, Any]) -> Any:
    from dn2.reports.export import check_target
    from flows.parameters import ScoreParameters

    if values["out"] is not None:
        values = {**values, "out": str(check_target(values["out"], values["store"]))}
    parameters = ScoreParameters.model_validate(values)
    began = time.monotonic()
    done = run("score", parameters)
    describe_report(done, values["out"], time.monotonic() - began)
    return done


@app.command()
def rethreshold(
    report: Annotated[
        str,
        typer.Argument(
            help="Folder that a report was exported to, its report.html, or a report's URI.", show_default=False
        ),
    ],
    store: Annotated[str | None, typer.Option(help="The report's store, if it has moved.")] = None,
    out: Out = None,
    far: Rate = None,
    quantile: Quantile = None,
    threshold: Threshold = None,
    budget: Budget = None,
    fdr: Discoveries = None,
    verbose: Verbose = False,
) -> None:
    """Change a finished report's threshold or selection without scoring again. No option: the bank's own threshold."""
    with console.session(verbose=verbose) as run:
        from dn2.reports.export import check_target
        from dn2.reports.old import find_report
        from flows.parameters import RethresholdParameters

        rule = given(false_alarm_rate=far, quantile=quantile, value=threshold, budget=budget)
        found = find_report(absolute(report), None if store is None else absolute(store))
        target = out if out is not None else found.copy
        target = None if target is None else str(check_target(target, found.store))
        values = {
            "report": found.uri,
            "store": found.store,
            "threshold": rule if rule or fdr is None else None,  # --fdr alone leaves the rule as it was
            "false_discovery_rate": fdr,
            "out": target,
        }
        parameters = RethresholdParameters.model_validate(values)
        began = time.monotonic()
        done = run("rethreshold", parameters)
        describe_report(done, target, time.monotonic() - began)


@app.command()
def nightly(
    sources: Annotated[str, typer.Argument(help="YAML file or fsspec URL that lists the sources.", show_default=False)],
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Score again what only earlier versions of a bank have scored.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Score what is new in every source of a file, as the nightly run does."""
    with console.session(verbose=verbose) as run:
        from flows.outcomes import NightError
        from flows.parameters import NightlyParameters

        began = time.monotonic()
        try:
            outcomes = run("nightly-score", NightlyParameters(sources=absolute(sources), rescore=rescore))
        except NightError as error:
            describe_night(error.outcomes)
            raise
        describe_night(outcomes)
        say(f"{len(outcomes)} source{'' if len(outcomes) == 1 else 's'} in {time.monotonic() - began:.1f} s")


@app.command()
def demo(
    workdir: Annotated[Path, typer.Option(help="Folder for the demo's images, store and report.")] = Path("dn2-demo"),
    verbose: Verbose = False,
) -> None:
    """Try dn2 on a real photograph of a brick wall with scratches, holes and foreign material."""
    with console.session(verbose=verbose) as run:
        from dn2.evaluation.bricks import write_images
        from dn2.evaluation.demo import evaluate

        folder = workdir.absolute()
        store, report = str(folder / "store"), folder / "report"
        normal, batch = write_images(folder / "images")
        say(f"images of an intact wall: {normal}\nimages to inspect: {batch}\n")
        say(f"$ dn2 train {normal} --store {store} --bank bricks")
        _train(run, {"source": str(normal), "store": store, "bank": "bricks"})
        say(f"\n$ dn2 score {batch} --store {store} --bank bricks --out {report}")
        done = _score(run, {"source": str(batch), "store": store, "bank": "bricks", "out": str(report)})
        figures = evaluate(done, store)
        describe_demo(figures)
        say(f"\nOpen the report:\n  {report / 'report.html'}\n\nGo on with your own folders:")
        say("  dn2 train PHOTOS/NORMAL --bank mine\n  dn2 score PHOTOS/NEW --bank mine --out mine-report")


app.command()(train_groups)
app.command()(score_groups)
app.command()(show)
app.command()(compact)
app.command()(prune)
app.add_typer(bank, name="bank")


def _version(asked: bool) -> None:
    if asked:
        say(version("dn2"))
        raise typer.Exit


@app.callback()
def _main(
    asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    app()
