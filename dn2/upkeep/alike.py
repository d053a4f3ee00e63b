"""How many manifest parts, from the oldest on, can be merged without any work being done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EMPTY, NONE, SOME, ALL = -1, 0, 1, 2


@dataclass(frozen=True, slots=True)
class Alike:
    """Something that must be done for all parts that are merged, or for none of them.

    Attributes:
        why: what is wrong with others, in words.
        states: how much of each part is done (NONE, SOME or ALL), in each of the ways in which it can be done: one
            way must have done all parts, or no way any of them.
        empty: whether each part has no living row: it is as if done, and as if not.
    """

    why: str
    states: Sequence[Sequence[int]]
    empty: Sequence[bool]

    def holds(self, count: int) -> bool:
        """Return whether the first `count` parts are alike."""
        told = [
            [state for state, empty in zip(way[:count], self.empty, strict=False) if not empty] for way in self.states
        ]
        return any(all(state == ALL for state in way) for way in told) or not any(any(way) for way in told)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is merged.

    Attributes:
        count: so many parts, from the oldest on.
        notes: why not more.
    """

    count: int
    notes: tuple[str, ...] = ()


def longest_prefix(rules: Sequence[Alike], parts: Sequence[str]) -> Chosen:
    """Return how many parts, from the oldest on, are alike by every rule."""
    count = len(parts)
    while count > 1 and not all(rule.holds(count) for rule in rules):
        count -= 1
    if count == len(parts):
        return Chosen(count)
    reasons = "; ".join(rule.why for rule in rules if not rule.holds(count + 1))
    rest = parts[count] if count > 1 else parts[0]
    return Chosen(count, (f"the manifest parts from {rest} on were not merged: {reasons}",))
