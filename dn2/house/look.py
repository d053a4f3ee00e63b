"""A look at a store: what lies in it, how much that takes, and what of it nobody needs any more."""

from __future__ import annotations

import os
from dataclasses import replace

from dn2.errors import Dn2Error
from dn2.house.limits import Limits
from dn2.house.prune import legible, summary
from dn2.house.stale import plan
from dn2.overview.inventory import Inventory
from dn2.overview.records import Overview
from dn2.overview.show import show as look
from dn2.store.storage import Store


def show(store: str | os.PathLike[str] | Store, *, newest: int = 10) -> Overview:
    """Return what lies in a store, with sizes, and what `prune` would remove but for shards of vanished images.

    Nothing is written. Of Parquet files only footers are read, unless there is something that only the rows of a bank
    can tell to be of use; of reports and cleanings the newest ones. The others are looked up, to count them and to
    know when they were written.

    Args:
        store: where dn2 keeps its files.
        newest: how many reports of each bank, and cleanings, to read.

    Raises:
        ConfigError: `newest` is negative.
        NotFoundError: nothing is there that dn2 has made.
        StoreError: the store cannot be listed.
    """
    store = Store.open(store)
    seen = Inventory.of(store)
    found = look(store, newest=newest, seen=seen)
    try:
        return replace(found, stale=summary(store, plan(store, Limits(), seen=seen, quick=True)))
    except Dn2Error as error:
        return replace(found, stale_error=legible(str(error)))
