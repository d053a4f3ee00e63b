"""What the command line says of a store: lines that a person reads, or one JSON object that a script reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from textwrap import wrap
from typing import TypeVar

from pydantic import TypeAdapter

from dn2.neighbors.index import index_of
from dn2.records import BankVersion, GroupBankVersion
from dn2.reports import words
from dn2.upkeep import overview as of
from dn2.words import many
from flows.cli.console import say, visible

T = TypeVar("T")


def as_json(found: of.Overview) -> str:
    """Return all that was found as one JSON object, in ASCII."""
    return json.dumps(TypeAdapter(of.Overview).dump_python(found, mode="json"), indent=1)


def describe_overview(found: of.Overview) -> None:
    """Say what lies in a store."""
    for line in _lines(found):
        say(visible(line))


def _lines(found: of.Overview) -> Iterator[str]:
    yield f"store {found.store} (times are UTC)"
    yield from _section("datasets", found.datasets, _dataset)
    yield from _section("embedders", found.embedders, _embedder)
    yield from _section("banks", found.banks, _bank)
    yield from _section("reports", found.reports, _reports)
    if found.cleanings.count:
        yield ""
        yield from _cleanings(found.cleanings)
    yield ""
    yield f"total: {words.size(found.size)}"
    yield from _stale(found)


def _section(title: str, things: Sequence[T], lines: Callable[[T], Iterator[str]]) -> Iterator[str]:
    if things:
        yield ""
        yield title
        for thing in things:
            yield from lines(thing)


def _dataset(found: of.DatasetOverview) -> Iterator[str]:
    images = "number of images unknown" if found.images is None else many(found.images, "image")
    told = f"{images} in {many(found.parts, 'manifest part')}, changed {_time(found.changed)}"
    yield f"  {found.name}: {told if found.parts else 'no listing is finished'}"
    if found.parts:
        yield f"    {words.size(found.size)}"
    if found.source is not None:
        yield f"    {found.source}{'' if found.split is None else f', split {found.split}'}"
    yield from _error(found.error)


def _embedder(found: of.EmbedderOverview) -> Iterator[str]:
    by_bank: dict[str, int] = {}
    for bank, _ in found.used_by:
        by_bank[bank] = by_bank.get(bank, 0) + 1
    used = ", ".join(f"bank {bank} ({many(count, 'version')})" for bank, count in by_bank.items()) or "no bank"
    yield f"  {found.name}: {many(found.shards, 'shard')}, {words.size(found.size)}"
    yield f"    used by {used}"


def _stale(found: of.Overview) -> Iterator[str]:
    if found.stale is None:
        yield "unused files: not known while something cannot be read"
        return
    for one in found.stale.kinds:
        yield f"  {one.kind}: {one.count:,} ({words.size(one.size)})"
    if found.stale.kinds:
        yield f"dn2 prune --yes deletes at least {words.size(found.stale.size)}"


def _bank(found: of.BankOverview) -> Iterator[str]:
    kind = "" if found.kind is None else f" of {found.kind}"
    versions = many(len(found.versions), "version") if found.versions else "no version is finished"
    yield f"  {found.name}: bank{kind}, {versions}; {words.size(found.size)}"
    yield from _error(found.error)
    for version in found.versions:
        yield from _version(version)
    if found.history:
        yield f"    batches: the last {len(found.history)}"
    for past in found.history:
        stale = ", bank stale" if past.stale else ""
        rate = f"{past.anomalous_rate:.1%} of {past.scored:,} {past.of} anomalous"
        yield f"      {_time(past.when)}  {rate}, drift {past.verdict or 'not known'}{stale}, {past.source}"


def _version(found: of.VersionOverview) -> Iterator[str]:
    parent = "" if found.parent is None else f", after {found.parent}"
    mark, said = ("*", "  (current)") if found.current else (" ", "")
    yield f"    {mark} {found.version}  {_time(found.written)}{parent}{said}"
    if isinstance(found.made, BankVersion):
        yield from _of_images(found.made)
    if isinstance(found.made, GroupBankVersion):
        yield from _of_groups(found.made)
    if found.made is not None:
        for doubt in words.doubts(found.made):
            lines = wrap(doubt, 72, break_long_words=False, break_on_hyphens=False)
            yield from (f"        {line}" for line in lines)
    yield from _error(found.error, 8)


def _of_images(made: BankVersion) -> Iterator[str]:
    index = "" if index_of(made.index).exact else f", index {made.index}"
    yield (
        f"        {many(made.images, 'image')}, {made.backbone}, {made.measure}, k = {made.k}, "
        f"threshold {made.threshold:.4g}{index}"
    )
    if made.cleaning is not None:
        yield f"        cleaned: {many(made.dropped, 'image')} dropped"


def _of_groups(made: GroupBankVersion) -> Iterator[str]:
    yield f"        {many(made.groups, 'group')}, {made.content}, {made.backbone}, {made.metric}"
    yield f"        k = {made.k}, pooling {made.pooling}, threshold by size"


def _reports(found: of.ReportsOverview) -> Iterator[str]:
    yield f"  of bank {found.bank}: {many(found.count, 'report')}{_some(found.count, found.newest)}"
    yield f"    {words.size(found.size)}; scores {words.size(found.scores)}"
    yield from _error(found.error)
    for report in found.newest:
        yield from _report(report)


def _report(found: of.ReportOverview) -> Iterator[str]:
    if found.made is not None:
        made = found.made
        told = f"{made.anomalous} of {made.things} {made.of} anomalous, version {made.version}"
        yield f"    {_time(found.written)}  {told}"
        yield f"      of {found.made.source}"
    yield f"      {found.uri}/report.html"
    yield from _error(found.error, 6)


def _cleanings(found: of.CleaningsOverview) -> Iterator[str]:
    yield f"cleanings: {found.count}{_some(found.count, found.newest)}; {words.size(found.size)}"
    for cleaning in found.newest:
        yield from _cleaning(cleaning)


def _cleaning(found: of.CleaningOverview) -> Iterator[str]:
    if found.made is not None:
        made = found.made
        yield f"  {_time(found.written)}  {made.dropped} of {many(made.images, 'image')} dropped ({made.rule})"
        yield f"    of {made.source}"
    yield f"    {found.uri}/report.html"
    yield from _error(found.error)


def _some(count: int, newest: Sequence[object]) -> str:
    return "" if count == len(newest) else f", the newest {len(newest)}"


def _time(moment: datetime | None) -> str:
    return "at a time unknown" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def _error(error: str | None, indent: int = 4) -> Iterator[str]:
    if error is not None:
        yield f"{' ' * indent}error: {error}"
