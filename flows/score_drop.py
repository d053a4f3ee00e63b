"""Flow: score a drop, a complete delivery of images."""

from __future__ import annotations

from prefect import flow

import tasks.steps as step
from dn2.records import GroupReport, Report
from flows.artifacts import show_nothing_new
from flows.parameters import DropParameters
from flows.score_new import score_new
from flows.watched import watched


@flow(name="score-drop")
def score_drop(parameters: DropParameters) -> Report | GroupReport | None:
    """Score the images of a drop that are not scored yet; a drop that is told twice is scored once."""
    with watched():
        _, report = score_new(parameters)
        if parameters.drop is not None:
            step.mark_drop(parameters.drop, parameters.store, parameters.source, report)
        if report is None:
            show_nothing_new(parameters.source, parameters.bank)
    return report
