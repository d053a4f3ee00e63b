"""How a batch differs from the normal images of its bank, apart from its anomalies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

_BURSTS = 0.8  # units for each image
Verdict = Literal["steady", "anomalies", "kind", "moved"]


@dataclass(frozen=True, slots=True)
class Drift:
    """What the whole of a batch says of the bank it was compared with.

    Attributes:
        verdict: steady; anomalies: more of them than usual, but what is normal is as it was; kind: a tenth of the batch
            or more is one kind of images that the bank does not know; moved: what is normal is not what it was.
        units: images that were looked at, of those that depend on each other one.
        outside: share of them with p <= `level`: about that much is usual.
        kind: share of them that lies among itself, not among normal images; 0 if that may be chance.
        ks: Kolmogorov and Smirnov's distance between the scores inside and those of the calibration there, 0 to 1.
        shift: how far the mean of the images inside has moved, in standard deviations, less what chance makes of it;
            None where the bank has too few images to tell.
        psi: population stability index of the kinds of images inside; likewise.
        levels: how many of them have a p-value in each twentieth from 0 to 1.
        images: of which the units are; 0 in a report of an older dn2.
    """

    verdict: Verdict
    units: int
    outside: float
    kind: float
    ks: float
    shift: float | None = None
    psi: float | None = None
    levels: tuple[int, ...] = ()
    images: int = 0

    level: ClassVar[float] = 0.05  # a p-value up to it is outside

    @property
    def drifted(self) -> bool:
        """Whether the bank no longer stands for what is normal now."""
        return self.verdict in ("kind", "moved")

    @property
    def words(self) -> str:
        """What it means and what to do, in a line or two."""
        return self._of_verdict + self._bursts

    @property
    def _bursts(self) -> str:
        """That the batch has bursts, if a fifth of its images are near copies of others."""
        if self.units > _BURSTS * self.images:
            return ""
        return (
            f"; {self.images:,} images that were looked at are {self.units:,} units: of a burst all images or none are "
            f"flagged and selected"
        )

    @property
    def _of_verdict(self) -> str:
        if self.verdict == "kind":
            share = f"{self.kind:.0%} of the batch"
            return f"a new kind of image makes {share}: if it is normal, add some of it to the bank (dn2 bank add)"
        if self.verdict == "moved":
            return f"the normal has moved ({self.figures}): renew the bank if these images are normal"
        if self.verdict == "anomalies":
            usual = f"where {self.level:.0%} of normal ones do"
            return f"none, but more anomalies than usual: {self.outside:.0%} of the images lie {usual}"
        return f"none ({self.figures})"

    @property
    def figures(self) -> str:
        """The figures in a line."""
        told = [f"{self.outside:.0%} outside", f"scores KS {self.ks:.2f}"]
        told += [] if self.shift is None else [f"mean {self.shift:.2f} sd"]
        told += [] if self.psi is None else [f"kinds PSI {self.psi:.2f}"]
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class PastBatch:
    """A row of a bank's history: a batch that it has scored.

    Attributes:
        report: the report that was made first, relative to the store.
        source: where the batch came from.
        bank: the bank's name.
        version: the bank's version.
        of: what was scored and is counted: images or groups.
        when: when the report was made, in UTC.
        images: images in the batch.
        rejected: of them, images that could not be read.
        scored: images or groups with a score.
        anomalous: of them, those above the threshold.
        selected: of them, those whose q-value is at most the false-discovery rate.
        anomalous_rate: anomalous over scored.
        verdict: of the batch's `Drift`; this and what follows is None where it cannot be told.
        units: its images.
        outside: its share outside.
        kind: its share of a new kind.
        ks: its distance of the scores.
        shift: its shift of the mean.
        psi: its population stability index.
        levels: its p-values, counted.
        recent_batches: batches of this version and source, with this one, that are looked at together.
        recent_ks: Kolmogorov and Smirnov's distance of all their p-values inside to uniform ones.
        stale: whether that is more than chance, and large enough to matter.
    """

    report: str
    source: str
    bank: str
    version: str
    of: str
    when: datetime
    images: int
    rejected: int
    scored: int
    anomalous: int
    selected: int
    anomalous_rate: float
    verdict: str | None = None
    units: int | None = None
    outside: float | None = None
    kind: float | None = None
    ks: float | None = None
    shift: float | None = None
    psi: float | None = None
    levels: tuple[int, ...] | None = None
    recent_batches: int | None = None
    recent_ks: float | None = None
    stale: bool | None = None
