"""Deliveries of images below a watched prefix."""

from __future__ import annotations

from dataclasses import dataclass

from dn2.layout import DropId


@dataclass(frozen=True, slots=True)
class Drop:
    """A delivery of images below a watched prefix, as a listing shows it.

    Attributes:
        id: 32 hex digits over its URI, the names and versions of its images, and the bank: the same files give the
            same id, and one more file another.
        uri: absolute URI of its folder.
        bank: name of the bank it is to be compared with.
        images: how many it holds.
        marked: whether the file lies in it that says that it is complete.
    """

    id: str
    uri: str
    bank: str
    images: int
    marked: bool


@dataclass(frozen=True, slots=True)
class SeenDrop:
    """What is remembered of a drop between two looks.

    Attributes:
        id: identity of the drop as it was at the last look.
        since: when it was first seen like this (seconds since 1970).
        told: when it was last told to be complete; None if it never was.
        times: how often it was told.
        scored: its report is finished: it is never told again.
    """

    id: DropId
    since: float
    told: float | None = None
    times: int = 0
    scored: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a watched prefix has shown.

    Attributes:
        watch: name of what is remembered about the prefix.
        prefix: its absolute URI.
        drops: all drops there.
        due: those that are complete, not scored, and to be told now.
        remembered: what to remember of each drop, by URI.
        loose: images that lie beside the folders, in no drop.
    """

    watch: str
    prefix: str
    drops: tuple[Drop, ...]
    due: tuple[Drop, ...]
    remembered: dict[str, SeenDrop]
    loose: int
