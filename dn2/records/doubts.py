"""What makes dn2 doubt its input or its own promise: said with numbers, and with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

SHOWN = 10  # images that a doubt names, at most
_NAMED = 3  # of them in its message


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason not to trust a figure as it stands.

    Attributes:
        code: what it is about, always the same word: its heading in docs/doubts.md.
        message: what was seen, with numbers, and what to do.
        numbers: the same numbers, by name.
        uris: images that it is about, at most ten of them.
    """

    code: str
    message: str
    numbers: dict[str, float] = field(default_factory=dict, hash=False)
    uris: tuple[str, ...] = ()


def texts(doubts: Iterable[Doubt]) -> tuple[str, ...]:
    """Return the messages of some doubts."""
    return tuple(doubt.message for doubt in doubts)


def named(uris: Iterable[str], count: int | None = None) -> str:
    """Return the names of the first of some images, each with its folder, and how many more there are.

    A character that is not printable is written as its code: the names stand in a line of a terminal.

    Args:
        uris: where the images lie.
        count: how many there are in all; by default as many as URIs.
    """
    known = list(uris)
    short = ["/".join(uri.rsplit("/", 2)[-2:]) for uri in known[:_NAMED]]
    more = (len(known) if count is None else count) - len(short)
    plain = ("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in one) for one in short)
    return ", ".join(plain) + (f" and {more:,} more" if more > 0 else "")
