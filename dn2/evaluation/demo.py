"""The figures of the demo: how a report compares with what is known about its pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from dn2.evaluation.bricks import KINDS, kind_of
from dn2.evaluation.metrics import roc_auc
from dn2.records import Report
from dn2.store.schemas import REPORT
from dn2.store.storage import Store
from dn2.store.tables import read_table


@dataclass(frozen=True, slots=True)
class DemoFigures:
    """What the demo reached.

    Attributes:
        roc_auc: all anomalies against the normal images of the batch, 0 to 1.
        roc_auc_by_kind: each kind alone against them.
        recall_by_kind: share of each kind above the threshold.
        false_alarm_rate: share of normal images above the threshold.
        counts: images by kind.
    """

    roc_auc: float
    roc_auc_by_kind: dict[str, float]
    recall_by_kind: dict[str, float]
    false_alarm_rate: float
    counts: dict[str, int]


def evaluate(report: Report, store: str | os.PathLike[str] | Store) -> DemoFigures:
    """Compare a report of the demo's batch with the kinds in its file names."""
    store = Store.open(store)
    folder = report.uri.removeprefix(f"{store.uri}/")
    rows = [
        row
        for name in store.names(folder)
        if name.startswith("part-")
        for row in read_table(store, f"{folder}/{name}", REPORT, ["uri", "score", "is_anomaly"]).to_pylist()
    ]
    kinds = [kind_of(row["uri"]) for row in rows]
    readable = [row for row in rows if row["score"] is not None]
    kind = np.array([kind_of(row["uri"]) for row in readable])
    scores = np.array([row["score"] for row in readable])
    flagged = np.array([row["is_anomaly"] for row in readable])
    good = kind == "good"
    return DemoFigures(
        roc_auc=roc_auc(scores, ~good),
        roc_auc_by_kind={
            name: roc_auc(scores[good | (kind == name)], kind[good | (kind == name)] == name) for name in KINDS
        },
        recall_by_kind={name: float(flagged[kind == name].mean()) for name in KINDS},
        false_alarm_rate=float(flagged[good].mean()),
        counts={name: kinds.count(name) for name in ("good", *KINDS, "broken")},
    )
