"""Find the unused files of a store, and delete them if told to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from logging import getLogger

from dn2.errors import Dn2Error, NotFoundError, SchemaError, StoreError
from dn2.progress import advance
from dn2.records import Pruned, Size, Stale
from dn2.store.storage import Store
from dn2.upkeep.inventory import Inventory
from dn2.upkeep.limits import KINDS, Limits, Unused
from dn2.upkeep.stale import Plan, plan

log = getLogger(__name__)
_EXAMPLES = 10


def prune(
    store: str | os.PathLike[str] | Store,
    *,
    reports: int | None = None,
    age: float | None = None,
    yes: bool = False,
    now: float | None = None,
) -> Pruned:
    """Return the unused files of a store, after deleting them if `yes`.

    What any version of a bank needs stays: its own files, its embedder, its cleaning, and the shards and thumbnails
    that its rows name. So does what a report that stays needs: its scores, and the shards of its pictures. What was
    written or replaced less than a day ago stays for the runs that are under way. Only dn2's own files are deleted:
    what has no name that dn2 gives, or lies behind a link to another folder, is not touched.

    What makes a thing whole is deleted first, so that a killed run leaves nothing that looks like a result; the next
    one goes on where it was.

    Args:
        store: where dn2 keeps its files.
        reports: keep so many reports of each bank, cleanings, and lists of rejects of each dataset: the newest ones.
            By default all.
        age: delete those that are older than so many days. By default none. Of the two, one is enough to delete.
        yes: delete; otherwise nothing is changed.
        now: seconds since 1970; by default the time of this machine.

    Raises:
        ConfigError: a number is negative.
        NotFoundError: there is no store.
        SchemaError: a file that tells what is needed is damaged or missing: then nothing was deleted.
        StoreError: the store cannot be read or written.
    """
    store = Store.open(store)
    limits = Limits(reports, age) if now is None else Limits(reports, age, now)
    seen = Inventory.of(store)
    if not seen.total.files:
        raise NotFoundError(f"store {store.uri}: got nothing that dn2 has made, expected a store; check --store")
    try:
        found = plan(store, limits, seen=seen)
    except Dn2Error as error:
        kind = StoreError if isinstance(error, StoreError) else SchemaError
        raise kind(f"store {store.uri}: nothing was deleted: cannot tell what is unused: {error}") from error
    if yes:
        _delete(store, found.unused)
    return summary(store, found, removed=yes)


def summary(store: Store, found: Plan, *, removed: bool = False) -> Pruned:
    """Return what a plan deletes, kind by kind."""
    kinds = []
    for kind, words in KINDS.items():
        mine = [one for one in found.unused if one.kind == kind]
        if mine:
            size = sum((one.size for one in mine), Size())
            examples = tuple(legible(one.path) for one in mine[:_EXAMPLES])
            kinds.append(Stale(words, len(mine), size, examples))
    return Pruned(store.uri, tuple(kinds), found.vanished_rows, found.vanished_bytes, removed)


def legible(name: str) -> str:
    """Return a name as text that can be written anywhere: bytes that are not UTF-8 become escapes."""
    return name.encode(errors="backslashreplace").decode()


def _delete(store: Store, unused: Sequence[Unused]) -> None:
    for one in unused:
        for path in one.files:
            store.remove(path)
        if one.is_folder:
            store.remove_empty(one.path)
        advance("prune", 1, total=len(unused))
    log.info("store %s: %d unused things deleted", store.uri, len(unused))
