"""The commands that keep house: merge manifest parts, and remove what nobody needs any more."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from flows import console
from flows.console import say, visible
from flows.given import absolute
from flows.options import Store, Verbose


def compact(
    dataset: Annotated[str | None, typer.Argument(help="Name of the dataset; dn2 show lists them.")] = None,
    store: Store = "dn2-store",
    every: Annotated[bool, typer.Option("--all", help="Every dataset of the store.")] = False,
    verbose: Verbose = False,
) -> None:
    """Merge the manifest parts of a dataset into one. Nothing is embedded or scored again."""
    with console.session(verbose=verbose) as run:
        from flows.describe_house import describe_compacted
        from flows.parameters import CompactParameters

        values = {"store": absolute(store), "dataset": dataset, "all": every}
        parameters = CompactParameters.model_validate(values)
        began = time.monotonic()
        done = run("compact", parameters)
        for one in done:
            describe_compacted(one)
        say(f"{len(done)} dataset{'' if len(done) == 1 else 's'} in {time.monotonic() - began:.1f} s")


def prune(
    store: Store = "dn2-store",
    reports: Annotated[
        int | None,
        typer.Option(help="Keep so many reports of each bank, cleanings, and lists of rejects. Default: all."),
    ] = None,
    age: Annotated[float | None, typer.Option(help="Remove those that are older than so many days.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove. Otherwise it is only said what would be.")] = False,
    verbose: Verbose = False,
) -> None:
    """Say what of a store nobody needs any more, and remove it with --yes."""
    with console.session(verbose=verbose) as run:
        from flows.describe_house import pruned_lines
        from flows.parameters import PruneParameters

        values = {"store": absolute(store), "reports": reports, "age": age, "yes": yes}
        found = run("prune", PruneParameters.model_validate(values))
        for line in pruned_lines(found):
            say(visible(line))
