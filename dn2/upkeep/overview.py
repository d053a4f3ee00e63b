"""What a look at a store has shown: small frozen records, each with what is wrong with what it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dn2.records import AnyBank, AnyReport, Cleaning, PastBatch, Pruned, Size
from dn2.records.upkeep import NOTHING


@dataclass(frozen=True, slots=True)
class DatasetOverview:
    """A dataset.

    Attributes:
        name: the dataset's name.
        source: absolute URI of its source.
        split: of a table, only the rows of this split.
        images: images in it, as counted by the last listing that found a change; None where nobody wrote that down.
        parts: manifest parts; none if its first listing has not ended.
        changed: when the last of them was written.
        size: what its manifest parts take, with those that were merged.
        error: why some of this is not known.
    """

    name: str
    source: str | None = None
    split: str | None = None
    images: int | None = None
    parts: int = 0
    changed: datetime | None = None
    size: Size = NOTHING
    error: str | None = None


@dataclass(frozen=True, slots=True)
class EmbedderOverview:
    """An embedder that has embedded anything.

    Attributes:
        name: its id.
        shards: how many shards, of all datasets.
        size: what they take, with thumbnails and probes.
        used_by: versions of banks that it made, each as bank and version.
    """

    name: str
    shards: int = 0
    size: Size = NOTHING
    used_by: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class VersionOverview:
    """A version of a bank.

    Attributes:
        version: its name.
        current: whether the bank points at it.
        written: when it was made.
        parent: the version that was the current one then.
        made: all that it says of itself.
        error: why that is not known.
    """

    version: str
    current: bool = False
    written: datetime | None = None
    parent: str | None = None
    made: AnyBank | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BankOverview:
    """A bank.

    Attributes:
        name: the bank's name.
        kind: images or groups; None where no version says so.
        current: the version that it points at; None if its first training has not ended.
        versions: the last one written first.
        size: what all of them take.
        history: the last batches that it has scored, the last one first.
        error: why some of this is not known.
    """

    name: str
    kind: str | None = None
    current: str | None = None
    versions: tuple[VersionOverview, ...] = ()
    size: Size = NOTHING
    history: tuple[PastBatch, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ReportOverview:
    """A finished report, of images or of groups.

    Attributes:
        uri: absolute URI of its folder.
        written: when it was finished.
        made: all that it says of itself but for the worst images or groups.
        error: why that is not known.
    """

    uri: str
    written: datetime | None = None
    made: AnyReport | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ReportsOverview:
    """The finished reports of a bank.

    Attributes:
        bank: the bank's name.
        count: how many there are.
        newest: some of them, the last one first.
        size: what all of them take.
        scores: what the scores take of which they are made.
        error: why they are not known.
    """

    bank: str
    count: int = 0
    newest: tuple[ReportOverview, ...] = ()
    size: Size = NOTHING
    scores: Size = NOTHING
    error: str | None = None


@dataclass(frozen=True, slots=True)
class CleaningOverview:
    """A finished cleaning.

    Attributes:
        uri: absolute URI of its folder.
        written: when it was finished.
        made: all that it says of itself.
        error: why that is not known.
    """

    uri: str
    written: datetime | None = None
    made: Cleaning | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class CleaningsOverview:
    """The finished cleanings.

    Attributes:
        count: how many there are.
        newest: some of them, the last one first.
        size: what all of them take.
    """

    count: int = 0
    newest: tuple[CleaningOverview, ...] = ()
    size: Size = NOTHING


@dataclass(frozen=True, slots=True)
class Overview:
    """What lies in a store.

    Attributes:
        store: absolute URI of its root.
        datasets: by name.
        banks: by name.
        reports: by the name of their bank.
        cleanings: of all datasets.
        embedders: by name.
        size: of everything.
        stale: what is unused, but for shards of vanished images; None if it is not known.
        stale_error: why it is not known.
    """

    store: str
    datasets: tuple[DatasetOverview, ...]
    banks: tuple[BankOverview, ...]
    reports: tuple[ReportsOverview, ...]
    cleanings: CleaningsOverview
    embedders: tuple[EmbedderOverview, ...] = ()
    size: Size = NOTHING
    stale: Pruned | None = None
    stale_error: str | None = None

    @property
    def errors(self) -> tuple[str, ...]:
        """What could not be read, and why."""
        found = [dataset.error for dataset in self.datasets]
        for bank in self.banks:
            found += [bank.error, *(version.error for version in bank.versions)]
        for reports in self.reports:
            found += [reports.error, *(report.error for report in reports.newest)]
        found += [cleaning.error for cleaning in self.cleanings.newest]
        told = tuple(error for error in found if error is not None)
        return told or (() if self.stale_error is None else (self.stale_error,))  # which is one of those, if any
