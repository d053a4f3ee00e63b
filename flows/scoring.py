"""Flows that make reports of images: score a batch against a bank, and decide anew about a finished report."""

from __future__ import annotations

from prefect import flow

import dn2
import tasks.steps as step
from dn2.config import ScoreConfig
from dn2.records import BankVersion, Embedded, Report, ScoredShard
from dn2.reports.export import check_target
from dn2.scoring.score import bank_loads, check_comparable, finished_report, gather, scores_folder
from flows.artifacts import show_report
from flows.events import tell_report
from flows.images import embed_source, ranges
from flows.parameters import BatchParameters, RethresholdParameters, ScoreParameters
from flows.watched import watched


@flow(name="score")
def score(parameters: ScoreParameters) -> Report:
    """Embed a batch as the bank was embedded, score it, and write the report."""
    if parameters.out is not None:
        check_target(parameters.out, parameters.store)
    with watched():
        bank = step.open_bank(parameters.store, parameters.bank)
        report = score_embedded(embed_source(parameters, bank), bank, parameters)
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


@flow(name="rethreshold")
def rethreshold(parameters: RethresholdParameters) -> Report:
    """Write the report that scoring with other settings would have written; nothing is embedded or searched."""
    with watched():
        old = step.open_report(parameters.report, parameters.store)
        out = old.copy if parameters.out is None else parameters.out
        if out is not None:
            check_target(out, old.store)
        report = step.report(old.scored, old.store, old.bank, _changed(old.config, parameters))
        if out is not None:
            step.export(report, old.store, out)
        show_report(report, old.store, parameters.tell)
    return report


def _changed(config: ScoreConfig, parameters: RethresholdParameters) -> ScoreConfig:
    """Return the settings of a report with those that are to change."""
    given = {name: getattr(parameters, name) for name in ("threshold", "false_discovery_rate")}
    return config.model_copy(update={name: value for name, value in given.items() if value is not None})
