"""What a look at a store has shown: small frozen records, each with what is wrong with what it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dn2.records import BankVersion, Cleaning, GroupBankVersion, GroupReport, Report


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
        error: why some of this is not known.
    """

    name: str
    source: str | None = None
    split: str | None = None
    images: int | None = None
    parts: int = 0
    changed: datetime | None = None
    error: str | None = None


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
    made: BankVersion | GroupBankVersion | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BankOverview:
    """A bank.

    Attributes:
        name: the bank's name.
        kind: images or groups; None where no version says so.
        current: the version that it points at; None if its first training has not ended.
        versions: the last one written first.
        error: why some of this is not known.
    """

    name: str
    kind: str | None = None
    current: str | None = None
    versions: tuple[VersionOverview, ...] = ()
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
    made: Report | GroupReport | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ReportsOverview:
    """The finished reports of a bank.

    Attributes:
        bank: the bank's name.
        count: how many there are.
        newest: some of them, the last one first.
        error: why they are not known.
    """

    bank: str
    count: int = 0
    newest: tuple[ReportOverview, ...] = ()
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
    """

    count: int = 0
    newest: tuple[CleaningOverview, ...] = ()


@dataclass(frozen=True, slots=True)
class Overview:
    """What lies in a store.

    Attributes:
        store: absolute URI of its root.
        datasets: by name.
        banks: by name.
        reports: by the name of their bank.
        cleanings: of all datasets.
    """

    store: str
    datasets: tuple[DatasetOverview, ...]
    banks: tuple[BankOverview, ...]
    reports: tuple[ReportsOverview, ...]
    cleanings: CleaningsOverview

    @property
    def errors(self) -> tuple[str, ...]:
        """What could not be read, and why."""
        found = [dataset.error for dataset in self.datasets]
        for bank in self.banks:
            found += [bank.error, *(version.error for version in bank.versions)]
        for reports in self.reports:
            found += [reports.error, *(report.error for report in reports.newest)]
        found += [cleaning.error for cleaning in self.cleanings.newest]
        return tuple(error for error in found if error is not None)
