"""Flow: score what is new in each of several sources, as every night."""

from __future__ import annotations

from prefect import flow
from prefect.logging import get_run_logger

from flows.artifacts import show_night
from flows.outcomes import NightError, Outcome, reason
from flows.parameters import NightlyParameters, ScoreNewParameters
from flows.score_new import score_new
from flows.sources import read_sources
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
        show_night(outcomes, file.store, file.tell)
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
