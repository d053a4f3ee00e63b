"""The commands about what is in a store: look at it, and choose the version of a bank.

A look runs no flow: nothing is done that anybody would want to find in Prefect's pages, and it ends in half a second.
"""

from __future__ import annotations

from typing import Annotated

import typer

from flows import console
from flows.console import say
from flows.describe import describe_used
from flows.given import absolute
from flows.options import AnyBank, Store, Verbose

bank = typer.Typer(help="Choose the version of a bank.", no_args_is_help=True)


def show(
    store: Store = "dn2-store",
    newest: Annotated[int, typer.Option(help="Reports of each bank, and cleanings, to show.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print the same as one JSON object.")] = False,
    verbose: Verbose = False,
) -> None:
    """Show what is in a store: datasets, banks and their versions, reports, cleanings."""
    with console.session(verbose=verbose):
        from dn2.errors import StoreError
        from dn2.overview.show import show as look
        from flows.overview import as_json, describe_overview

        found = look(absolute(store), newest=newest)
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
