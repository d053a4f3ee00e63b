"""Flow: change the threshold or the selection of a finished report."""

from __future__ import annotations

from prefect import flow

import tasks.steps as step
from dn2.config import ScoreConfig
from dn2.records import Report
from dn2.reports.export import check_target
from flows.artifacts import show_report
from flows.parameters import RethresholdParameters
from flows.watched import watched


@flow(name="rethreshold")
def rethreshold(parameters: RethresholdParameters) -> Report:
    """Write the report that scoring with other settings would have written; nothing is embedded or searched."""
    with watched():
        old = step.open_report(parameters.report, parameters.store)
        out = old.copy if parameters.out is None else parameters.out
        if out is not None:
            check_target(out, old.store)
        report = step.report(old.scored, old.store, old.bank, changed(old.config, parameters))
        if out is not None:
            step.export(report, old.store, out)
        show_report(report, old.store, parameters.tell)
    return report


def changed(config: ScoreConfig, parameters: RethresholdParameters) -> ScoreConfig:
    """Return the settings of a report with those that are to change."""
    given = {name: getattr(parameters, name) for name in ("threshold", "false_discovery_rate")}
    return config.model_copy(update={name: value for name, value in given.items() if value is not None})
