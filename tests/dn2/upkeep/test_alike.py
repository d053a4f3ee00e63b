"""How many manifest parts are merged: against the definition, in many random cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dn2.upkeep.alike import ALL, EMPTY, NONE, SOME, Alike, Chosen, longest_prefix


def by_the_book(ways: list[list[int]], count: int) -> bool:
    """Some way has done every part that has images, or no way has done anything of them."""
    cut = [[state for state in way[:count] if state != EMPTY] for way in ways]
    return any(set(way) <= {ALL} for way in cut) or all(set(way) <= {NONE} for way in cut)


@pytest.mark.parametrize("seed", range(20))
def test_prefix_is_the_longest_one_that_every_rule_allows(seed: int):
    random = np.random.default_rng(seed)
    for _ in range(50):
        length = int(random.integers(2, 7))
        empty = list(random.random(length) < 0.2)
        tables = [
            [
                [EMPTY if gone else int(random.choice([NONE, SOME, ALL], p=[0.25, 0.1, 0.65])) for gone in empty]
                for _ in range(int(random.integers(1, 3)))
            ]
            for _ in range(int(random.integers(0, 3)))
        ]
        parts = [f"{number:06d}" for number in range(length)]
        rules = [Alike(f"rule {number}", ways, empty) for number, ways in enumerate(tables)]
        allowed = [n for n in range(2, length + 1) if all(by_the_book(ways, n) for ways in tables)]
        found = longest_prefix(rules, parts)
        assert found.count == max(allowed, default=1)
        assert bool(found.notes) == (found.count < length)


def test_note_says_which_rules_stop_it_and_where():
    rules = [Alike("one", [[ALL, ALL, NONE]], [False] * 3), Alike("two", [[NONE] * 3, [NONE] * 3], [False] * 3)]
    assert longest_prefix(rules, ["a", "b", "c"]) == Chosen(2, ("the manifest parts from c on were not merged: one",))
    assert longest_prefix([], ["a", "b"]) == Chosen(2)


def test_part_without_images_is_as_if_done_and_as_if_not():
    for way in itertools.permutations([ALL, ALL, EMPTY]):
        empty = [state == EMPTY for state in way]
        assert longest_prefix([Alike("", [list(way)], empty)], ["a", "b", "c"]).count == 3
