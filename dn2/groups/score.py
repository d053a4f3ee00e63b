"""Score the groups of a batch against a bank of normal groups, and write the report."""

from __future__ import annotations

import os
from collections.abc import Collection

from dn2 import layout
from dn2.checks import fingerprint
from dn2.config import GroupScoreConfig
from dn2.groups.bank import GroupBank, open_group_bank
from dn2.groups.findings import Findings
from dn2.groups.grouping import Grouping
from dn2.groups.judge import judge
from dn2.groups.members import explain
from dn2.groups.report import write_report
from dn2.records import Embedded, GroupBankVersion, GroupReport
from dn2.reports.groups import finished_groups
from dn2.scoring.plan import check_comparable
from dn2.scoring.rows import described
from dn2.store.storage import Store


def score_groups(
    embedded: Embedded,
    store: str | os.PathLike[str] | Store,
    *,
    bank: GroupBankVersion | str,
    config: GroupScoreConfig | None = None,
    new_parts: Collection[str] | None = None,
) -> GroupReport:
    """Score every group of an embedded batch and write the report.

    The images are read three times, shard by shard: to know the groups, to pool them, and to tell what each member
    contributes. In memory are the groups' vectors, one shard, and a few bytes for each image.

    Args:
        embedded: what `embed(..., bank=bank)` returned, of a source whose groups are known.
        store: where dn2 keeps its files.
        bank: a version of a bank of groups, or the name of one whose current version is meant.
        config: limits, false-alarm rate and the size of the report.
        new_parts: manifest parts; only groups with an image in one of them are reported, with all their images.

    Returns:
        the finished report; the same images, bank version and settings give the same one, which is made once.

    Raises:
        ConfigError: no image belongs to a group.
        BankError: the groups need more memory than allowed, or the bank is one of images.
        EmbedderError: batch and bank were embedded differently.
        NotFoundError: there is no such bank.
        StoreError: the store cannot be read or written.
    """
    store, config = Store.open(store), config or GroupScoreConfig()
    record = open_group_bank(store, bank) if isinstance(bank, str) else bank
    folder = report_folder(embedded, record, config, new_parts)
    done = finished_groups(store, folder)
    if done is not None:
        return done
    check_comparable(embedded, store, record)
    opened = GroupBank.open(store, record)
    grouping = Grouping.of(embedded, store)
    if new_parts is not None:
        grouping.forget_untouched([shard.shard.part in new_parts for shard in embedded.shards])
    verdicts = judge(embedded, store, opened, grouping, config)
    explained = explain(embedded, store, opened, grouping, verdicts)
    return write_report(Findings(embedded, opened, grouping, verdicts, explained, config), store, folder)


def report_folder(
    embedded: Embedded, bank: GroupBankVersion, config: GroupScoreConfig, new_parts: Collection[str] | None
) -> str:
    """Return where a report of groups lies in the store: named by images, bank version and settings."""
    parts = None if new_parts is None else sorted(new_parts)
    source = embedded.dataset.source
    named = fingerprint([source, described(embedded), bank.version, config.report_fingerprint(), parts])
    return layout.report(bank.name, named)
