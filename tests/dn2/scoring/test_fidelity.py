from __future__ import annotations

import numpy as np
import pytest

from dn2.neighbors.products import Neighbors
from dn2.scoring.fidelity import fidelity


def neighbors(distances: list[list[float]]) -> Neighbors:
    found = np.array(distances, np.float32)
    return Neighbors(np.zeros(found.shape, np.int64), found)


def test_nothing_is_lost_where_the_same_is_found():
    same = neighbors([[1, 2], [3, 4], [5, 9]])

    found = fidelity(same, same, 0.25)

    assert (found.images, found.recall, found.score_error, found.flipped) == (3, 1.0, 0.0, 0)
    assert found.rank_correlation == pytest.approx(1)


def test_misses_errors_ranks_and_flips_are_counted():
    """The second image misses one of its two; its score rises from 3 to 6, above that of the third."""
    true = neighbors([[1, 1], [2, 4], [4, 6], [0, 1]])
    found = neighbors([[1, 1], [2, 10], [4, 6], [0, 1]])

    measured = fidelity(found, true, 0.4)

    assert measured.recall == 7 / 8
    assert measured.score_error == pytest.approx((6 - 3) / 3 / 4)
    assert measured.rank_correlation == pytest.approx(0.8)
    assert (
        measured.flipped == 2
    )  # the largest of four is not above: it is the second instead of the third, which is above no more


def test_copy_at_the_distance_of_the_last_one_is_no_miss():
    assert fidelity(neighbors([[1, 2]]), neighbors([[1, 2]]), 0.1).recall == 1
    assert fidelity(neighbors([[1, 2]]), neighbors([[1, 1]]), 0.1).recall == 0.5


def test_centres_have_no_recall():
    assert fidelity(neighbors([[3], [5]]), neighbors([[1, 2], [2, 3]]), 0.1, centres=True).recall is None


def test_equal_scores_and_zero_distances_give_numbers_all_the_same():
    zero, one = neighbors([[0], [0]]), neighbors([[1], [1]])

    assert fidelity(zero, zero, 0.1).rank_correlation == 1
    assert fidelity(one, zero, 0.1).rank_correlation == 0
    assert fidelity(one, zero, 0.1).score_error == 0
