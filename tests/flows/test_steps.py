from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flows.images import MOST_TASKS, ranges


@given(st.integers(0, 100_000), st.integers(1, 300))
def test_ranges_hold_every_shard_once_in_order_and_evenly(count: int, most: int):
    runs = ranges(count, most=most)
    assert [place for run in runs for place in run] == list(range(count))
    assert len(runs) == min(count, most)
    sizes = [len(run) for run in runs]
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert 0 not in sizes


def test_a_hundred_task_runs_are_the_most():
    assert [len(ranges(count)) for count in (0, 1, 99, 100, 101, 5000)] == [0, 1, 99, 100, 100, MOST_TASKS]
