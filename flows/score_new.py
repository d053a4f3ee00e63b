"""What is new in a source, scored: the part that nightly runs and drops have in common."""

from __future__ import annotations

import dn2
import tasks.steps as step
from dn2.records import Dataset, Report
from flows.artifacts import show_report
from flows.events import tell_report
from flows.parameters import ScoreNewParameters
from flows.score import score_embedded
from flows.steps import embed_dataset


def score_new(parameters: ScoreNewParameters) -> tuple[Dataset, Report | None]:
    """Score the images that the bank has not scored yet; return the dataset, and their report if there are any.

    Whatever is new since the last time is one batch with one report. Only when the report is finished and told is it
    noted that its images are scored: a run that dies before is repeated by the next one, which finds the same report.
    """
    store = parameters.store
    dn2.Store.open(store).check_writable()
    bank = step.open_bank(store, parameters.bank)
    dataset = step.ingest(parameters.source, store, parameters.dataset)
    parts = step.unscored(dataset, store, bank, rescore=parameters.rescore)
    if not parts:
        return dataset, None
    config = step.choose_embedder(parameters.embed, bank)
    embedded = embed_dataset(dataset, store, config, parts=parts)
    report = None
    if embedded.shards:
        report = score_embedded(embedded, bank, parameters)
        show_report(report, store, parameters.tell)
        tell_report(report, store, parameters.tell)
    step.mark(dataset, store, bank, parts, report)
    return dataset, report
