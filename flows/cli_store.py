"""The commands about what is in a store: look at it, add images to a bank or remove some, and choose its version.

A look runs no flow: nothing is done that anybody would want to find in Prefect's pages, and it ends in half a second.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from flows import console
from flows.console import say
from flows.describe import describe_additions, describe_removals, describe_used
from flows.given import absolute, embed_settings, source_settings
from flows.options import (
    AnyBank,
    Backbone,
    Bank,
    BatchSize,
    Crop,
    Dataset,
    Device,
    Download,
    Engine,
    EngineOption,
    ImageIds,
    Pattern,
    ShardSize,
    Source,
    Split,
    Store,
    Verbose,
    Weights,
    WeightsSha256,
)

bank = typer.Typer(help="Add images to a bank or remove some, and choose its version.", no_args_is_help=True)


def show(
    store: Store = "dn2-store",
    newest: Annotated[int, typer.Option(help="Reports of each bank, and cleanings, to show.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print the same as one JSON object.")] = False,
    verbose: Verbose = False,
) -> None:
    """Show what is in a store: datasets, banks and their versions, reports, cleanings."""
    with console.session(verbose=verbose):
        from dn2.errors import StoreError
        from dn2.upkeep.show import show as shown
        from flows.overview import as_json, describe_overview

        found = shown(absolute(store), newest=newest)
        if json:
            say(as_json(found))
        else:
            describe_overview(found)
        if found.errors:
            count = len(found.errors)
            raise StoreError(
                f"store {found.store}: {count} {'entry' if count == 1 else 'entries'} could not be read, the first: "
                f"{found.errors[0]}"
            )


@bank.command("add")
def add(
    source: Source,
    bank: Bank = "default",
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
    """Add confirmed normal images to a bank, without training it again."""
    with console.session(verbose=verbose) as run:
        from flows.parameters import AddParameters

        parameters = AddParameters.model_validate(
            {
                **source_settings(source, store, dataset, pattern, split),
                "bank": bank,
                "embed": embed_settings(
                    backbone, crop, weights, weights_sha256, download, engine, device, batch_size, shard_size
                ),
            }
        )
        began = time.monotonic()
        describe_additions(run("bank-add", parameters), time.monotonic() - began)


@bank.command("remove")
def remove(
    image_ids: ImageIds,
    bank: Bank = "default",
    store: Store = "dn2-store",
    verbose: Verbose = False,
) -> None:
    """Take images out of a bank, without training it again."""
    with console.session(verbose=verbose) as run:
        from flows.parameters import RemoveParameters

        values = {"store": absolute(store), "bank": bank, "image_ids": image_ids}
        parameters = RemoveParameters.model_validate(values)
        began = time.monotonic()
        describe_removals(run("bank-remove", parameters), time.monotonic() - began)


@bank.command("use")
def use(
    version: Annotated[
        str,
        typer.Argument(help="Version of the bank, or how it begins: four characters or more.", show_default=False),
    ],
    bank: AnyBank = "default",
    store: Store = "dn2-store",
    verbose: Verbose = False,
) -> None:
    """Make an older version of a bank the current one again. dn2 show lists them."""
    with console.session(verbose=verbose) as run:
        import dn2
        from dn2.neighbors.versions import pointed_at
        from flows.parameters import UseVersionParameters

        values = {"store": absolute(store), "bank": bank, "version": version}
        parameters = UseVersionParameters.model_validate(values)
        before = pointed_at(dn2.Store.open(parameters.store), parameters.bank)
        describe_used(run("use-version", parameters), before)
