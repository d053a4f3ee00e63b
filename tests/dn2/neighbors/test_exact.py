from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dn2.errors import BankError
from dn2.neighbors import exact, products
from dn2.neighbors.exact import search
from tests.dn2.neighbors.oracle import brute_force

HALF = np.float16
# few different values make many equal distances; the extremes make large norms with tiny differences
VALUES = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 65504.0, 65472.0, -65504.0, 6e-8]),
    st.floats(-65504, 65504, width=16),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Some queries, a bank of at most 60 rows drawn from few, some of them the queries themselves, and any k."""
    dim = draw(st.integers(1, 9))
    different = draw(arrays(HALF, (draw(st.integers(1, 12)), dim), elements=VALUES))
    numbers = draw(st.lists(st.integers(0, len(different) - 1), min_size=1, max_size=60))
    bank = different[numbers]
    queries = np.concatenate([different, draw(arrays(HALF, (draw(st.integers(0, 5)), dim), elements=VALUES))])
    return queries, bank, draw(st.integers(1, len(bank)))


@settings(deadline=None, max_examples=150)
@given(cases())
def test_rows_and_distances_are_those_of_brute_force(case: tuple[np.ndarray, np.ndarray, int]):
    queries, bank, k = case

    found = search(queries, bank, k)

    rows, distances = brute_force(queries, bank, k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.distances, distances)
    assert (found.rows.dtype, found.distances.dtype) == (np.int64, np.float32)


@settings(deadline=None, max_examples=100)
@given(cases(), st.data())
def test_rows_that_share_a_key_are_passed_over(case: tuple[np.ndarray, np.ndarray, int], data: st.DataObject):
    queries, bank, k = case
    key = st.integers(-1, 3)
    query_keys = data.draw(arrays(np.int64, (2, len(queries)), elements=key))
    bank_keys = data.draw(arrays(np.int64, (2, len(bank)), elements=key))
    shared = (query_keys[:, :, None] == bank_keys[:, None]) & (query_keys[:, :, None] != -1)
    left = len(bank) - shared.any(0).sum(1)

    if left.min() < k:
        with pytest.raises(
            BankError, match=f"k: got {k}, expected at most the bank rows that are no copies of the query"
        ):
            search(queries, bank, k, query_keys=query_keys, bank_keys=bank_keys)
        return
    found = search(queries, bank, k, query_keys=query_keys, bank_keys=bank_keys)

    rows, distances = brute_force(queries, bank, k, query_keys, bank_keys)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.distances, distances)


def tight_cluster(count: int, *, seed: int) -> np.ndarray:
    """(count, 96) vectors of length 400 that differ by steps of float16: products in float32 cannot tell them."""
    steps = np.random.default_rng(seed).integers(0, 5, (count, 96)) * 2.0**-5
    return (40 + steps).astype(HALF)


def test_far_from_the_origin_nothing_cancels():
    bank, queries = tight_cluster(3000, seed=0), tight_cluster(20, seed=1)

    found = search(queries, bank, 3)

    rows, distances = brute_force(queries, bank, 3)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.distances, distances)
    assert found.distances.min() > 0


def test_largest_vectors_of_float16_neither_overflow_nor_go_negative():
    bank = np.full((40, 2048), 65504, HALF)
    bank[:20] = -65504
    bank[39, 0] = 65472

    found = search(bank[[39, 0]], bank, 21)

    assert found.rows[0].tolist() == [39, *range(20, 39), 0]
    assert found.distances[0, :2].tolist() == [0.0, 1024.0]
    assert found.distances[0, 20] == pytest.approx(2048 * 131008.0**2, rel=1e-4)
    assert found.distances[1].tolist()[:20] == [0.0] * 20


def test_many_duplicates_at_the_boundary_come_in_row_order():
    """More equal rows than candidates are kept: the first ones are found all the same."""
    random = np.random.default_rng(0)
    bank = np.concatenate([random.normal(size=(50, 16)), np.ones((200, 16)), random.normal(size=(50, 16))]).astype(HALF)

    found = search(np.ones((1, 16), HALF), bank, 30)

    assert found.rows[0].tolist() == list(range(50, 80))
    assert found.distances[0].tolist() == [0.0] * 30


def test_equal_distances_in_another_order_of_summands_are_equal():
    """Permutations of one vector are equally far from zero: rounding while summing must not rank them."""
    random = np.random.default_rng(0)
    vector = random.normal(size=300)
    bank = np.stack([random.permutation(vector) for _ in range(40)]).astype(HALF)

    found = search(np.zeros((1, 300), HALF), bank, 12)

    assert found.rows[0].tolist() == list(range(12))
    assert len(set(found.distances[0].tolist())) == 1


def real_like(count: int, *, seed: int) -> np.ndarray:
    """(count, 64) positive vectors in clusters, some of them exact copies."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(7, 64))
    rows = np.abs(centres[random.integers(0, 7, count)] + 0.2 * random.normal(size=(count, 64))).astype(HALF)
    rows[::10] = rows[0]
    return rows


@pytest.fixture(scope="module")
def large() -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """A bank, queries, and what brute force finds: that takes longer than all the searches."""
    bank, queries = real_like(6000, seed=0), real_like(300, seed=1)
    return bank, queries, brute_force(queries, bank, 5)


@pytest.mark.parametrize("memory_mb", [16, 64, 4096])
def test_memory_does_not_change_the_result(
    large: tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]], memory_mb: int
):
    bank, queries, (rows, distances) = large

    found = search(queries, bank, 5, memory_mb=memory_mb)

    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.distances, distances)


@pytest.mark.parametrize(("queries_at_once", "unsure_at_once", "pairs_at_once"), [(1, 1, 1), (7, 3, 5), (64, 200, 33)])
def test_block_sizes_do_not_change_the_result(
    queries_at_once: int, unsure_at_once: int, pairs_at_once: int, monkeypatch: pytest.MonkeyPatch
):
    bank, queries = real_like(2500, seed=0), real_like(60, seed=1)
    keys = np.arange(60)[None] % 7, np.arange(2500)[None] % 9
    whole = search(queries, bank, 4, query_keys=keys[0], bank_keys=keys[1])

    monkeypatch.setattr(exact, "_QUERIES", queries_at_once)
    monkeypatch.setattr(exact, "_UNSURE", unsure_at_once)
    monkeypatch.setattr(products, "_PAIRS", pairs_at_once)
    pieces = search(queries, bank, 4, query_keys=keys[0], bank_keys=keys[1], memory_mb=16)

    np.testing.assert_array_equal(pieces.rows, whole.rows)
    np.testing.assert_array_equal(pieces.distances, whole.distances)


@pytest.mark.parametrize("size", [1, 2, 19, 20, 21])
def test_query_batch_does_not_change_the_result(size: int):
    bank, queries = real_like(900, seed=0), real_like(45, seed=1)
    whole = search(queries, bank, 3)

    pieces = [search(queries[start : start + size], bank, 3) for start in range(0, len(queries), size)]

    np.testing.assert_array_equal(np.concatenate([piece.rows for piece in pieces]), whole.rows)
    np.testing.assert_array_equal(np.concatenate([piece.distances for piece in pieces]), whole.distances)


def test_memory_mapped_bank_is_searched_where_it_lies(tmp_path):
    bank, queries = real_like(500, seed=0), real_like(9, seed=1)
    np.save(tmp_path / "bank.npy", bank)

    found = search(queries, np.load(tmp_path / "bank.npy", mmap_mode="r"), 3)

    np.testing.assert_array_equal(found.rows, search(queries, bank, 3).rows)


def test_no_queries_find_nothing():
    found = search(np.empty((0, 4), HALF), np.ones((5, 4), HALF), 2)

    assert (found.rows.shape, found.distances.shape) == ((0, 2), (0, 2))


def test_k_above_the_number_of_rows_is_refused_by_name():
    with pytest.raises(BankError, match=r"^k: got 6, expected at most 5, the number of rows in the bank$"):
        search(np.ones((1, 4), HALF), np.ones((5, 4), HALF), 6)


def test_image_is_not_its_own_neighbour_by_id_content_or_group():
    """Row 0 is the query by id, rows 1 and 2 by content, row 3 by group; row 4 looks the same and is none of them."""
    bank = np.ones((6, 4), HALF)
    bank[5] = 3
    bank_keys = np.array([[10, 11, 12, 13, 14, 15], [20, 99, 99, 23, 24, 25], [-1, -1, -1, 30, -1, -1]])
    query_keys = np.array([[10], [99], [30]])

    found = search(np.ones((1, 4), HALF), bank, 2, query_keys=query_keys, bank_keys=bank_keys)

    assert found.rows.tolist() == [[4, 5]]
    assert found.distances.tolist() == [[0.0, 16.0]]


def test_minus_one_is_no_key():
    """Images without a group are not all of one group."""
    bank = np.ones((3, 4), HALF)

    found = search(bank[:1], bank, 3, query_keys=np.array([[-1]]), bank_keys=np.array([[-1, -1, -1]]))

    assert found.rows.tolist() == [[0, 1, 2]]


@pytest.mark.gpu
def test_gpu_finds_the_same():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: this machine cannot test the search on a GPU")
    bank, queries = real_like(3000, seed=0), real_like(50, seed=1)
    keys = np.arange(50)[None] % 7, np.arange(3000)[None] % 9

    here = search(queries, bank, 3, query_keys=keys[0], bank_keys=keys[1])
    there = search(queries, bank, 3, query_keys=keys[0], bank_keys=keys[1], device="cuda")

    np.testing.assert_array_equal(there.rows, here.rows)
    np.testing.assert_array_equal(there.distances, here.distances)
