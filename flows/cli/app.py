"""The command line. Every command but `show`, which only looks, runs a flow with parameters made of its options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import Field

from dn2.config import ThresholdConfig
from dn2.fields import ARGUMENT, BASIC, PLACE, Config, Typed
from dn2.words import many
from flows import parameters as of
from flows.cli import console, describe
from flows.cli.console import Run, say, visible
from flows.cli.options import Option, as_typed, options_of, parameters_from, signature_of

EXAMPLES = r"""
Find the images that do not look like the normal ones. No training, no labels.

* try it: **dn2 demo**
* learn what is normal: **dn2 train photos/normal --bank parts**
* score new images: **dn2 score photos/today --bank parts --out report**
* the training images may hold anomalies: **dn2 train photos/all --clean auto**
* flag fewer or more of them, at once: **dn2 rethreshold report --budget 20**
* sets of images, each as one: **dn2 train-groups photos/lots --pattern '{group_id}/\*'**
* images turned out to be normal: **dn2 bank add photos/confirmed --bank parts**, or not: **dn2 bank anomalies FILE**
* what is in the store: **dn2 show**; an older version of a bank again: **dn2 bank use VERSION --bank parts**
* unused files: **dn2 prune**; many small deliveries as one: **dn2 compact --all**

A source is a folder or any fsspec URL (s3://bucket/prefix), searched recursively for images (.jpg, .png, .webp, .tif,
.bmp, .gif), a glob ('photos/2026-\*/\*\*'), .tar files, .parquet files with image bytes, or a table (.csv, .parquet)
that lists images. Everything dn2 keeps lies in one store. A stopped command goes on where it was when
it is run again. Exit codes: 0 done, 1 failed, 2 wrong use.
"""
app = typer.Typer(help=EXAMPLES, rich_markup_mode="markdown", no_args_is_help=True, pretty_exceptions_enable=False)
bank = typer.Typer(help="Add images to a bank or remove some, and choose its version.", no_args_is_help=True)
COMMANDS: dict[str, tuple[Option, ...]] = {}  # the options of each command, by its name
M = TypeVar("M", bound=Config)


def command(
    name: str, model: type[M], to: typer.Typer = app
) -> Callable[[Callable[[Run, M], None]], Callable[[Run, M], None]]:
    """Make a command of a function that gets what runs a flow, and the parameters that were typed.

    Args:
        name: of the command.
        model: the parameters: each of their fields is an option.
        to: the command line, or a group of commands in it.
    """
    options = options_of(model)
    COMMANDS[name if to is app else f"bank {name}"] = options

    def decorate(body: Callable[[Run, M], None]) -> Callable[[Run, M], None]:
        def typed(*, verbose: bool, **values: object) -> None:
            with console.session(verbose=verbose, as_typed=lambda text: as_typed(text, options)) as run:
                body(run, parameters_from(model, options, values))

        typed.__signature__ = signature_of(options)  # type: ignore[attr-defined]  # what typer reads
        to.command(name, help=body.__doc__)(typed)
        return body

    return decorate


class ShowParameters(Config):
    """A store to look at."""

    store: of.Store = "dn2-store"
    newest: Annotated[int, BASIC] = Field(10, description="Reports of each bank, and cleanings, to show.")
    as_json: Annotated[bool, BASIC, Typed("--json")] = Field(False, description="Print the same as one JSON object.")


class AnomaliesParameters(Config):
    """A bank, and which confirmed anomalies are kept for it."""

    store: of.Store = "dn2-store"
    bank: of.Bank = "default"
    file: Annotated[str | None, ARGUMENT, PLACE] = Field(
        None, description="Text with a path, URI or image id on each line, or a table. By default nothing is changed."
    )
    remove: Annotated[bool, BASIC] = Field(False, description="No longer keep those that the file names.")


class DemoParameters(Config):
    """Where the demo works."""

    workdir: Annotated[str, BASIC] = Field("dn2-demo", description="Folder for the demo's images, store and report.")


@command("ingest", of.IngestParameters)
def ingest(run: Run, given: of.IngestParameters) -> None:
    """List a source and note new, changed and vanished images."""
    describe.describe_dataset(run("images.ingest", given))


@command("embed", of.EmbedParameters)
def embed(run: Run, given: of.EmbedParameters) -> None:
    """Embed a source without training or scoring."""
    done = run("images.embed", given)
    describe.describe_dataset(done.dataset)
    say(f"embedded {done.embedded}, rejected {done.rejected}, by {done.embedder}, in {len(done.shards)} shards")


@command("clean", of.CleanParameters)
def clean(run: Run, given: of.CleanParameters) -> None:
    """Show which training images do not look like the others. Training drops them with --clean."""
    describe.describe_cleaning(run("images.clean", given), run.seconds)


@command("train", of.TrainParameters)
def train(run: Run, given: of.TrainParameters) -> None:
    """Learn what is normal: make a bank from a folder of normal images."""
    describe.describe_bank(run("banks.train", given), given.store, run.seconds)
    describe.describe_kept_anomalies(run.done, given.store)


@command("score", of.ScoreParameters)
def score(run: Run, given: of.ScoreParameters) -> None:
    """Score new images against a bank and write a report with pictures."""
    given = _with_target(given)
    describe.describe_report(run("scoring.score", given), given.out, run.seconds)


@command("rethreshold", of.RethresholdParameters)
def rethreshold(run: Run, given: of.RethresholdParameters) -> None:
    """Change a finished report's threshold or selection without scoring again. No option: the bank's own threshold."""
    from dn2.reports.export import check_target
    from dn2.reports.finished import find_report

    found = find_report(given.report, given.store)
    target = found.copy if given.out is None else given.out
    out = None if target is None else str(check_target(target, found.store))
    changes: dict[str, object] = {"report": found.uri, "store": found.store, "out": out}
    if given.threshold is None and given.false_discovery_rate is None:  # --fdr alone leaves the rule as it was
        changes["threshold"] = ThresholdConfig()
    given = given.model_copy(update=changes)
    describe.describe_report(run("scoring.rethreshold", given), given.out, run.seconds)


@command("nightly", of.NightlyParameters)
def nightly(run: Run, given: of.NightlyParameters) -> None:
    """Score what is new in every source of a file, as the nightly run does."""
    from flows.facts import NightError

    try:
        outcomes = run("nightly.nightly_score", given)
    except NightError as error:
        describe.describe_night(error.outcomes)
        raise
    describe.describe_night(outcomes)
    say(f"{many(len(outcomes), 'source')} in {run.seconds:.1f} s")


@command("demo", DemoParameters)
def demo(run: Run, given: DemoParameters) -> None:
    """Try dn2 on a real photograph of a brick wall with scratches, holes and foreign material."""
    from dn2.evaluation.bricks import write_images
    from dn2.evaluation.demo import evaluate

    folder = Path(given.workdir).absolute()
    store, report = str(folder / "store"), folder / "report"
    normal, batch = write_images(folder / "images")
    say(f"images of an intact wall: {normal}\nimages to inspect: {batch}\n")
    say(f"$ dn2 train {normal} --store {store} --bank bricks")
    train(run, of.TrainParameters(source=str(normal), store=store, bank="bricks"))
    say(f"\n$ dn2 score {batch} --store {store} --bank bricks --out {report}")
    score(run, of.ScoreParameters(source=str(batch), store=store, bank="bricks", out=str(report)))
    describe.describe_demo(evaluate(run.done, store))
    say(f"\nOpen the report:\n  {report / 'report.html'}\n\nGo on with your own folders:")
    say("  dn2 train PHOTOS/NORMAL --bank mine\n  dn2 score PHOTOS/NEW --bank mine --out mine-report")


@command("train-groups", of.TrainGroupsParameters)
def train_groups(run: Run, given: of.TrainGroupsParameters) -> None:
    """Learn what groups of images are normal, such as lots, patients or bursts."""
    describe.describe_group_bank(run("groups.train_groups", given), run.seconds)


@command("score-groups", of.ScoreGroupsParameters)
def score_groups(run: Run, given: of.ScoreGroupsParameters) -> None:
    """Score groups of images, each as one, against a bank of groups, and write a report with pictures."""
    given = _with_target(given)
    describe.describe_groups(run("groups.score_groups", given), given.out, run.seconds)


T = TypeVar("T", of.ScoreParameters, of.ScoreGroupsParameters)


def _with_target(given: T) -> T:
    """Return parameters whose folder to export to, if there is one, can be used: before any work is done."""
    from dn2.reports.export import check_target

    if given.out is None:
        return given
    return given.model_copy(update={"out": str(check_target(given.out, given.store))})


@command("show", ShowParameters)
def show(run: Run, given: ShowParameters) -> None:
    """Show what is in a store: datasets, banks and their versions, reports, cleanings."""
    import dn2
    from dn2.errors import StoreError
    from flows.cli.overview import as_json, describe_overview

    found = dn2.show(given.store, newest=given.newest)
    if given.as_json:
        say(as_json(found))
    else:
        describe_overview(found)
    if found.errors:
        count = len(found.errors)
        raise StoreError(
            f"store {found.store}: {count} {'entry' if count == 1 else 'entries'} could not be read, the first: "
            f"{found.errors[0]}"
        )


@command("compact", of.CompactParameters)
def compact(run: Run, given: of.CompactParameters) -> None:
    """Merge the manifest parts of a dataset into one. Nothing is embedded or scored again."""
    done = run("upkeep.compact", given)
    for one in done:
        describe.describe_compacted(one)
    say(f"{many(len(done), 'dataset')} in {run.seconds:.1f} s")


@command("prune", of.PruneParameters)
def prune(run: Run, given: of.PruneParameters) -> None:
    """List the unused files of a store; delete them with --yes."""
    for line in describe.pruned_lines(run("upkeep.prune", given)):
        say(visible(line))


@command("add", of.AddParameters, to=bank)
def add(run: Run, given: of.AddParameters) -> None:
    """Add confirmed normal images to a bank, without training it again."""
    done = run("banks.bank_add", given)
    describe.describe_additions(done, run.seconds)
    describe.describe_kept_anomalies(done.bank, given.store)


@command("remove", of.RemoveParameters, to=bank)
def remove(run: Run, given: of.RemoveParameters) -> None:
    """Remove images from a bank, without training it again."""
    describe.describe_removals(run("banks.bank_remove", given), run.seconds)


@command("anomalies", AnomaliesParameters, to=bank)
def anomalies(_run: Run, given: AnomaliesParameters) -> None:
    """Keep confirmed anomalies, which never enter a bank; without a file, list them."""
    import dn2

    done = dn2.anomalies(given.store, bank=given.bank, file=given.file, remove=given.remove)
    for uri in done.uris if given.file is None else ():
        say(visible(uri))
    what = "" if given.file is None else f", {done.changed:,} {'removed' if given.remove else 'new'}"
    say(f"bank {given.bank}: {many(len(done.uris), 'anomaly', 'anomalies')} kept{what}")
    describe.describe_anomalies(done)


@command("use", of.UseVersionParameters, to=bank)
def use(run: Run, given: of.UseVersionParameters) -> None:
    """Make an older version of a bank the current one again. dn2 show lists them."""
    import dn2
    from dn2.neighbors.versions import pointed_at

    before = pointed_at(dn2.Store.open(given.store), given.bank)
    describe.describe_used(run("banks.use_version", given), before)


app.add_typer(bank, name="bank")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

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
