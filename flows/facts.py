"""What is said of things in words, the same on the command line and on Prefect's pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dn2.errors import Dn2Error
from dn2.neighbors.index import index_of

if TYPE_CHECKING:  # `dn2 --help` has nothing to tell of
    from dn2.records import Anomalies, AnyBank, AnyReport, BankVersion, Growth, Size


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


def doubts_in_words(made: AnyReport | AnyBank) -> list[str]:
    """Return what makes a report or a bank doubtful, each with its code, if an older dn2 has not left it out."""
    told = [f"{doubt.message} [{doubt.code}]" for doubt in made.doubts]
    return told or list(getattr(made, "warnings", ()))


def index_in_words(bank: BankVersion) -> str:
    """Return which index a bank has, and why."""
    words = [bank.index]
    if size := index_of(bank.index).size(bank):
        words.append(size)
    if bank.segment_count > 1:
        words.append(f"{bank.segment_count:,} segments")
    return ", ".join(words) + (f": {bank.why}" if bank.why else "")


def fidelity_in_words(bank: BankVersion) -> str | None:
    """Return how much a bank's index differs from exact search; None where it is exact."""
    if bank.fidelity is None:
        return None
    found, held_out = bank.fidelity, bank.calibration == "held-out"
    measured = "images that are not in the bank" if held_out else "images of the bank, each without itself"
    recall = "" if found.recall is None else f"recall {found.recall:.3f}, "
    return (
        f"on {found.images:,} {measured}: {recall}rank correlation {found.rank_correlation:.4f}, scores off by "
        f"{found.score_error:.2%} on average, {many(found.flipped, 'decision')} flipped"
    )


def copies_in_words(bank: BankVersion) -> str | None:
    """Return how many images a bank holds again; None if there are none."""
    if not bank.copies:
        return None
    return f"{many(bank.copies, 'image')} {'has' if bank.copies == 1 else 'have'} the same bytes as another one"


def additions_in_words(growth: Growth) -> str:
    """Return what became of each image that was to be added."""
    chosen = growth.flagged + growth.passed
    return (
        f"{many(growth.added, 'image')} added, {growth.held_out:,} held out for calibration, {growth.known:,} known "
        f"already, {growth.copies:,} {'copy' if growth.copies == 1 else 'copies'} not added, "
        f"{growth.rejected:,} rejected"
        + (f"; {growth.flagged:,} flagged and {growth.passed:,} passed before do not calibrate" if chosen else "")
        + (f"; {many(growth.anomalies, 'kept anomaly', 'kept anomalies')} left out" if growth.anomalies else "")
    )


def anomalies_in_words(found: Anomalies) -> str:
    """Return how many of the confirmed anomalies of a bank are above its threshold."""
    missing = f", {found.missing:,} not embedded" if found.missing else ""
    return f"{found.found:,} of {found.scored:,} kept anomalies are above the threshold{missing}"


def size_in_words(size: Size) -> str:
    """Return how much something takes."""
    return f"{many(size.files, 'file')}, {bytes_in_words(size.bytes)}"


def bytes_in_words(count: int) -> str:
    """Return a number of bytes with three digits, in units of a thousand."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5:
            return many(count, "byte") if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.4g} TB"


def many(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a number of things."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"
