"""What is old, what is too much, and what is unused for it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from dn2.errors import ConfigError
from dn2.records import Size

DAY = 24 * 3600.0  # seconds after which no run that is under way can depend on a file
KINDS = {
    "embedders": "embedders that no bank uses",
    "shards": "shards of manifest parts that were merged or are gone",
    "vanished": "shards whose images have all vanished",
    "parts": "manifest parts that were merged",
    "marks": "marks of manifest parts that were merged or are gone",
    "reports": "reports",
    "scores": "scores that no report uses",
    "cleanings": "cleanings that no bank uses",
    "rejects": "lists of rejects",
    "unfinished": "unfinished files of runs that were killed",
}  # in this order they are deleted


@dataclass(frozen=True, slots=True)
class Unused:
    """Something that is unused.

    Attributes:
        kind: a key of KINDS.
        path: a file, or a folder.
        size: what it takes.
        files: the files to delete, in this order.
        is_folder: the folder goes as well, if nothing else lies in it.
    """

    kind: str
    path: str
    size: Size
    files: tuple[str, ...]
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What is old.

    Attributes:
        reports: of each bank's reports, of the cleanings and of a dataset's lists of rejects, so many stay; None: all.
        age: days after which they go; None: never.
        now: seconds since 1970.
    """

    reports: int | None = None
    age: float | None = None
    now: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        if self.reports is not None and self.reports < 0:
            raise ConfigError(f"reports: got {self.reports}, expected 0 or more reports of each bank to keep")
        if self.age is not None and not self.age >= 0:
            raise ConfigError(f"age: got {self.age}, expected 0 or more days")

    def old(self, modified: float | None) -> bool:
        """Return whether nobody can be at work on a file any more; never where its time is not known."""
        return modified is not None and self.now - modified > DAY

    def beyond(self, things: Iterable[tuple[str, float]]) -> set[str]:
        """Return which of some things, each with its time, are too many or too old; never one that is not `old`."""
        if self.reports is None and self.age is None:
            return set()
        newest_first = sorted(things, key=lambda one: (-one[1], one[0]))
        beyond = {name for name, _ in newest_first[self.reports :]} if self.reports is not None else set()
        if self.age is not None:
            beyond |= {name for name, modified in newest_first if self.now - modified > self.age * DAY}
        return beyond & {name for name, modified in newest_first if self.old(modified)}
