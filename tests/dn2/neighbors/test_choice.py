from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dn2.errors import BankError
from dn2.neighbors.build import usual_nlist
from dn2.neighbors.choice import building, choose_index, needed_gb, visiting


@given(st.integers(1, 10**8), st.integers(1, 10**7))
def test_auto_takes_cells_only_where_they_save_a_fifth_of_the_work(rows: int, expected: int):
    choice = choose_index(rows, 8, expected_queries=expected, budget_gb=1e6)

    cells = usual_nlist(rows)
    saves = building(rows, cells) + expected * visiting(rows, cells) < 0.8 * expected * rows
    assert (choice.index.name, choice.nlist) == (("ivf", cells) if saves else ("exact", 0))


@pytest.mark.parametrize(
    ("rows", "expected", "index"),
    [
        (10, 10**9, "exact"),
        (1000, 10**9, "exact"),
        (100_000, 1000, "exact"),
        (100_000, 100_000, "ivf"),
        (1_000_000, 1000, "exact"),
        (1_000_000, 100_000, "ivf"),
    ],
)
def test_large_banks_that_are_asked_often_get_cells(rows: int, expected: int, index: str):
    choice = choose_index(rows, 1280, expected_queries=expected)

    assert choice.index.name == index
    assert f"to score {expected:,} images" in choice.why


@given(st.integers(1, 10**8), st.integers(1, 10**6))
def test_more_images_to_score_never_speak_against_cells(rows: int, expected: int):
    fewer, more = (
        choose_index(rows, 8, expected_queries=n, budget_gb=1e6).index.name for n in (expected, 2 * expected)
    )

    assert (fewer, more) != ("ivf", "exact")


def test_what_is_asked_for_is_taken():
    assert [choose_index(5000, 8, index=kind).index.name for kind in ("exact", "ivf", "centroids")] == [
        "exact",
        "ivf",
        "centroids",
    ]
    assert choose_index(5000, 8, index="ivf", nlist=7).nlist == 7
    assert choose_index(5, 8, index="ivf", nlist=7).nlist == 5
    assert choose_index(5, 8, index="centroids", centroids=100).nlist == 5


def test_memory_is_that_of_vectors_ids_and_cells():
    exact, cells = (choose_index(1_000_000, 1280, index=kind) for kind in ("exact", "ivf"))

    assert exact.memory_gb == pytest.approx(1_000_000 * (2 * 1280 + 300) / 2**30)
    assert cells.memory_gb - exact.memory_gb == pytest.approx(4000 * 1280 * 4 / 2**30)
    assert choose_index(1_000_000, 1280, index="centroids").memory_gb == needed_gb(100, 1280)


def test_bank_over_budget_is_refused_with_numbers_and_what_to_change():
    with pytest.raises(
        BankError,
        match=r"bank of 5000000 rows: index exact needs 13\.32 GiB, expected at most "
        r"bank_memory_gb = 8; raise it, set segment_rows to at most 3003473, or use index centroids",
    ):
        choose_index(5_000_000, 1280, index="exact")
    assert choose_index(5_000_000, 1280, index="exact", segment_rows=3_003_473).memory_gb == pytest.approx(8, abs=1e-5)
    assert choose_index(5_000_000, 1280, index="centroids").index.name == "centroids"
