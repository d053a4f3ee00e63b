"""What became of a night's sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dn2.errors import Dn2Error

if TYPE_CHECKING:  # `dn2 --help` has nothing to tell of
    from dn2.records import AnyReport


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one source: a report, nothing new, or an error.

    Attributes:
        source: absolute URI of the source.
        bank: name of the bank.
        vanished: images that were there the last time and are no longer.
        report: the report of what was new; None if there was nothing, or if it failed.
        error: why it failed; None if it did not.
    """

    source: str
    bank: str
    vanished: int = 0
    report: AnyReport | None = None
    error: str | None = None

    def in_words(self) -> str:
        """Return one line."""
        if self.error is not None:
            return f"failed: {self.error}"
        gone = f"; {self.vanished} images vanished" if self.vanished else ""
        if self.report is None:
            return f"nothing new{gone}"
        what = "new images" if self.report.of == "images" else f"{self.report.of} with new images"
        return f"{self.report.anomalous} of {self.report.scored} {what} are anomalous{gone}"


class NightError(Dn2Error, RuntimeError):
    """One or more sources of a night failed; the others were scored.

    Attributes:
        outcomes: what became of each source, in the order of the file.
    """

    def __init__(self, outcomes: tuple[Outcome, ...]) -> None:
        failed = [one for one in outcomes if one.error is not None]
        reasons = "; ".join(f"{one.source} (bank {one.bank}): {one.error}" for one in failed)
        super().__init__(f"{len(failed)} of {len(outcomes)} sources failed, the others are scored: {reasons}")
        self.outcomes = outcomes


def reason(error: Exception) -> str:
    """Return why something failed, in one line."""
    text = str(error) if isinstance(error, Dn2Error) else f"unexpected {type(error).__name__}: {error}"
    return " ".join(text.split())
