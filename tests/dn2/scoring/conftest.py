from __future__ import annotations

import pytest

from dn2.records import Embedded
from dn2.store.storage import Store
from tests.dn2.scoring.impure import contaminated
from tests.dn2.scoring.synthetic import write_shards


@pytest.fixture
def embedded(store: Store) -> Embedded:
    """Embeddings among which some are anomalies."""
    return write_shards(store, contaminated(), shard_rows=150)
