"""What is said of banks and reports in words, the same on the command line and on Prefect's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dn2.neighbors.index import index_of
from dn2.words import bytes_in_words, many

if TYPE_CHECKING:  # `dn2 --help` has nothing to tell of
    from dn2.records import Anomalies, AnyBank, AnyReport, BankVersion, Growth, Size


def doubts(made: AnyReport | AnyBank) -> list[str]:
    """Return what makes a report or a bank doubtful, each with its code, if an older dn2 has not left it out."""
    told = [f"{doubt.message} [{doubt.code}]" for doubt in made.doubts]
    return told or list(getattr(made, "warnings", ()))


def index(bank: BankVersion) -> str:
    """Return which index a bank has, and why."""
    words = [bank.index]
    if size := index_of(bank.index).size(bank):
        words.append(size)
    if bank.segment_count > 1:
        words.append(f"{bank.segment_count:,} segments")
    return ", ".join(words) + (f": {bank.why}" if bank.why else "")


def fidelity(bank: BankVersion) -> str | None:
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


def copies(bank: BankVersion) -> str | None:
    """Return how many images a bank holds again; None if there are none."""
    if not bank.copies:
        return None
    return f"{many(bank.copies, 'image')} {'has' if bank.copies == 1 else 'have'} the same bytes as another one"


def additions(growth: Growth) -> str:
    """Return what became of each image that was to be added."""
    chosen = growth.flagged + growth.passed
    return (
        f"{many(growth.added, 'image')} added, {growth.held_out:,} held out for calibration, {growth.known:,} known "
        f"already, {growth.copies:,} {'copy' if growth.copies == 1 else 'copies'} not added, "
        f"{growth.rejected:,} rejected"
        + (f"; {growth.flagged:,} flagged and {growth.passed:,} passed before do not calibrate" if chosen else "")
        + (f"; {many(growth.anomalies, 'kept anomaly', 'kept anomalies')} left out" if growth.anomalies else "")
    )


def anomalies(found: Anomalies) -> str:
    """Return how many of the confirmed anomalies of a bank are above its threshold."""
    missing = f", {found.missing:,} not embedded" if found.missing else ""
    return f"{found.found:,} of {found.scored:,} kept anomalies are above the threshold{missing}"


def size(found: Size) -> str:
    """Return how much something takes."""
    return f"{many(found.files, 'file')}, {bytes_in_words(found.bytes)}"
