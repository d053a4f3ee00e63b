"""What a flow run shows on its page: a summary with a picture, and tables."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from logging import getLogger
from typing import ParamSpec

import httpx
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

import dn2
from dn2 import records
from dn2.layout import PICTURE
from dn2.reports import words
from dn2.sources.pattern import below
from flows.facts import Outcome
from flows.links import cell, page, served, text
from flows.parameters import TellConfig

log = getLogger("dn2.flows")
_ROWS = 20  # of a table: more belong into the Parquet files
_PICTURE_BYTES = 100_000
_ANSWERS = {"keep": "normal", "drop": "not normal, dropped", "undecided": "normal or not? kept until someone says"}
P = ParamSpec("P")


def _for_the_eye(show: Callable[P, None]) -> Callable[P, None]:
    """Let a server that takes no artifact cost a warning, not the run."""

    @wraps(show)
    def shown(*arguments: P.args, **named: P.kwargs) -> None:
        try:
            show(*arguments, **named)
        except httpx.HTTPError as error:
            log.warning("cannot show the artifact on Prefect's page: %s", error or type(error).__name__)

    return shown


def _key(*words: str) -> str:
    """Return an artifact's key: lower case, digits and dashes."""
    return "-".join(["dn2", *(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)])


def _table(rows: Iterable[tuple[str, object]]) -> str:
    """Return a Markdown table of two columns; the second one's cells are Markdown already."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


@_for_the_eye
def display_dataset(dataset: records.Dataset) -> None:
    """Show what a listing found."""
    changes = f"{dataset.added:,} added, {dataset.changed:,} changed, {dataset.vanished:,} vanished"
    lines = (
        ("dataset", text(dataset.name)),
        ("source", text(dataset.source)),
        ("images", f"{dataset.images:,}"),
        ("changes", changes),
        ("other files", f"{dataset.ignored:,}"),
        *([("fit no group", f"{dataset.ungrouped:,}")] if dataset.pattern is not None else []),
    )
    create_markdown_artifact(_table(lines), key=_key("dataset", dataset.name), description="What the source holds")


@_for_the_eye
def display_embedded(embedded: records.Embedded) -> None:
    """Show what was embedded."""
    lines = (
        ("source", text(embedded.dataset.source)),
        ("images", f"{embedded.embedded + embedded.rejected:,}"),
        ("could not be read", f"{embedded.rejected:,}"),
        ("embedder", text(embedded.embedder)),
        ("shards", f"{len(embedded.shards):,}"),
    )
    create_markdown_artifact(_table(lines), key=_key("embedded", embedded.dataset.name), description="Embeddings")


@_for_the_eye
def display_cleaning(cleaning: records.Cleaning, store: str) -> None:
    """Show how many training images were dropped."""
    how = "estimated" if cleaning.estimated else "as given"
    lines = (
        ("source", text(cleaning.source)),
        ("rule", cleaning.rule),
        ("dropped", f"{cleaning.dropped:,} of {cleaning.images:,} images ({cleaning.drop_fraction:.1%})"),
        ("taken for anomalies", f"{cleaning.contamination:.1%}, {how}{_between(cleaning)}"),
        *((f"kind {one.id}", f"{one.images:,} images: {_ANSWERS[one.answer]}") for one in cleaning.clusters),
        ("report", page(cleaning.html, store, None)),
    )
    key = _key("cleaning", cleaning.fingerprint)
    told = "\n\n".join([_table(lines), *(f"> {text(warning)}" for warning in cleaning.warnings)])
    create_markdown_artifact(told, key=key, description="The training images, cleaned")


def _between(cleaning: records.Cleaning) -> str:
    if cleaning.low is None or cleaning.high is None:
        return ""
    return f"; between {cleaning.low:.1%} and {cleaning.high:.1%} are"


@_for_the_eye
def display_compacted(done: Sequence[records.Compacted], store: str) -> None:
    """Show which manifest parts were merged."""
    rows = [
        (
            text(one.dataset),
            f"{len(one.merged):,} parts, {one.images:,} images, {one.shards:,} shards written"
            + "".join(f"; {text(note)}" for note in one.notes),
        )
        for one in done
    ]
    create_markdown_artifact(_table([("store", text(store)), *rows]), key=_key("compacted"), description="Parts merged")


@_for_the_eye
def display_pruned(found: records.Pruned) -> None:
    """Show what is unused."""
    lines = [("store", text(found.store)), ("deleted", "yes" if found.removed else "no")]
    lines += [(one.kind, f"{one.count:,}, {words.size(one.size)}") for one in found.kinds]
    create_markdown_artifact(_table(lines), key=_key("pruned"), description="Unused files")


@_for_the_eye
def display_bank(bank: records.AnyBank) -> None:
    """Show a version of a bank with what its thresholds promise."""
    lines = [
        ("bank", f"{text(bank.name)}, version {bank.version}"),
        *(_of_groups(bank) if isinstance(bank, records.GroupBankVersion) else _of_images(bank)),
        ("could not be read", f"{bank.rejected:,}"),
        ("backbone", f"{text(bank.backbone)}, k = {bank.k}, {bank.metric}"),
    ]
    summary = "\n\n".join([_table(lines), *(f"> {text(doubt)}" for doubt in words.doubts(bank))])
    create_markdown_artifact(summary, key=_key("bank", bank.name), description="The bank's current version")


def _of_images(bank: records.BankVersion) -> Iterator[tuple[str, str]]:
    yield "normal images", f"{bank.images:,}"
    if bank.cleaning is not None:
        yield "dropped by cleaning", f"{bank.dropped:,}, {bank.contamination:.1%} taken for anomalies"
    yield "index", text(words.index(bank))
    extra = (("index, compared with exact search", words.fidelity(bank)), ("copies", words.copies(bank)))
    yield from ((name, text(said)) for name, said in extra if said is not None)
    if bank.scale != "none":
        yield "score", text(bank.measure)
    yield "threshold", f"{bank.threshold:.4g}; {text(bank.calibrated)}"
    yield "false alarms", f"{bank.promise} lie above it{'' if bank.if_patients is None else f'; {bank.if_patients}'}"


def _of_groups(bank: records.GroupBankVersion) -> Iterator[tuple[str, str]]:
    yield "normal groups", f"{bank.groups:,}; {bank.content}, pooling {bank.pooling}"
    yield "left out", f"{bank.small:,} groups that are too small, {bank.ungrouped:,} images in no group"
    yield "calibrated for", f"groups of {bank.sizes[0]} to {bank.sizes[-1]} {bank.counted}"
    yield "false alarms", f"about {bank.attainable_rate:.2%} of normal groups lie above the thresholds"


@_for_the_eye
def display_report(report: records.AnyReport, store: str, tell: TellConfig) -> None:
    """Show a report: its counts with links, a histogram if it has one, and a table of the worst images or groups."""
    base = tell.report_base_url
    lines = (
        ("batch", text(report.source)),
        ("bank", f"{text(report.bank)}, version {report.version}"),
        *(_told_of_groups(report) if isinstance(report, records.GroupReport) else _told_of_images(report)),
        ("selected", f"{report.selected:,} at a false-discovery rate of {100 * report.false_discovery_rate:.4g}%"),
        ("report", page(report.html, store, base)),
    )
    picture = _histogram(report, store)
    shown = [f"![histogram of the scores]({picture})"] if picture else []
    summary = "\n\n".join([_table(lines), *(f"> {text(doubt)}" for doubt in words.doubts(report)), *shown])
    missing, why = (report.unscored, "scored") if isinstance(report, records.GroupReport) else (report.rejected, "read")
    headline = f"**{report.anomalous:,} of {report.scored:,}** {report.of} are anomalous"
    headline += f", {missing:,} could not be {why}" if missing else ""
    create_markdown_artifact(summary, key=_key("report", report.bank), description=headline)
    address = served(f"{report.uri}/{PICTURE}", store, base)
    if address and picture:
        create_image_artifact(address, key=_key("histogram", report.bank), description="Scores and threshold")
    worst_first: Sequence[records.WorstImage | records.WorstGroup] = report.worst[:_ROWS]
    if worst_first:
        create_table_artifact(
            [
                {
                    "rank": rank,
                    **(_group(worst, report) if isinstance(worst, records.WorstGroup) else _image(worst, report)),
                    "score": f"{worst.score:.4g}",
                    "p": f"{worst.p_value:.3g}",
                    "q": f"{worst.q_value:.3g}",
                    "anomalous": "yes" if worst.is_anomaly else "no",
                    "selected": "yes" if worst.selected else "no",
                }
                for rank, worst in enumerate(worst_first, start=1)
            ],
            key=_key("worst", report.bank),
            description=f"The worst {report.of} of {text(report.source)}; all rows: {page(report.html, store, base)}",
        )


def _told_of_images(report: records.Report) -> Iterator[tuple[str, str]]:
    yield "threshold", f"{report.threshold:.4g}: {text(report.rule)}"
    if report.drift is not None:
        yield "drift", text(report.drift.words)
    yield "all rows", text(f"{report.uri}/part-*.parquet")


def _told_of_groups(report: records.GroupReport) -> Iterator[tuple[str, str]]:
    yield "images", f"{report.images:,}, {report.ungrouped:,} in no group, {report.rejected:,} could not be read"
    yield "threshold", f"for each size, at a false-alarm rate of {100 * report.false_alarm_rate:.4g}%"


def _image(worst: records.WorstImage, report: records.AnyReport) -> dict[str, str]:
    return {
        "image": cell(below(worst.uri, report.source) or worst.uri),
        "nearest normal image": cell(worst.nearest.rpartition("/")[2]),
    }


def _group(worst: records.WorstGroup, report: records.AnyReport) -> dict[str, str]:
    return {
        "group": cell(worst.group_id),
        "images": f"{worst.members:,}",
        "image that contributes most": cell(below(worst.odd, report.source) or worst.odd),
    }


@_for_the_eye
def display_nothing_new(source: str, bank: str) -> None:
    """Show that a drop held no image that the bank has not scored already."""
    line = f"nothing new in {text(source)}: bank {text(bank)} has scored all its images"
    create_markdown_artifact(line, key=_key("report", bank), description="nothing new")


def _histogram(report: records.AnyReport, store: str) -> str | None:
    """Return the picture as a data URI: Markdown shows it without printing its address."""
    opened = dn2.Store.open(store)
    path = f"{report.uri.removeprefix(f'{opened.uri}/')}/{PICTURE}"
    if not opened.exists(path):
        return None
    data = opened.read(path)
    return f"data:image/png;base64,{base64.b64encode(data).decode()}" if len(data) <= _PICTURE_BYTES else None


@_for_the_eye
def display_night(outcomes: Sequence[Outcome], store: str, tell: TellConfig) -> None:
    """Show what became of each source of a night."""
    rows = []
    for outcome in sorted(outcomes, key=lambda one: one.error is None):  # failures first
        report = outcome.report
        rows.append(
            {
                "source": cell(outcome.source),
                "bank": outcome.bank,
                "outcome": "failed" if outcome.error is not None else "scored" if report else "nothing new",
                "images": f"{report.images:,}" if report else "",
                "anomalous": f"{report.anomalous:,} {_of(report)}({report.anomalous_rate:.1%})" if report else "",
                "could not be read": f"{report.rejected:,}" if report else "",
                "vanished": f"{outcome.vanished:,}" if outcome.vanished else "",
                "report": (served(report.html, store, tell.report_base_url) or cell(report.html)) if report else "",
                "why": cell(outcome.error or ""),
            }
        )
    failed = sum(outcome.error is not None for outcome in outcomes)
    create_table_artifact(rows, key="dn2-night", description=f"{len(outcomes)} sources, {failed} failed")


def _of(report: records.AnyReport) -> str:
    return "" if report.of == "images" else f"{report.of} "


@_for_the_eye
def display_looks(looks: Sequence[records.Look], failures: Sequence[tuple[str, str]]) -> None:
    """Show what was found below the watched prefixes."""
    lines = ["| prefix | drops | complete now | outside the drops |", "|---|---|---|---|"]
    lines += [f"| {text(one.prefix)} | {len(one.drops):,} | {len(one.due):,} | {one.loose:,} |" for one in looks]
    lines += [f"| {text(prefix)} | failed: {text(reason)} | | |" for prefix, reason in failures]
    told = [f"* {text(drop.uri)}: {drop.images:,} images, bank {text(drop.bank)}" for one in looks for drop in one.due]
    more = [f"* and {len(told) - _ROWS:,} more"] if len(told) > _ROWS else []
    content = "\n".join([*lines, "", *told[:_ROWS], *more])
    create_markdown_artifact(content, key="dn2-drops", description=f"{len(told)} drops are complete")
