"""Flow: score a batch of images against a bank."""

from __future__ import annotations

from prefect import flow

import dn2
import tasks.steps as step
from dn2.records import BankVersion, Embedded, Report, ScoredShard
from dn2.reports.export import check_target
from dn2.scoring.score import bank_loads, check_comparable, finished_report, gather, scores_folder
from flows.artifacts import show_report
from flows.events import tell_report
from flows.parameters import BatchParameters, ScoreParameters
from flows.steps import embed_source, ranges
from flows.watched import watched


@flow(name="score")
def score(parameters: ScoreParameters) -> Report:
    """Embed a batch as the bank was embedded, score it, and write the report."""
    if parameters.out is not None:
        check_target(parameters.out, parameters.store)
    with watched():
        bank = step.open_bank(parameters.store, parameters.bank)
        embedded = embed_source(parameters, bank)
        report = score_embedded(embedded, bank, parameters)
        if parameters.out is not None:
            step.export(report, parameters.store, parameters.out)
        show_report(report, parameters.store, parameters.tell)
        tell_report(report, parameters.store, parameters.tell)
    return report


def score_embedded(embedded: Embedded, bank: BankVersion, parameters: BatchParameters) -> Report:
    """Return the batch's report, from the store if it is finished already."""
    store, config = parameters.store, parameters.score
    done = finished_report(embedded, dn2.Store.open(store), bank, config)
    if done is not None:
        return done
    check_comparable(embedded, dn2.Store.open(store), bank)
    folder, total = scores_folder(embedded, bank), embedded.embedded + embedded.rejected
    runs = [tuple((place, embedded.shards[place]) for place in run) for run in ranges(len(embedded.shards))]
    loads = bank_loads(store, bank, config)
    if len(loads) > 1:  # the bank is larger than memory: whoever takes a task opens some of its segments
        searches = [
            step.search.submit(mine, store, bank, load, config, folder=folder, number=number)
            for load in loads
            for number, mine in enumerate(runs)
        ]
        for search in searches:
            search.result()
    parts: list[ScoredShard] = []
    for number, mine in enumerate(runs):
        parts += step.score(mine, store, bank, config, folder=folder, number=number, total=total)
    return step.report(gather(embedded, bank, parts), store, bank, config)
