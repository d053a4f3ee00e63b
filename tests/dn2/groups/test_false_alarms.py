"""How many normal groups are flagged, by size: groups drawn as the normal ones were, never seen before."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import betabinom

import dn2
from dn2.config import GroupFitConfig, GroupScoreConfig
from dn2.groups.bank import GroupBank
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import groups_of, normal_groups, write_groups

SIZES = (3, 10, 30, 100)
NORMAL, NEW = 50, 300  # groups of each size
RATE = 0.05


Scored = tuple[list[dict], list[dict], dict[int, np.ndarray]]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Scored]:
    """Rows of new groups and of the normal ones, by pooling and seed; what two tests ask for is made once."""

    @functools.cache
    def made(pooling: str, seed: int) -> Scored:
        config = GroupFitConfig(pooling=pooling, cells=4, false_alarm_rate=RATE)
        return score(Store.open(tmp_path_factory.mktemp("false-alarms") / "store"), config, seed)

    return made


def score(store: Store, config: GroupFitConfig, seed: int) -> Scored:
    """Return rows of new groups and of the normal ones, and the fewest and most of each size that chance may flag."""
    normal = write_groups(store, normal_groups(SIZES * NORMAL, seed=2 * seed), mixed=False)
    bank = dn2.fit_groups(normal, store, bank="parts", config=config)
    batch = write_groups(store, normal_groups(SIZES * NEW, seed=2 * seed + 1), name="batch", mixed=False)
    shown = GroupScoreConfig(report_groups=0)
    new, known = (groups_of(store, dn2.score_groups(one, store, bank=bank, config=shown)) for one in (batch, normal))
    bands = {}
    for size in SIZES:
        count = GroupBank.open(store, bank).sizes.fewest(np.array([size]))
        above = int((count + 1) * RATE)
        bands[size] = betabinom(NEW, above, count + 1 - above).ppf([0.0005, 0.9995])
    return new, known, bands


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("pooling", ["mean", "histogram"])
def test_normal_groups_of_every_size_are_flagged_as_often_as_asked_for(
    scored: Callable[[str, int], Scored], pooling: str, seed: int
):
    """Within what chance allows in 999 of 1,000 cases."""
    new, _, bands = scored(pooling, seed)

    for size in SIZES:
        flagged = sum(row["is_anomaly"] for row in new if row["members"] == size)
        assert bands[size][0] <= flagged <= bands[size][1], size


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_threshold_for_all_sizes_would_flag_small_groups_instead(scored: Callable[[str, int], Scored], seed: int):
    """The control: distances of the normal groups, each to the others, promise 5 % of all, and keep it for none."""
    new, known, bands = scored("mean", seed)

    threshold = np.quantile([row["distance"] for row in known], 1 - RATE)
    flagged = {size: sum(row["distance"] > threshold for row in new if row["members"] == size) for size in SIZES}
    assert flagged[3] > max(bands[3][1], 2.5 * RATE * NEW)
    assert flagged[30] == flagged[100] == 0
