"""Pool the groups of a batch, compare them with the normal ones, and decide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import false_discovery_control

from dn2.config import GroupScoreConfig
from dn2.groups.bank import GroupBank, group_keys
from dn2.groups.distinct import Distinct
from dn2.groups.grouping import Grouping
from dn2.groups.pooling import Totals, check_group_memory
from dn2.neighbors.products import Neighbors
from dn2.progress import advance
from dn2.records import Embedded
from dn2.scoring.rows import image_vectors
from dn2.scoring.scores import mean_distance
from dn2.store.storage import Store


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """What was found out about the S scored ones of G groups.

    Attributes:
        scored: (G,) bool.
        sizes: (S,) float64, how many independent images each counts as; all its images in banks that count every one.
        reasons: G, why a group is not scored; None where it is.
        vectors: (S, P) float16.
        neighbors: the nearest normal groups.
        distances: (S,) float32, mean squared distances to them.
        scores: (S,) float32, over those of typical normal groups of the same size.
        p_values: (S,) float64.
        q_values: (S,) float64, adjusted to the whole batch (Benjamini and Hochberg 1995).
        thresholds: (S,) float32, each for the group's size.
        promised: the false-alarm rate that the thresholds can promise.
        calibration_rows: normal groups (in older banks: parts of them) that the p-values rest on, at the size where
            they are fewest.
    """

    scored: npt.NDArray[np.bool_]
    sizes: npt.NDArray[np.float64]
    reasons: list[str | None]
    vectors: npt.NDArray[np.float16]
    neighbors: Neighbors
    distances: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    p_values: npt.NDArray[np.float64]
    q_values: npt.NDArray[np.float64]
    thresholds: npt.NDArray[np.float32]
    promised: float
    calibration_rows: int

    @property
    def anomalous(self) -> npt.NDArray[np.bool_]:
        """(S,) bool."""
        return self.scores > self.thresholds

    def places(self, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return (M,) int64: the place of each group among the scored ones; -1 where it is not one of them.

        Args:
            groups: (M,) int64 numbers of groups; below zero is none.
        """
        return _places(self.scored, groups)


def judge(embedded: Embedded, store: Store, bank: GroupBank, grouping: Grouping, config: GroupScoreConfig) -> Verdicts:
    """Return what a bank says about the groups of a batch.

    Raises:
        BankError: they need more memory than allowed.
    """
    keys = group_keys(embedded.dataset.source, grouping.group_ids, grouping.contents)
    reasons = _reasons(bank, grouping, keys)
    scored = np.fromiter((reason is None for reason in reasons), bool, len(reasons))
    vectors = _pooled(embedded, store, bank, grouping, scored, config)
    sizes, near = grouping.members[scored].astype(np.float64), bank.record.near
    if near is not None:
        sizes = Distinct(embedded, store, grouping, scored, near, memory_gb=config.group_memory_gb).sizes[scored]
    neighbors = bank.search(vectors, keys[:, scored], memory_mb=config.search_memory_mb)
    distances = mean_distance(neighbors.distances)
    scores = bank.sizes.scores(distances, sizes)
    p_values = bank.sizes.p_values(scores, sizes)
    thresholds, promised = bank.sizes.thresholds(sizes, config.false_alarm_rate or bank.record.false_alarm_rate)
    return Verdicts(
        scored=scored,
        sizes=sizes,
        reasons=reasons,
        vectors=vectors,
        neighbors=neighbors,
        distances=distances,
        scores=scores,
        p_values=p_values,
        q_values=false_discovery_control(p_values) if len(p_values) else p_values,
        thresholds=thresholds,
        promised=max(promised, 1 / (bank.record.groups + 1)),
        calibration_rows=bank.sizes.fewest(sizes),
    )


def _reasons(bank: GroupBank, grouping: Grouping, keys: npt.NDArray[np.int64]) -> list[str | None]:
    """Return for each group why it cannot be scored; None where it can."""
    record, reasons = bank.record, []
    for members, left in zip(grouping.members, bank.left(keys), strict=True):
        reason = None
        if members < record.min_size:
            reason = f"{members} readable images, expected at least {record.min_size}"
        elif record.pooling == "concat" and members != record.sizes[0]:
            reason = f"{members} readable images, expected {record.sizes[0]}: the bank's pooling is concat"
        elif left < record.k:
            reason = f"{left} normal groups are neither itself nor a copy of it, expected at least k = {record.k}"
        reasons.append(reason)
    return reasons


def _places(scored: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    number = np.where(scored, np.cumsum(scored) - 1, -1)
    found, mine = np.full(len(groups), -1, np.int64), groups >= 0
    found[mine] = number[groups[mine]]
    return found


def _pooled(
    embedded: Embedded,
    store: Store,
    bank: GroupBank,
    grouping: Grouping,
    scored: npt.NDArray[np.bool_],
    config: GroupScoreConfig,
) -> npt.NDArray[np.float16]:
    """Return (S, P) float16."""
    dim, places = bank.record.dim, 1
    if bank.record.pooling == "concat":
        places = bank.record.sizes[0]
        dim //= places
    check_group_memory(int(scored.sum()), places * dim, config.group_memory_gb)
    totals = Totals(int(scored.sum()), dim, places=places)
    for vectors, groups, readable in zip(
        image_vectors(embedded, store), grouping.group_of, grouping.readable, strict=True
    ):
        totals.add(_places(scored, groups[readable]), bank.pooling.features(vectors))
        advance("pool", len(vectors), total=embedded.embedded)
    return totals.vectors()
