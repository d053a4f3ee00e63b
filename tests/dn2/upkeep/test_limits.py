"""What is old, and what is too much: never anything of the last day."""

from __future__ import annotations

import pytest

from dn2.upkeep.limits import DAY, Limits

NOW = 100 * DAY
THINGS = [("week", NOW - 7 * DAY), ("hour", NOW - DAY / 24), ("month", NOW - 30 * DAY), ("days", NOW - 2 * DAY)]


@pytest.mark.parametrize(
    ("reports", "age", "expected"),
    [
        (None, None, set()),
        (0, None, {"days", "week", "month"}),
        (1, None, {"days", "week", "month"}),
        (2, None, {"week", "month"}),
        (4, None, set()),
        (None, 0, {"days", "week", "month"}),
        (None, 7.5, {"month"}),
        (3, 1.5, {"days", "week", "month"}),
        (3, 100, {"month"}),
    ],
)
def test_too_many_or_too_old_but_never_of_the_last_day(reports: int | None, age: float | None, expected: set[str]):
    assert Limits(reports, age, NOW).beyond(THINGS) == expected


def test_a_day_ends_after_a_day():
    limits = Limits(0, 0, NOW)
    assert limits.beyond([("young", NOW - DAY), ("old", NOW - DAY - 1)]) == {"old"}


def test_what_has_no_time_is_never_old():
    assert Limits(0, 0, NOW).beyond([("unknown", float("inf"))]) == set()
    assert not Limits(0, 0, NOW).old(None)
