from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dn2.store.schemas import EMBEDDINGS, PROBES
from dn2.store.storage import Store
from dn2.store.tables import column_vectors, keep_rows, read_table, vector_column, writing


@settings(deadline=None)
@given(
    valid=st.lists(st.lists(st.booleans(), max_size=6), min_size=1, max_size=5),
    dim=st.integers(1, 5),
    cut=st.integers(0, 8),
)
def test_null_rows_never_shift_the_others(
    valid: list[list[bool]], dim: int, cut: int, tmp_path_factory: pytest.TempPathFactory
):
    """Written piece by piece with nulls anywhere, cut and filtered: each vector still belongs to its row."""
    store = Store.open(tmp_path_factory.mktemp("vectors"))
    row = 0
    with writing(store, "v.parquet", PROBES.with_dim(dim), {}) as file:
        for piece in valid:
            rows = np.arange(row, row + len(piece))
            mask = np.array(piece, bool)
            vectors = np.repeat(rows[:, None], dim, 1).astype(np.float16)
            file.write({"picture": [str(n).encode() for n in rows], "embedding": vector_column(vectors, mask)})
            row += len(piece)
    table = read_table(store, "v.parquet", PROBES)
    flags = np.array([flag for piece in valid for flag in piece], bool)
    assert np.array_equal(flags, column_vectors(table["embedding"])[1])

    odd = np.arange(row) % 2 == 1
    for part in (table, table.slice(cut), keep_rows(table, odd)):
        vectors, mask = column_vectors(part["embedding"])
        numbers = [int(picture) for picture in part["picture"].to_pylist()]
        expected = [number for number, there in zip(numbers, mask, strict=True) if there]
        assert (len(expected), dim) == vectors.shape
        assert np.float16 == vectors.dtype
        assert np.array_equal(np.repeat(np.array(expected, np.float16)[:, None], dim, 1), vectors)
        assert [bool(flags[number]) for number in numbers] == mask.tolist()


def test_values_come_back_to_the_bit():
    vectors = np.array([[0.1, -65504.0], [6e-8, 1.0], [np.float16(1) / 3, 0.0]], np.float16)
    found, valid = column_vectors(pa.chunked_array([vector_column(vectors, np.array([True, False, True]))]))
    assert np.array_equal(vectors[[0, 2]], found)
    assert valid.tolist() == [True, False, True]


def test_vectors_need_not_lie_in_one_piece_of_memory():
    wide = np.arange(12, dtype=np.float16).reshape(2, 6)
    found, _ = column_vectors(pa.chunked_array([vector_column(wide[:, ::2], np.ones(2, bool))]))
    assert found.tolist() == [[0, 2, 4], [6, 8, 10]]


def test_length_of_embeddings_is_part_of_the_file(tmp_path_factory: pytest.TempPathFactory):
    assert pa.list_(pa.float16(), 7) == EMBEDDINGS.with_dim(7).columns.field("embedding").type
    assert EMBEDDINGS.columns.names == EMBEDDINGS.with_dim(7).columns.names
    store = Store.open(tmp_path_factory.mktemp("vectors"))
    with (
        pytest.raises(pa.ArrowException),
        writing(store, "v.parquet", PROBES.with_dim(3), {}) as file,
    ):
        file.write({"picture": [b""], "embedding": vector_column(np.zeros((1, 2), np.float16), np.ones(1, bool))})
    assert not store.exists("v.parquet")
