"""Deliveries of images below a watched prefix: which there are, and which are complete."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from dn2 import layout
from dn2.checks import fingerprint
from dn2.errors import SchemaError
from dn2.progress import advance
from dn2.records import AnyReport, Drop, Look, SeenDrop
from dn2.sources.folder import FolderSource
from dn2.sources.source import ListedFile
from dn2.store.documents import DROP, WATCH, as_record, read_document, write_document
from dn2.store.storage import Store

Unit = Literal["folder", "prefix"]


@dataclass(slots=True)
class _Listing:
    """What the walk has seen of one drop. The digest is a sum: it does not depend on the order of the listing."""

    digest: int = 0
    images: int = 0
    marked: bool = False

    def add(self, file: ListedFile) -> None:
        text = f"{file.uri}\0{file.version}".encode(errors="surrogateescape")
        self.digest = (self.digest + int.from_bytes(hashlib.sha256(text).digest())) % 2**256
        self.images += 1


def find_drops(
    prefix: str | os.PathLike[str],
    *,
    unit: Unit = "folder",
    marker: str | None = None,
    bank: str = "default",
    without: str = "",
) -> tuple[tuple[Drop, ...], int]:
    """Return the drops below a prefix by URI, and how many images lie beside them, in no drop.

    The prefix is listed once, as a stream; memory grows with the number of drops, not of images.

    Args:
        prefix: folder or fsspec URL.
        unit: folder: each folder directly below the prefix is a drop; prefix: all below it is one.
        marker: name of the file that is put into a drop, last, to say that it is complete.
        bank: which bank it is to be compared with: part of a drop's identity.
        without: URI of the store, which is passed over if it lies below the prefix.

    Raises:
        NotFoundError: there is no such prefix.
        SourceError: it cannot be listed.
    """
    source = FolderSource.open(prefix)
    found: dict[str, _Listing] = {} if unit == "folder" else {"": _Listing()}
    loose = 0
    for file in source.walk(also=marker, without=without):
        advance("watch", 1)
        below = file.uri.removeprefix(source.uri).lstrip("/")
        folder, slash, rest = below.partition("/") if unit == "folder" else ("", "/", below)
        if not slash:
            loose += below != marker
        elif rest == marker and not folder.startswith("."):
            found.setdefault(folder, _Listing()).marked = True
        elif rest.rpartition("/")[2] != marker:
            found.setdefault(folder, _Listing()).add(file)
    drops = (_drop(f"{source.uri}/{folder}" if folder else source.uri, bank, it) for folder, it in found.items())
    return tuple(sorted(drops, key=lambda drop: drop.uri)), loose


def _drop(uri: str, bank: str, listing: _Listing) -> Drop:
    identity = fingerprint([uri, bank, listing.images, f"{listing.digest:064x}"], length=32)
    return Drop(identity, uri, bank, listing.images, listing.marked)


def complete(
    drops: Iterable[Drop],
    seen: Mapping[str, SeenDrop],
    is_scored: Callable[[str], bool],
    *,
    now: float,
    by_marker: bool,
    settle_s: float,
    again_s: float,
) -> tuple[tuple[Drop, ...], dict[str, SeenDrop]]:
    """Return the drops that are to be told now, and what to remember of all of them. Reads no clock and no disk.

    Args:
        drops: what the listing shows.
        seen: what was remembered at the last look, by URI.
        is_scored: says whether the report of a drop is finished.
        now: seconds since 1970.
        by_marker: complete is what has its marker; else what has not changed for `settle_s` seconds.
        settle_s: how long a listing must stand still, over at least two looks.
        again_s: a drop that was told and is still not scored is told again after so many seconds, then after twice
            as many, and so on: it may only wait in a long queue.
    """
    due: list[Drop] = []
    remembered: dict[str, SeenDrop] = {}
    for drop in drops:
        before = seen.get(drop.uri)
        unchanged = before is not None and before.id == drop.id
        state = _until(now, before) if before is not None and unchanged else SeenDrop(drop.id, since=now)
        is_complete = drop.marked if by_marker else unchanged and now - state.since >= settle_s
        if drop.images and is_complete and not state.scored:
            if is_scored(drop.id):
                state = replace(state, scored=True)
            elif state.told is None or now - state.told >= again_s * 2 ** (min(state.times, 6) - 1):
                state = replace(state, told=now, times=state.times + 1)
                due.append(drop)
        remembered[drop.uri] = state
    return tuple(due), remembered


def _until(now: float, seen: SeenDrop) -> SeenDrop:
    """Return what was remembered with no time in the future: the clock may have been set back."""
    return replace(seen, since=min(seen.since, now), told=None if seen.told is None else min(seen.told, now))


def look(
    prefix: str | os.PathLike[str],
    store: str | os.PathLike[str] | Store,
    *,
    bank: str,
    unit: Unit = "folder",
    marker: str | None = None,
    settle_s: float = 600.0,
    again_s: float = 3600.0,
    now: float | None = None,
) -> Look:
    """Return which drops below a prefix are complete and not scored yet.

    Whoever acts on them calls `remember` afterwards: a process that dies in between is told the same drops again.

    Args:
        prefix: folder or fsspec URL, see `find_drops`.
        store: where dn2 keeps its files.
        bank: which bank the drops are to be compared with.
        unit: what a drop is, see `find_drops`.
        marker: name of the file that says that a drop is complete; None: what stops changing is complete.
        settle_s: see `complete`.
        again_s: see `complete`.
        now: seconds since 1970; by default the clock's.

    Raises:
        NotFoundError: there is no such prefix.
        SourceError: it cannot be listed.
        SchemaError: what was remembered is damaged.
        StoreError: the store cannot be read.
    """
    store = Store.open(store)
    uri = FolderSource.open(prefix).uri
    watch = fingerprint([uri, bank, unit, marker])
    drops, loose = find_drops(uri, unit=unit, marker=marker, bank=bank, without=store.uri)
    due, remembered = complete(
        drops,
        _read(store, watch),
        lambda identity: store.exists(layout.drop(identity)),
        now=time.time() if now is None else now,
        by_marker=marker is not None,
        settle_s=settle_s,
        again_s=again_s,
    )
    return Look(watch, uri, drops, due, remembered, loose)


def _read(store: Store, watch: str) -> dict[str, SeenDrop]:
    path = layout.watch(watch)
    if not store.exists(path):
        return {}
    drops = read_document(store, path, WATCH, ["drops"])["drops"]
    if not isinstance(drops, dict):
        raise SchemaError(f"{store.uri_of(path)}: got drops = {drops!r:.60}, expected an object; delete the file")
    for uri, state in drops.items():
        if not isinstance(state, dict):
            raise SchemaError(f"{store.uri_of(path)}: got {uri} = {state!r:.60}, expected an object; delete the file")
    return {uri: as_record(SeenDrop, state, store.uri_of(path)) for uri, state in drops.items()}


def remember(look: Look, store: str | os.PathLike[str] | Store) -> None:
    """Write down what a look has seen, when everyone has been told.

    Raises:
        StoreError: the store cannot be written.
    """
    content = {"prefix": look.prefix, "drops": {uri: asdict(state) for uri, state in look.remembered.items()}}
    write_document(Store.open(store), layout.watch(look.watch), WATCH, content)


def mark_scored(drop: str, store: str | os.PathLike[str] | Store, *, uri: str, report: AnyReport | None) -> None:
    """Write down that a drop is scored: it will not be told again.

    Args:
        drop: its identity.
        store: where dn2 keeps its files.
        uri: where it lies.
        report: its report; None if nothing in it was new, which does not replace a report that is noted already.

    Raises:
        StoreError: the store cannot be written.
    """
    store = Store.open(store)
    if report is None and store.exists(layout.drop(drop)):
        return
    folder = report.uri.removeprefix(f"{store.uri}/") if report else None
    write_document(store, layout.drop(drop), DROP, {"id": drop, "uri": uri, "report": folder})
