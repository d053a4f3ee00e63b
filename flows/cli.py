"""The command line. Every command builds a flow's parameters and runs that flow."""

from __future__ import annotations

import time
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import console
from flows.console import say

EXAMPLES = """
Find the images that do not look like the normal ones. No training, no labels.

* try it: **dn2 demo**
* learn what is normal: **dn2 train photos/normal --bank parts**
* score new images: **dn2 score photos/today --bank parts --out report**
* flag fewer or more of them, at once: **dn2 rethreshold report --budget 20**

A source is a folder or any fsspec URL (s3://bucket/prefix), searched recursively for .jpg, .jpeg and .png. Everything
dn2 keeps lies in one store. A stopped command goes on where it was when it is run again. Exit codes: 0 done, 1 failed,
2 wrong use.
"""
app = typer.Typer(
    help=EXAMPLES,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Engine(StrEnum):
    """What runs the network."""

    auto = "auto"
    openvino = "openvino"
    torch = "torch"


class Metric(StrEnum):
    """How two embeddings are compared."""

    l2 = "l2"
    cosine = "cosine"


Source = Annotated[str, typer.Argument(help="Folder or fsspec URL with images.", show_default=False)]
Store = Annotated[str, typer.Option(help="Folder or fsspec URL where dn2 keeps its files.")]
Dataset = Annotated[str | None, typer.Option(help="Name of the dataset. Default: derived from SOURCE.")]
Bank = Annotated[str, typer.Option(help="Name of the bank of normal images.")]
Backbone = Annotated[
    str,
    typer.Option(help="auto, efficientnet_lite0, resnet18 to resnet152, wide_resnet50_2 or wide_resnet101_2."),
]
EngineOption = Annotated[Engine, typer.Option(help="What runs the network.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
BatchSize = Annotated[int, typer.Option(help="Images per forward pass.")]
ShardSize = Annotated[int, typer.Option(help="Images per shard: what is lost at most when a run is killed.")]
Out = Annotated[str | None, typer.Option(help="Local folder to copy the finished report to.")]
Rate = Annotated[float | None, typer.Option("--far", help="Threshold: flag this share of normal images at most.")]
Quantile = Annotated[float | None, typer.Option(help="Threshold: this quantile of the bank's calibration scores.")]
Threshold = Annotated[float | None, typer.Option(help="Threshold: this squared distance.")]
Budget = Annotated[int | None, typer.Option(help="Threshold: flag at most so many images, the worst of the batch.")]
Discoveries = Annotated[
    float | None, typer.Option("--fdr", help="Select images of which at most this share is normal. Default: 0.1.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the log and, on errors, where they arose.")]


def _embed_settings(
    backbone: str, engine: Engine, device: str, batch_size: int, shard_size: int
) -> dict[str, str | int]:
    return {
        "backbone": backbone,
        "engine": engine.value,
        "device": device,
        "batch_size": batch_size,
        "shard_size": shard_size,
    }


def _given(**settings: float | None) -> dict[str, float]:
    """Return the settings that were given: those that were not keep their default."""
    return {name: value for name, value in settings.items() if value is not None}


def _absolute(url: str) -> str:
    """Return a path or URL as an absolute URI: a flow may run in another folder than this one."""
    from dn2.store.files import locate

    return locate(url).uri


@app.command()
def ingest(source: Source, store: Store = "dn2-store", dataset: Dataset = None, verbose: Verbose = False) -> None:
    """List a source and note new, changed and vanished images."""
    with console.session(verbose=verbose) as run:
        from flows.parameters import IngestParameters

        parameters = IngestParameters(source=_absolute(source), store=_absolute(store), dataset=dataset)
        say(_describe_dataset(run("ingest", parameters)))


@app.command()
def embed(
    source: Source,
    store: Store = "dn2-store",
    dataset: Dataset = None,
    backbone: Backbone = "auto",
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
                "source": _absolute(source),
                "store": _absolute(store),
                "dataset": dataset,
                "embed": _embed_settings(backbone, engine, device, batch_size, shard_size),
            }
        )
        done = run("embed", parameters)
        say(_describe_dataset(done.dataset))
        say(f"embedded {done.embedded}, rejected {done.rejected}, by {done.embedder}, in {len(done.shards)} shards")


@app.command()
def train(
    source: Source,
    store: Store = "dn2-store",
    bank: Bank = "default",
    dataset: Dataset = None,
    backbone: Backbone = "auto",
    k: Annotated[int, typer.Option(help="Neighbours whose distances are averaged.")] = 2,
    metric: Annotated[Metric, typer.Option(help="l2 as in the paper, or cosine.")] = Metric.l2,
    far: Annotated[float, typer.Option(help="Share of normal images that may be flagged (false-alarm rate).")] = 0.01,
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
                "source": _absolute(source),
                "store": _absolute(store),
                "dataset": dataset,
                "bank": bank,
                "embed": _embed_settings(backbone, engine, device, batch_size, shard_size),
                "fit": {"k": k, "metric": metric.value, "false_alarm_rate": far},
            },
        )


def _train(run: console.Run, values: dict[str, Any]) -> None:
    from flows.parameters import TrainParameters

    parameters = TrainParameters.model_validate(values)
    began = time.monotonic()
    done = run("train", parameters)
    say(
        f"bank {done.name}, version {done.version}: {done.rows} normal images, {done.rejected} rejected, "
        f"{done.embedder.rpartition('-')[0]}, k = {done.k}, {done.metric}"
    )
    say(
        f"threshold {done.threshold:.4g}: flags about {done.attainable_rate:.2%} of normal images "
        f"({done.calibration}, {done.calibration_rows} scores); {time.monotonic() - began:.1f} s"
    )


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
    backbone: Backbone = "auto",
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
                "source": _absolute(source),
                "store": _absolute(store),
                "dataset": dataset,
                "bank": bank,
                "embed": _embed_settings(backbone, engine, device, batch_size, shard_size),
                "score": {
                    "threshold": _given(false_alarm_rate=far, quantile=quantile, value=threshold, budget=budget),
                    **_given(false_discovery_rate=fdr),
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
    _describe_report(done, values["out"], time.monotonic() - began)
    return done


def _describe_report(done: Any, out: str | None, seconds: float) -> None:
    say(
        f"{done.anomalous} of {done.scored} images are anomalous (score above {done.threshold:.4g}), "
        f"{done.rejected} could not be read; {seconds:.1f} s"
    )
    say(
        f"threshold: {done.rule}; {done.selected} images are selected at a false-discovery rate of "
        f"{100 * done.false_discovery_rate:.4g}%"
    )
    for warning in done.warnings:
        console.warn(warning)
    say(f"report: {done.html if out is None else Path(out) / 'report.html'}")


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

        rule = _given(false_alarm_rate=far, quantile=quantile, value=threshold, budget=budget)
        found = find_report(_absolute(report), None if store is None else _absolute(store))
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
        _describe_report(done, target, time.monotonic() - began)


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
            outcomes = run("nightly-score", NightlyParameters(sources=_absolute(sources), rescore=rescore))
        except NightError as error:
            _describe_night(error.outcomes)
            raise
        _describe_night(outcomes)
        say(f"{len(outcomes)} source{'' if len(outcomes) == 1 else 's'} in {time.monotonic() - began:.1f} s")


def _describe_night(outcomes: Any) -> None:
    for outcome in outcomes:
        if outcome.error is None:  # failures are told together, at the end
            say(f"{outcome.source}, bank {outcome.bank}: {outcome.in_words()}")
        if outcome.report is not None:
            for warning in outcome.report.warnings:
                console.warn(warning)
            say(f"report: {outcome.report.html}")


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
        say("\nwhat is known about these images, compared with their scores:")
        say(f"demo_roc_auc: {figures.roc_auc:.4f}")
        for kind, value in figures.roc_auc_by_kind.items():
            say(f"demo_roc_auc_{kind}: {value:.4f}")
        for kind, value in figures.recall_by_kind.items():
            say(f"demo_recall_{kind}: {value:.4f}")
        say(f"demo_false_alarm_rate: {figures.false_alarm_rate:.4f}")
        for kind, count in figures.counts.items():
            say(f"demo_count_{kind}: {count}")
        hard = min(figures.recall_by_kind, key=lambda kind: figures.recall_by_kind[kind])
        say(
            f"\nHardest at this threshold: {hard} ({figures.recall_by_kind[hard]:.0%} found). With only "
            f"{figures.counts['good']} normal images to calibrate on, the threshold is the largest normal score; "
            f"more normal images would make it sharper."
        )
        say(f"\nOpen the report:\n  {report / 'report.html'}\n\nGo on with your own folders:")
        say("  dn2 train PHOTOS/NORMAL --bank mine\n  dn2 score PHOTOS/NEW --bank mine --out mine-report")


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


def _describe_dataset(done: Any) -> str:
    counts = f"{done.added} added, {done.changed} changed, {done.vanished} vanished"
    if not (done.added or done.changed or done.vanished):
        counts = "nothing changed, nothing written"
    return f"dataset {done.name}: {done.images} images, {counts}; {done.ignored} other files ignored"


def main() -> None:
    """Run the command line."""
    app()
