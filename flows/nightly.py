"""Score what is new: every night in several sources, or in one drop, a complete delivery of images."""

from __future__ import annotations

from prefect import flow
from prefect.logging import get_run_logger

import dn2
import tasks.steps as step
from dn2.groups.grouping import check_grouped
from dn2.records import AnyBank, AnyReport, Dataset, GroupBankVersion
from flows.artifacts import display_night, display_nothing_new, display_report
from flows.events import tell_report
from flows.facts import NightError, Outcome, reason
from flows.images import embed_dataset, list_source
from flows.parameters import DropParameters, NightlyParameters, ScoreNewParameters
from flows.scoring import score_embedded
from flows.sources_file import read_sources
from flows.watched import watched


@flow(name="nightly-score")
def nightly_score(parameters: NightlyParameters) -> tuple[Outcome, ...]:
    """Score what is new in every source of the sources file; one that fails does not stop the others.

    Raises:
        NightError: some failed; the message says which, and why.
    """
    file = read_sources(parameters.sources)
    with watched():
        outcomes = tuple(_outcome(batch) for batch in file.batches(rescore=parameters.rescore))
        display_night(outcomes, file.store, file.tell)
    for outcome in outcomes:
        get_run_logger().info("%s, bank %s: %s", outcome.source, outcome.bank, outcome.in_words())
    if any(outcome.error is not None for outcome in outcomes):
        raise NightError(outcomes)
    return outcomes


def _outcome(batch: ScoreNewParameters) -> Outcome:
    try:
        dataset, report = score_new(batch)
        return Outcome(batch.source, batch.bank, vanished=dataset.vanished, report=report)
    except Exception as error:
        get_run_logger().exception("%s, bank %s failed", batch.source, batch.bank)
        return Outcome(batch.source, batch.bank, error=reason(error))


@flow(name="score-drop")
def score_drop(parameters: DropParameters) -> AnyReport | None:
    """Score the images of a drop that are not scored yet; a drop that is told twice is scored once."""
    with watched():
        _, report = score_new(parameters)
        if parameters.drop is not None:
            step.mark_drop(parameters.drop, parameters.store, parameters.source, report)
        if report is None:
            display_nothing_new(parameters.source, parameters.bank)
    return report


def score_new(parameters: ScoreNewParameters) -> tuple[Dataset, AnyReport | None]:
    """Score the images that the bank has not scored yet, or the groups they belong to; return dataset and report.

    Whatever is new since the last time is one batch with one report, if there is anything. Only when the report is
    finished and told is it noted that its images are scored: a run that dies before is repeated by the next one, which
    finds the same report.
    """
    store = parameters.store
    dn2.Store.open(store).check_writable()
    if parameters.groups:
        check_grouped(parameters.source, parameters.pattern)
    bank = (step.open_group_bank if parameters.groups else step.open_bank)(store, parameters.bank)
    dataset = list_source(parameters)
    parts = step.unscored(dataset, store, bank, rescore=parameters.rescore)
    if not parts:
        return dataset, None
    report = _report(dataset, parts, bank, parameters)
    if report is not None:
        display_report(report, store, parameters.tell)
        tell_report(report, store, parameters.tell)
    step.mark(dataset, store, bank, parts, report)
    return dataset, report


def _report(
    dataset: Dataset, parts: tuple[str, ...], bank: AnyBank, parameters: ScoreNewParameters
) -> AnyReport | None:
    """Return the report of what is new; None if nothing but vanished images is."""
    store = parameters.store
    config = step.choose_embedder(parameters.embed, bank)
    if isinstance(bank, GroupBankVersion):
        embedded = embed_dataset(dataset, store, config)  # a group is scored with all its images
        if not any(shard.shard.part in parts for shard in embedded.shards):
            return None
        return step.score_groups(embedded, store, bank, parameters.group_score, new_parts=parts)
    embedded = embed_dataset(dataset, store, config, parts=parts)
    return score_embedded(embedded, bank, parameters) if embedded.shards else None
