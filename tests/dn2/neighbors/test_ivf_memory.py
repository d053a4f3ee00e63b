"""Neither memory, nor batches, nor how cells are read changes what is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dn2.neighbors import ivf
from dn2.neighbors.ivf import search
from tests.dn2.neighbors.celled import (
    HALF,
    asked,
    assert_same,
    expected,
    real_like,
)


@pytest.mark.parametrize("nprobe", [1, 4, 20])
def test_memory_does_not_change_the_result(nprobe: int):
    rows, cells = real_like()
    queries, query_keys = asked(400)
    whole = search(queries, rows, cells, 6, nprobe=nprobe, query_keys=query_keys, memory_mb=4096)

    pieces = search(queries, rows, cells, 6, nprobe=nprobe, query_keys=query_keys, memory_mb=1)

    assert_same(pieces, whole)


def test_less_memory_takes_fewer_queries_at_a_time(monkeypatch: pytest.MonkeyPatch):
    rows, cells = real_like()
    batches, whole = [], ivf._search
    monkeypatch.setattr(ivf, "_search", lambda queries, *rest: (batches.append(len(queries)), whole(queries, *rest))[1])

    search(asked(400)[0], rows, cells, 6, nprobe=4, memory_mb=4096)
    search(asked(400)[0], rows, cells, 6, nprobe=4, memory_mb=1)

    assert batches[0] == sum(batches[1:]) == 400
    assert 1 < max(batches[1:]) < 100


def test_memory_for_less_than_one_query_takes_one_at_a_time(monkeypatch: pytest.MonkeyPatch):
    rows, cells = real_like()
    queries, query_keys = asked(12)
    monkeypatch.setattr(ivf, "_ROWS", 2**20)

    found = search(queries, rows, cells, 6, nprobe=4, query_keys=query_keys, memory_mb=1)

    assert_same(found, expected(queries, rows, cells, 6, 4, query_keys))


@pytest.mark.parametrize("size", [1, 2, 19, 44, 45])
def test_query_batch_does_not_change_the_result(size: int):
    rows, cells = real_like(900)
    queries, query_keys = asked(45)
    whole = search(queries, rows, cells, 3, nprobe=2, query_keys=query_keys)

    pieces = [
        search(queries[low : low + size], rows, cells, 3, nprobe=2, query_keys=query_keys[:, low : low + size])
        for low in range(0, len(queries), size)
    ]

    np.testing.assert_array_equal(np.concatenate([piece.rows for piece in pieces]), whole.rows)
    np.testing.assert_array_equal(np.concatenate([piece.distances for piece in pieces]), whole.distances)


@pytest.mark.parametrize("rows_at_once", [1, 3, 13, 64, 500])
@pytest.mark.parametrize("nprobe", [1, 4])
def test_parts_of_large_cells_do_not_change_the_result(nprobe: int, rows_at_once: int, monkeypatch: pytest.MonkeyPatch):
    rows, cells = real_like(1500, cells=4)
    queries, query_keys = asked(40)
    whole = search(queries, rows, cells, 7, nprobe=nprobe, query_keys=query_keys)
    assert np.diff(cells.starts).max() > 500

    monkeypatch.setattr(ivf, "_ROWS", rows_at_once)
    pieces = search(queries, rows, cells, 7, nprobe=nprobe, query_keys=query_keys)

    assert_same(pieces, whole)


def test_no_queries_find_nothing():
    rows, cells = real_like(300)

    found = search(np.empty((0, 24), HALF), rows, cells, 2, nprobe=3, query_keys=np.empty((2, 0), np.int64))

    assert (found.rows.shape, found.distances.shape) == ((0, 2), (0, 2))
    assert (found.rows.dtype, found.distances.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("mode", ["c", "r"])
def test_memory_mapped_bank_is_searched_where_it_lies(mode: str, tmp_path: Path):
    rows, cells = real_like(500)
    queries, query_keys = asked(9)
    np.save(tmp_path / "bank.npy", rows.vectors)
    np.save(tmp_path / "gone.npy", rows.gone)
    before = (tmp_path / "bank.npy").read_bytes()
    mapped = replace(
        rows,
        vectors=np.load(tmp_path / "bank.npy", mmap_mode=mode),
        gone=np.load(tmp_path / "gone.npy", mmap_mode=mode),
    )

    found = search(queries, mapped, cells, 3, nprobe=4, query_keys=query_keys)

    assert_same(found, expected(queries, rows, cells, 3, 4, query_keys))
    np.testing.assert_array_equal(mapped.vectors, rows.vectors)
    assert (tmp_path / "bank.npy").read_bytes() == before


def test_search_leaves_its_arguments_as_they_were():
    rows, cells = real_like(500)
    queries, query_keys = asked(9)
    given_to_it = [queries, query_keys, rows.vectors, rows.keys, rows.gone, cells.centroids, cells.starts]
    before = [part.copy() for part in given_to_it]

    search(queries, rows, cells, 3, nprobe=4, query_keys=query_keys)

    for part, copy in zip(given_to_it, before, strict=True):
        np.testing.assert_array_equal(part, copy)
