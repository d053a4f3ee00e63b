"""The steps of the library as Prefect tasks, with retries and timeouts in one place.

Every step can be repeated: what is finished in the store is not done again. A retry therefore costs only what failed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger

import dn2
from dn2.config import AddConfig, CleanConfig, EmbedConfig, FitConfig, GroupFitConfig, GroupScoreConfig, ScoreConfig
from dn2.errors import EmptySourceError, SourceError, StoreError
from dn2.features.embed import embed_shards, resolved
from dn2.features.shards import plan_shards
from dn2.images import drops
from dn2.records import (
    AnyBank,
    AnyReport,
    BankVersion,
    Cleaning,
    Compacted,
    Dataset,
    Embedded,
    EmbeddedShard,
    GroupBankVersion,
    GroupReport,
    Growth,
    Look,
    Pruned,
    Report,
    Scored,
    ScoredShard,
    Shard,
)
from dn2.reports.finished import FinishedReport
from dn2.scoring import rethreshold, watermark
from dn2.scoring.decide import decide
from dn2.scoring.score import score_shard, search_shard

log = getLogger("dn2.tasks")
_LASTING = (NotADirectoryError, PermissionError)  # the reasons of a disk or bucket that waiting does not mend


def may_pass(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Return True, after a warning, if a task failed for a reason that may pass: a network, a disk, a bucket."""
    try:
        state.result()
    except EmptySourceError:
        return False
    except (SourceError, StoreError) as error:
        if isinstance(error.__cause__, _LASTING):
            return False
        log.warning("%s: trying again", error)
        return True
    except Exception:  # every other failure would only come again
        return False
    return False


# Results are named by their inputs in the store; Prefect's own cache would only be a second opinion.
_STEP: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 20],
    "retry_condition_fn": may_pass,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@contextmanager
def _logged(text: str, *values: object) -> Iterator[None]:
    """Log what the library is about to do, and afterwards how long that took."""
    logger = get_run_logger()
    logger.info(text, *values)
    began = time.perf_counter()
    yield
    logger.info("done in %.3f s", time.perf_counter() - began)


@task(name="ingest", **_STEP)
def ingest(
    source: str, store: str, dataset: str | None, *, pattern: str | None = None, split: str | None = None
) -> Dataset:
    """Bring a dataset's manifest up to date with its source."""
    with _logged("listing %s", source):
        return dn2.ingest(source, store, dataset=dataset, pattern=pattern, split=split)


@task(name="plan", **_STEP)
def plan(
    dataset: Dataset, store: str, config: EmbedConfig, *, parts: tuple[str, ...] | None = None
) -> tuple[Shard, ...]:
    """Cut a dataset, or some manifest parts of it, into shards."""
    with _logged("cutting %d manifest parts into shards of %d", len(parts or dataset.parts), config.shard_size):
        return plan_shards(dataset, store, shard_size=config.shard_size, parts=parts)


@task(name="choose-embedder", **_STEP)
def choose_embedder(config: EmbedConfig, bank: AnyBank | None) -> EmbedConfig:
    """Replace `auto` by the bank's backbone, or by the best one on this machine."""
    with _logged("backbone %s", config.backbone):
        return resolved(config, bank)


@task(name="embed", task_run_name="embed-{number}", **_STEP)
def embed(
    shards: tuple[Shard, ...], store: str, config: EmbedConfig, *, number: int, total: int
) -> tuple[EmbeddedShard, ...]:
    """Embed some shards of a dataset."""
    with _logged("embedding %d images in %d shards", sum(shard.images for shard in shards), len(shards)):
        return embed_shards(shards, store, config=config, total=total)


@task(name="clean", **_STEP)
def clean(embedded: Embedded, store: str, config: CleanConfig) -> Cleaning:
    """Tell the typical training images from the others."""
    with _logged("cleaning %d images by the rule %s", embedded.embedded, config.rule):
        return dn2.clean(embedded, store, config=config)


@task(name="fit", **_STEP)
def fit(embedded: Embedded, store: str, bank: str, config: FitConfig, cleaning: Cleaning | None = None) -> BankVersion:
    """Make a bank version with its threshold."""
    with _logged("fitting bank %s to %d images", bank, embedded.embedded):
        return dn2.fit(embedded, store, bank=bank, config=config, cleaning=cleaning)


@task(name="add", **_STEP)
def add(embedded: Embedded, store: str, bank: str, config: AddConfig) -> Growth:
    """Add normal images to a bank: its next version, with a threshold of its own."""
    with _logged("adding %d images to bank %s", embedded.embedded, bank):
        return dn2.add(embedded, store, bank=bank, config=config)


@task(name="remove", **_STEP)
def remove(store: str, bank: str, image_ids: list[str]) -> Growth:
    """Take images out of a bank: its next version, with a threshold of its own."""
    with _logged("removing %d images from bank %s", len(image_ids), bank):
        return dn2.remove(store, image_ids, bank=bank)


@task(name="open-bank", **_STEP)
def open_bank(store: str, bank: str) -> BankVersion:
    """Look up a bank's current version."""
    with _logged("opening bank %s", bank):
        return dn2.open_bank(store, bank)


@task(name="fit-groups", **_STEP)
def fit_groups(embedded: Embedded, store: str, bank: str, config: GroupFitConfig) -> GroupBankVersion:
    """Make a version of a bank of groups with its thresholds."""
    with _logged("fitting bank %s to the groups of %d images", bank, embedded.embedded):
        return dn2.fit_groups(embedded, store, bank=bank, config=config)


@task(name="open-group-bank", **_STEP)
def open_group_bank(store: str, bank: str) -> GroupBankVersion:
    """Look up the current version of a bank of groups."""
    with _logged("opening bank of groups %s", bank):
        return dn2.open_group_bank(store, bank)


@task(name="use-version", **_STEP)
def use_version(store: str, bank: str, version: str) -> AnyBank:
    """Make a version of a bank the current one."""
    with _logged("making version %s of bank %s the current one", version, bank):
        return dn2.use_version(store, bank, version)


@task(name="compact", task_run_name="compact-{dataset}", **_STEP)
def compact(store: str, dataset: str) -> Compacted:
    """Merge the manifest parts of a dataset."""
    with _logged("merging the manifest parts of %s", dataset):
        return dn2.compact(store, dataset=dataset)


@task(name="prune", **_STEP)
def prune(store: str, reports: int | None, age: float | None, *, yes: bool) -> Pruned:
    """Find unused files, and delete them if asked to."""
    with _logged("%s unused files in %s", "deleting" if yes else "looking for", store):
        return dn2.prune(store, reports=reports, age=age, yes=yes)


@task(name="score-groups", **_STEP)
def score_groups(
    embedded: Embedded,
    store: str,
    bank: GroupBankVersion,
    config: GroupScoreConfig,
    *,
    new_parts: tuple[str, ...] | None = None,
) -> GroupReport:
    """Score the groups of a batch, or those with new images, and write the report."""
    with _logged("scoring the groups of %d images", embedded.embedded):
        return dn2.score_groups(embedded, store, bank=bank, config=config, new_parts=new_parts)


@task(name="search", task_run_name="search-{number}-{searches[0][0][0]}", **_STEP)
def search(
    searches: tuple[tuple[tuple[int, int], int, EmbeddedShard], ...],
    store: str,
    bank: BankVersion,
    config: ScoreConfig,
    *,
    folder: str,
    number: int,
) -> None:
    """Search some segments of a bank that is larger than memory for the neighbours of some shards."""
    with _logged("searching segments for %d shards", len(searches)):
        for load, place, shard in searches:
            search_shard(shard, store, bank=bank, load=load, folder=folder, number=place, config=config)


@task(name="score", task_run_name="score-{number}", **_STEP)
def score(
    shards: tuple[tuple[int, EmbeddedShard], ...],
    store: str,
    bank: BankVersion,
    config: ScoreConfig,
    *,
    folder: str,
    number: int,
    total: int,
) -> tuple[ScoredShard, ...]:
    """Score some shards of a batch, each given with its place in the batch."""
    with _logged("scoring %d shards", len(shards)):
        return tuple(
            score_shard(shard, store, bank=bank, folder=folder, number=place, config=config, total=total)
            for place, shard in shards
        )


@task(name="report", **_STEP)
def report(scored: Scored, store: str, bank: BankVersion, config: ScoreConfig) -> Report:
    """Decide which images are anomalous, and write the report."""
    with _logged("writing the report of %d images", scored.scored + scored.rejected):
        return decide(scored, store, bank=bank, config=config)


@task(name="open-report", **_STEP)
def open_report(finished: str, store: str | None) -> FinishedReport:
    """Look up what a finished report was made of."""
    with _logged("looking up report %s", finished):
        return rethreshold.open_report(finished, store)


@task(name="export", **_STEP)
def export(finished: AnyReport, store: str, out: str) -> str:
    """Copy a finished report to a local folder."""
    with _logged("copying the report to %s", out):
        return str(dn2.export(finished, store, out))


@task(name="unscored", **_STEP)
def unscored(dataset: Dataset, store: str, bank: AnyBank, *, rescore: bool) -> tuple[str, ...]:
    """Look up which manifest parts the bank has not scored yet."""
    with _logged("looking up what of %s is not scored yet", dataset.name):
        return watermark.unscored(dataset, store, bank=bank, rescore=rescore)


@task(name="mark", **_STEP)
def mark(
    dataset: Dataset,
    store: str,
    bank: AnyBank,
    parts: tuple[str, ...],
    report: AnyReport | None,
) -> None:
    """Note that a bank has scored some manifest parts."""
    with _logged("noting %d manifest parts of %s as scored", len(parts), dataset.name):
        watermark.mark(dataset, store, bank=bank, parts=parts, report=report)


@task(name="look", **_STEP)
def look(
    prefix: str, store: str, bank: str, *, unit: drops.Unit, marker: str | None, settle_s: float, again_s: float
) -> Look:
    """Look for complete drops below a prefix."""
    with _logged("looking for drops below %s", prefix):
        return drops.look(prefix, store, bank=bank, unit=unit, marker=marker, settle_s=settle_s, again_s=again_s)


@task(name="remember", **_STEP)
def remember(seen: Look, store: str) -> None:
    """Note what was seen below a prefix, and what was told."""
    with _logged("noting %d drops below %s", len(seen.drops), seen.prefix):
        drops.remember(seen, store)


@task(name="mark-drop", **_STEP)
def mark_drop(drop: str, store: str, uri: str, report: AnyReport | None) -> None:
    """Note that a drop is scored."""
    with _logged("noting drop %s as scored", drop):
        drops.mark_scored(drop, store, uri=uri, report=report)
