"""What is new in a source, scored: the part that nightly runs and drops have in common."""

from __future__ import annotations

import dn2
import tasks.steps as step
from dn2.groups.grouping import check_grouped
from dn2.records import BankVersion, Dataset, GroupBankVersion, GroupReport, Report
from flows.artifacts import show_groups, show_report
from flows.events import tell_report
from flows.parameters import ScoreNewParameters
from flows.score import score_embedded
from flows.steps import embed_dataset, list_source


def score_new(parameters: ScoreNewParameters) -> tuple[Dataset, Report | GroupReport | None]:
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
        tell_report(report, store, parameters.tell)
    step.mark(dataset, store, bank, parts, report)
    return dataset, report


def _report(
    dataset: Dataset, parts: tuple[str, ...], bank: BankVersion | GroupBankVersion, parameters: ScoreNewParameters
) -> Report | GroupReport | None:
    """Return the report of what is new, shown already; None if nothing but vanished images is."""
    store = parameters.store
    config = step.choose_embedder(parameters.embed, bank)
    if isinstance(bank, GroupBankVersion):
        embedded = embed_dataset(dataset, store, config)  # a group is scored with all its images
        if not any(shard.shard.part in parts for shard in embedded.shards):
            return None
        groups = step.score_groups(embedded, store, bank, parameters.group_score, new_parts=parts)
        show_groups(groups, store, parameters.tell)
        return groups
    embedded = embed_dataset(dataset, store, config, parts=parts)
    if not embedded.shards:
        return None
    report = score_embedded(embedded, bank, parameters)
    show_report(report, store, parameters.tell)
    return report
