"""The steps of the library as Prefect tasks, with retries and timeouts in one place.

Every step can be repeated: what is finished in the store is not done again. A retry therefore costs only what failed.
"""

from __future__ import annotations

from logging import getLogger
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger

import dn2
from dn2.config import EmbedConfig, FitConfig, ScoreConfig
from dn2.errors import EmptySourceError, SourceError, StoreError
from dn2.features.embed import embed_shards, resolved
from dn2.features.shards import plan_shards
from dn2.records import BankVersion, Dataset, Embedded, EmbeddedShard, Report, ScoredShard, Shard
from dn2.reports.report import write_report
from dn2.scoring.score import score_shard

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


@task(name="ingest", **_STEP)
def ingest(source: str, store: str, dataset: str | None) -> Dataset:
    """Bring a dataset's manifest up to date with its source."""
    get_run_logger().info("listing %s", source)
    return dn2.ingest(source, store, dataset=dataset)


@task(name="plan", **_STEP)
def plan(dataset: Dataset, store: str, config: EmbedConfig) -> tuple[Shard, ...]:
    """Cut a dataset into shards."""
    get_run_logger().info("cutting %d images into shards of %d", dataset.images, config.shard_size)
    return plan_shards(dataset, store, shard_size=config.shard_size)


@task(name="choose-embedder", **_STEP)
def choose_embedder(config: EmbedConfig, bank: BankVersion | None) -> EmbedConfig:
    """Replace `auto` by the bank's backbone, or by the best one on this machine."""
    get_run_logger().info("backbone %s", config.backbone)
    return resolved(config, bank)


@task(name="embed", task_run_name="embed-{number}", **_STEP)
def embed(
    shards: tuple[Shard, ...], store: str, config: EmbedConfig, *, number: int, total: int
) -> tuple[EmbeddedShard, ...]:
    """Embed some shards of a dataset."""
    get_run_logger().info("embedding %d images in %d shards", sum(shard.images for shard in shards), len(shards))
    return embed_shards(shards, store, config=config, total=total)


@task(name="fit", **_STEP)
def fit(embedded: Embedded, store: str, bank: str, config: FitConfig) -> BankVersion:
    """Make a bank version with its threshold."""
    get_run_logger().info("fitting bank %s to %d images", bank, embedded.embedded)
    return dn2.fit(embedded, store, bank=bank, config=config)


@task(name="open-bank", **_STEP)
def open_bank(store: str, bank: str) -> BankVersion:
    """Look up a bank's current version."""
    get_run_logger().info("opening bank %s", bank)
    return dn2.open_bank(store, bank)


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
    """Score some shards of a batch, each given with its number in the report."""
    get_run_logger().info("scoring %d shards", len(shards))
    return tuple(
        score_shard(shard, store, bank=bank, folder=folder, number=place, config=config, total=total)
        for place, shard in shards
    )


@task(name="report", **_STEP)
def report(
    embedded: Embedded,
    parts: tuple[ScoredShard, ...],
    store: str,
    bank: BankVersion,
    config: ScoreConfig,
    *,
    folder: str,
) -> Report:
    """Write the page and the summary that make a report whole."""
    get_run_logger().info("writing the report of %d images", sum(part.scored + part.rejected for part in parts))
    return write_report(embedded, parts, dn2.Store.open(store), folder, bank=bank, config=config)


@task(name="export", **_STEP)
def export(finished: Report, store: str, out: str) -> str:
    """Copy a finished report to a local folder."""
    get_run_logger().info("copying the report to %s", out)
    return str(dn2.export(finished, store, out))
