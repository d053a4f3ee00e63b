"""Flows that make reports of images: score a batch against a bank, and decide anew about a finished report."""

from __future__ import annotations

from prefect import flow

import tasks.steps as step
from dn2.config import ScoreConfig
from dn2.records import BankVersion, Embedded, Report, ScoredShard
from dn2.reports.export import check_target
from dn2.scoring.plan import plan_scoring
from flows.artifacts import display_report
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
        display_report(report, parameters.store, parameters.tell)
        tell_report(report, parameters.store, parameters.tell)
    return report


def score_embedded(embedded: Embedded, bank: BankVersion, parameters: BatchParameters) -> Report:
    """Return the batch's report, from the store if it is finished already."""
    store, config = parameters.store, parameters.score
    plan = plan_scoring(embedded, store, bank, config)
    if plan.report is not None:
        return plan.report
    searches = [  # the bank is larger than memory: whoever takes a task opens some of its segments
        step.search.submit(plan.searches[run.start : run.stop], store, bank, config, folder=plan.folder, number=number)
        for number, run in enumerate(ranges(len(plan.searches)))
    ]
    for search in searches:
        search.result()
    parts: list[ScoredShard] = []
    for number, run in enumerate(ranges(len(plan.shards))):
        mine = plan.shards[run.start : run.stop]
        parts += step.score(mine, store, bank, config, folder=plan.folder, number=number, total=plan.total)
    return step.report(plan.gather(parts), store, bank, config)


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
        display_report(report, old.store, parameters.tell)
    return report


def _changed(config: ScoreConfig, parameters: RethresholdParameters) -> ScoreConfig:
    """Return the settings of a report with those that are to change."""
    given = {name: getattr(parameters, name) for name in ("threshold", "false_discovery_rate")}
    return config.model_copy(update={name: value for name, value in given.items() if value is not None})
