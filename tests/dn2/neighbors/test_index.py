"""Each index states its traits once; what a finished bank says of itself agrees with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

import dn2
from dn2 import layout
from dn2.config import FitConfig
from dn2.errors import SchemaError
from dn2.neighbors.index import INDEXES, index_of
from dn2.neighbors.segments import Segment
from dn2.neighbors.versions import read_version
from dn2.records import BankVersion
from dn2.store.storage import Store
from tests.dn2.scoring.synthetic import normal_vectors, write_shards


def test_settings_know_the_indexes_that_there_are():
    assert set(get_args(FitConfig.model_fields["index"].annotation)) == {"auto", *INDEXES}
    assert [index_of(name).name for name in INDEXES] == list(INDEXES)


def test_index_of_a_later_dn2_is_refused_by_name():
    with pytest.raises(SchemaError, match=f"index: got 'hnsw', expected one of: {', '.join(INDEXES)}; update dn2"):
        index_of("hnsw")


@pytest.mark.parametrize("name", INDEXES)
def test_bank_is_what_its_index_says(tmp_path: Path, name: str):
    store, index = Store.open(tmp_path), INDEXES[name]
    config = FitConfig(index=name, nlist=4, nprobe=2, centroids=7)
    bank = dn2.fit(write_shards(store, normal_vectors(60, seed=0)), store, bank="parts", config=config)
    _, files = read_version(store, "parts", bank.version, BankVersion)
    (path,) = files.segments
    segment = Segment(store, layout.bank_segment("parts", path))
    held_out = bank.calibration_rows if index.held_out else 0

    assert bank.index == name
    assert (bank.fidelity is None) == index.exact
    assert (segment.divided, segment.centres) == (index.divided, index.centres)
    assert (bank.nprobe > 0) == index.divided
    assert bank.calibration == ("held-out" if index.held_out else "leave-one-out")
    assert bank.images == bank.rows == segment.count == index.rows(60 - held_out, bank.nlist)
    assert bank.things == bank.images


def test_indexes_are_told_in_words(tmp_path: Path):
    store = Store.open(tmp_path)
    bank = dn2.fit(write_shards(store, normal_vectors(60, seed=0)), store, bank="parts")
    several = replace(bank, nlist=4000, nprobe=1, segment_count=2)

    told = [index_of(name) for name in ("exact", "ivf", "centroids")]
    assert [index.size(several) for index in told] == ["", "4,000 cells, 1 visited", "4,000 centres"]
    assert [index.content(several) for index in told] == ["normal images", "normal images", "centres and normal images"]
