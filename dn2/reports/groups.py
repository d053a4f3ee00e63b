"""The page about groups, and the summary that makes a report of groups whole."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields

from dn2.config import GroupScoreConfig
from dn2.errors import SchemaError
from dn2.layout import PAGE, SUMMARY
from dn2.records import GroupBankVersion, GroupReport, WorstGroup
from dn2.reports.history import note
from dn2.reports.page import page_template
from dn2.reports.pictures import data_uri
from dn2.store.documents import GROUP_REPORT_SUMMARY, as_record, read_document, write_document
from dn2.store.storage import Store

_SHOWN_UNSCORED = 100


@dataclass(frozen=True, slots=True)
class Member:
    """An image of a group.

    Attributes:
        uri: where it lies.
        share: its part of the group's distance; the parts add up to 1, and one below 0 makes the group more normal.
        thumbnail: JPEG, where there is one.
    """

    uri: str
    share: float
    thumbnail: bytes | None

    @property
    def picture(self) -> str:
        """A data URI, or nothing."""
        return data_uri(self.thumbnail)


@dataclass(frozen=True, slots=True)
class NormalGroup:
    """A normal group that a group is most like.

    Attributes:
        group_id: its name.
        members: images in it.
        thumbnails: JPEGs of some of them, where there are any.
    """

    group_id: str
    members: int
    thumbnails: list[bytes | None]

    @property
    def pictures(self) -> list[str]:
        """Data URIs."""
        return [data_uri(one) for one in self.thumbnails if one is not None]


@dataclass(frozen=True, slots=True)
class GroupCard:
    """One of the worst groups.

    Attributes:
        group: its figures.
        label: what is known about it.
        rejected: images of it that could not be read.
        threshold: for groups of its size.
        members: the images that contribute most, in this order.
        neighbors: the normal groups that it is most like, nearest first.
    """

    group: WorstGroup
    label: str | None
    rejected: int
    threshold: float
    members: list[Member]
    neighbors: list[NormalGroup]


def finished_groups(store: Store, folder: str) -> GroupReport | None:
    """Return the report of groups in a folder if it is whole.

    Raises:
        SchemaError: its summary is damaged.
    """
    path = f"{folder}/{SUMMARY}"
    if not store.exists(path):
        return None
    try:
        needed = [field.name for field in fields(GroupReport) if field.default is MISSING]
        document = read_document(store, path, GROUP_REPORT_SUMMARY, needed)
        return as_record(GroupReport, {**document, "uri": store.uri_of(folder)}, store.uri_of(path))
    except SchemaError as error:
        raise SchemaError(f"{error}; delete that file: the report is made again") from error


def write_page(
    report: GroupReport,
    store: Store,
    folder: str,
    *,
    bank: GroupBankVersion,
    cards: list[GroupCard],
    unscored: list[tuple[str, str]],
    parts: list[str],
    config: GroupScoreConfig,
) -> None:
    """Write report.html, the batch's row of the history, and last summary.json, which makes the report whole.

    Args:
        report: what to tell.
        store: where dn2 keeps its files.
        folder: where the report's Parquet files lie.
        bank: what the groups were compared with.
        cards: the worst groups, worst first.
        unscored: names of the groups without a score, and why; the first ones are shown.
        parts: names of the Parquet files.
        config: settings of the report.

    Raises:
        StoreError: the store cannot be written.
    """
    page = page_template("groups.html.j2").render(
        report=report, bank=bank, cards=cards, unscored=unscored[:_SHOWN_UNSCORED]
    )
    store.write(f"{folder}/{PAGE}", page.encode())
    content = {
        **asdict(report),
        "bank_version": asdict(bank),
        "config": config.model_dump(mode="json"),
        "parts": parts,
    }
    note(store, report, bank, key=folder.rpartition("/")[2])
    write_document(store, f"{folder}/{SUMMARY}", GROUP_REPORT_SUMMARY, content)
