from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dn2.errors import SchemaError
from dn2.neighbors.vectors import load_vectors, write_vectors
from dn2.store.storage import Store

VECTORS = np.arange(12 * 5, dtype=np.float16).reshape(12, 5)


@given(st.lists(st.integers(0, 12), max_size=4))
@settings(max_examples=20, deadline=None)
def test_blocks_are_read_back_as_one_array(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]):
    store = Store.open(tmp_path_factory.mktemp("store"))
    checksum = write_vectors(store, "v.npy", VECTORS.shape, np.split(VECTORS, sorted(cuts)))
    found = load_vectors(store, "v.npy", checksum)
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, VECTORS)
    assert np.array_equal(np.load(store.local("v.npy")), VECTORS)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-9] + b"x" + b[-8:], lambda b: b + b"x"]
)
def test_damage_is_noticed(tmp_path: Path, damage):
    store = Store.open(tmp_path)
    checksum = write_vectors(store, "v.npy", VECTORS.shape, [VECTORS])
    (tmp_path / "v.npy").write_bytes(damage((tmp_path / "v.npy").read_bytes()))
    with pytest.raises(SchemaError, match=r"v\.npy: got a damaged or missing file, expected vectors with CRC-32"):
        load_vectors(store, "v.npy", checksum)


def test_missing_file_is_noticed(tmp_path: Path):
    with pytest.raises(SchemaError, match="got a damaged or missing file"):
        load_vectors(Store.open(tmp_path), "v.npy", 0)
