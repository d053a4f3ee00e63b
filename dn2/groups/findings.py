"""All that was found out about the groups of a batch: what its report is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dn2.config import GroupScoreConfig
from dn2.groups.bank import GroupBank
from dn2.groups.grouping import Grouping
from dn2.groups.judge import Verdicts
from dn2.records import Embedded


@dataclass(eq=False)
class Findings:
    """The batch, its groups, and what was found out about them.

    Attributes:
        embedded: the batch.
        bank: what it was compared with.
        grouping: its groups.
        verdicts: what was found out about them.
        explained: for each shard (R,) float32, what each row contributes; nan where its group has no score.
        config: false-discovery rate and the size of the report.
    """

    embedded: Embedded
    bank: GroupBank
    grouping: Grouping
    verdicts: Verdicts
    explained: list[npt.NDArray[np.float32]]
    config: GroupScoreConfig

    @cached_property
    def selected(self) -> npt.NDArray[np.bool_]:
        """(S,) bool, whether the q-value of a scored group is small enough."""
        return self.verdicts.q_values <= self.config.false_discovery_rate

    @cached_property
    def reported(self) -> list[npt.NDArray[np.bool_]]:
        """For each shard (R,) bool, which rows are reported."""
        return [groups != -2 for groups in self.grouping.group_of]

    @cached_property
    def ranks(self) -> list[npt.NDArray[np.int64]]:
        """For each shard (R,) int64, the place of each row in its group: 1 contributes most."""
        groups, values = np.concatenate(self.grouping.group_of), np.concatenate(self.explained)
        order = np.lexsort((-values, groups))  # nan comes last
        _, first, inverse = np.unique(groups[order], return_index=True, return_inverse=True)
        ranks = np.empty(len(groups), np.int64)
        ranks[order] = np.arange(len(groups)) - first[inverse] + 1
        return np.split(ranks, np.cumsum([len(one) for one in self.grouping.group_of])[:-1])
