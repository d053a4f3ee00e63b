"""What there is to do to score a batch: which shards, which segments of the bank for each, and where it lies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from dn2 import layout
from dn2.checks import fingerprint
from dn2.config import ScoreConfig
from dn2.errors import EmbedderError
from dn2.features.probes import check_bank
from dn2.fields import LAST
from dn2.neighbors.bank import Bank
from dn2.records import AnyBank, BankVersion, Embedded, EmbeddedShard, Report, Scored, ScoredShard
from dn2.reports.report import finished
from dn2.scoring.decide import report_folder
from dn2.scoring.rows import described
from dn2.store.storage import Store

_SCORES_FORMAT = 1  # raised when scores get more columns or another meaning: older ones are made anew


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to do to score a batch: the searches in any order, then the shards, then the report.

    Attributes:
        source: where the batch comes from.
        bank: name of the bank it is compared with.
        version: the bank's version.
        folder: where the scores will lie, relative to the store.
        total: images of the batch.
        report: the finished report, if there is one: then nothing is left to do.
        shards: each with its place in the batch, for `score_shard`.
        searches: for `search_shard`, if the bank is larger than memory: segments that fit, as (first, behind the last),
            and a shard with its place; all shards of some segments one after the other.
    """

    source: str
    bank: str
    version: str
    folder: str
    total: int
    report: Report | None
    shards: tuple[tuple[int, EmbeddedShard], ...]
    searches: tuple[tuple[tuple[int, int], int, EmbeddedShard], ...]

    def gather(self, parts: Sequence[ScoredShard]) -> Scored:
        """Return the record of the batch once all of its shards are scored, in their order."""
        scored = Scored(self.source, self.bank, self.version, self.folder, tuple(parts))
        rows = scored.scored + scored.rejected
        if rows != self.total:
            raise AssertionError(f"{rows} rows for {self.total} images: a bug in dn2")
        return scored


def plan_scoring(
    embedded: Embedded, store: str | os.PathLike[str] | Store, bank: BankVersion, config: ScoreConfig
) -> Plan:
    """Return what there is to do to score a batch.

    Args:
        embedded: what `embed(..., bank=bank)` returned.
        store: where dn2 keeps its files.
        bank: what to compare with.
        config: memory limits, and the settings of the report.

    Raises:
        EmbedderError: batch and bank were embedded differently.
        BankError: one segment of the bank alone does not fit the memory budget.
        SchemaError: the summary of a finished report is damaged.
        StoreError: the store cannot be read.
    """
    store, folder = Store.open(store), scores_folder(embedded, bank, config)
    report = finished(store, report_folder(bank.name, folder.rpartition("/")[2], config))
    shards: tuple[tuple[int, EmbeddedShard], ...] = ()
    loads: tuple[tuple[int, int], ...] = ()
    if report is None:
        check_comparable(embedded, store, bank)
        shards, loads = tuple(enumerate(embedded.shards)), bank_loads(store, bank, config)
    return Plan(
        source=embedded.dataset.source,
        bank=bank.name,
        version=bank.version,
        folder=folder,
        total=embedded.embedded + embedded.rejected,
        report=report,
        shards=shards,
        searches=tuple((load, place, shard) for load in loads for place, shard in shards) if len(loads) > 1 else (),
    )


def scores_folder(embedded: Embedded, bank: BankVersion, config: ScoreConfig) -> str:
    """Return where the scores of a batch lie: named by batch, bank version, and settings that change scores, if any."""
    settings = config.identity(without={LAST})
    named = [_SCORES_FORMAT, described(embedded), bank.version, *([settings] if settings else [])]
    return layout.scores(bank.name, fingerprint(named))


def check_comparable(embedded: Embedded, store: Store, bank: AnyBank) -> None:
    """Make sure that batch and bank lie in the same space.

    Raises:
        EmbedderError: they were made by different embedders, or the probe pictures came out differently.
    """
    if embedded.embedder != bank.embedder:
        raise EmbedderError(
            f"batch {embedded.dataset.source}: got embeddings of {embedded.embedder}, expected those of "
            f"{bank.embedder}, which made bank {bank.name!r}; embed the batch with bank=..., or train another bank"
        )
    check_bank(store, bank.embedder, layout.bank_probes(bank.name, bank.version))


def bank_loads(
    store: str | os.PathLike[str] | Store, bank: BankVersion, config: ScoreConfig
) -> tuple[tuple[int, int], ...]:
    """Return which segments of a bank fit the memory together, as (first, behind the last): all, or several runs.

    Raises:
        BankError: one segment alone does not fit.
    """
    opened = Bank.open(Store.open(store), bank, memory_gb=config.bank_memory_gb)
    return tuple((load.start, load.stop) for load in opened.loads())
