"""Clean a training set: score every image against the others, drop the oddest, and write down which and why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.config import CleanConfig, fingerprint
from dn2.errors import BankError, ConfigError, SchemaError
from dn2.neighbors.bank import check_memory, prepared
from dn2.neighbors.exact import search
from dn2.neighbors.segments import keys
from dn2.progress import advance
from dn2.records import Cleaning, Embedded
from dn2.reports.cleaning import finished_cleaning, write_cleaning
from dn2.scoring.rows import check_rejects, described, dim_of, image_rows, image_vectors
from dn2.scoring.scores import mean_distance
from dn2.scoring.typicality import SAMPLE, Block, Sample, drop_for, estimated_contamination, oddities
from dn2.store.schemas import CLEANING
from dn2.store.storage import Store
from dn2.store.tables import read_table, with_columns, writing

log = getLogger(__name__)
_FEWEST = 20  # different images: among fewer nothing can be called odd
_FEWEST_KEPT = 3  # different images: a bank needs k + 1, and k is 2 by default
_FEW = 2_000  # images: below, clusters of anomalies are too small to be estimated
_PAPER_K, _PAPER_DROP = 2, 0.5


def clean(embedded: Embedded, store: str | os.PathLike[str] | Store, *, config: CleanConfig | None = None) -> Cleaning:
    """Tell the typical training images from the others, without labels; write rows.parquet and report.html.

    Rule `paper`: the mean squared distance to the 2 nearest others, of which the larger half is dropped (DN2,
    Bergman, Cohen, Hoshen 2020). Rule `auto`: see `dn2.scoring.typicality`. Both compare embeddings of length 1.

    Args:
        embedded: what `embed` returned.
        store: where dn2 keeps its files.
        config: rule, contamination, share to drop; by default the rule auto.

    Returns:
        the finished cleaning; the same images and settings give the same one, which is made once.

    Raises:
        BankError: fewer than 20 different images, or for the rule paper too many for the memory budget.
        ConfigError: the rule is none, or less would be dropped than is taken for anomalies.
        RejectedError: too many images could not be read; their list is written to the store first.
        StoreError: the store cannot be read or written.
    """
    store, config = Store.open(store), config or CleanConfig(rule="auto")
    if config.rule == "none":
        raise ConfigError("rule: got none, expected paper or auto: there is nothing to clean")
    check_rejects(embedded, store, config)
    folder = layout.cleaning(fingerprint([embedded.embedder, described(embedded), config.fingerprint()]))
    done = finished_cleaning(store, folder) or _made(embedded, store, folder, config)
    _warn(done)
    return done


def _made(embedded: Embedded, store: Store, folder: str, config: CleanConfig) -> Cleaning:
    rows = image_rows(embedded, store)
    row_keys = np.stack([keys(rows[column].to_pylist()) for column in ("image_id", "content_sha256")])
    sample = _sample(embedded, store, row_keys)
    contamination = config.contamination
    if contamination is None:
        contamination = estimated_contamination(sample)
    drop = _drop_fraction(config, contamination)
    if config.rule == "paper":
        scores = _paper(embedded, store, row_keys, config)
    else:
        scores = _auto(embedded, store, row_keys, sample)
    rows, order = _judged(rows, row_keys[1], scores, contamination, drop)
    dropped = int((~rows["kept"].to_numpy()).sum())
    cleaning = Cleaning(
        uri=store.uri_of(folder),
        source=embedded.dataset.source,
        rule=config.rule,
        images=len(scores),
        kept=len(scores) - dropped,
        dropped=dropped,
        contamination=contamination,
        estimated=config.contamination is None,
        drop_fraction=drop,
    )
    footer = {"embedder": embedded.embedder, **config.model_dump(mode="json"), "contamination": contamination}
    with writing(store, layout.cleaning_rows(cleaning.fingerprint), CLEANING, footer) as file:
        file.write({name: rows[name].combine_chunks() for name in CLEANING.columns.names})
    write_cleaning(cleaning, store, folder, rows=rows, order=order, config=config)
    return cleaning


def _warn(cleaning: Cleaning) -> None:
    if cleaning.estimated and cleaning.images < _FEW:
        log.warning(
            "cleaning %s: a contamination of %.1f%% is a guess, from only %d images; give it if you know it",
            cleaning.source,
            100 * cleaning.contamination,
            cleaning.images,
        )


def _drop_fraction(config: CleanConfig, contamination: float) -> float:
    if config.drop_fraction is None:
        return max(contamination, _PAPER_DROP if config.rule == "paper" else drop_for(contamination))
    if config.drop_fraction < contamination:
        raise ConfigError(
            f"drop_fraction: got {config.drop_fraction:g}, expected at least the estimated contamination, "
            f"{contamination:.3g}; raise it, or give the contamination if you know it"
        )
    return config.drop_fraction


def _judged(
    rows: Any,
    content_keys: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    contamination: float,
    drop: float,
) -> tuple[Any, npt.NDArray[np.int64]]:
    """Return the table of images with score, rank, kept and reason, and (N,) int64 its rows, the oddest first.

    Copies of an image count once: they have one score and one rank, and share one fate.

    Args:
        rows: an Arrow table of N images.
        content_keys: (N,) int64, equal for equal bytes.
        scores: (N,) float32, higher is odder.
        contamination: share that is taken for anomalies.
        drop: share to drop, at least that.

    Raises:
        ConfigError: fewer different images would be kept than a bank needs.
    """
    _, first, content_of = np.unique(content_keys, return_index=True, return_inverse=True)
    content_scores = scores[first]
    count = len(first)
    dropped = round(drop * count)
    if count - dropped < _FEWEST_KEPT:
        raise ConfigError(
            f"drop_fraction: got {drop:g}, which keeps {count - dropped} of {count} different images, expected at "
            f"least {_FEWEST_KEPT} to be kept; lower it"
        )
    content_rank = np.empty(count, np.int64)
    content_rank[np.lexsort((first, -content_scores))] = np.arange(1, count + 1)
    rank = content_rank[content_of]
    kept = rank > dropped
    reasons = np.where(rank <= round(contamination * count), "impurity", "margin").astype(object)
    reasons[kept] = None
    columns = {"score": content_scores[content_of], "rank": rank, "kept": kept, "reason": reasons}
    return with_columns(rows, columns, CLEANING), np.argsort(rank, kind="stable")


def kept_rows(rows: Any, store: Store, cleaning: Cleaning) -> npt.NDArray[np.bool_]:
    """Return which of N images a cleaning keeps.

    Args:
        rows: an Arrow table of them, see `image_rows`.
        store: where the cleaning lies.
        cleaning: what `clean` returned for them.

    Raises:
        ConfigError: it is a cleaning of other images.
        SchemaError: its table is damaged.
    """
    path = layout.cleaning_rows(cleaning.fingerprint)
    try:
        table = read_table(store, path, CLEANING, ["image_id", "kept"])
    except SchemaError as error:
        raise SchemaError(f"{error}; delete that file: the cleaning is made again") from error
    kept = dict(zip(table["image_id"].to_pylist(), table["kept"].to_pylist(), strict=True))
    names = rows["image_id"].to_pylist()
    if kept.keys() != set(names):
        raise ConfigError(
            f"cleaning {cleaning.uri}: got one of other images, expected that of the {len(names)} images to fit; "
            f"clean them again"
        )
    return np.fromiter((kept[name] for name in names), bool, len(names))


def _sample(embedded: Embedded, store: Store, row_keys: npt.NDArray[np.int64]) -> Sample:
    """Return different images, chosen at random but always the same: all of them, or 10,000."""
    _, first = np.unique(row_keys[1], return_index=True)
    if len(first) < _FEWEST:
        raise BankError(
            f"cleaning {embedded.dataset.source}: got {len(first)} different images, expected at least {_FEWEST}: "
            f"too few to clean; train without cleaning"
        )
    chosen = np.zeros(row_keys.shape[1], bool)
    chosen[np.random.default_rng(0).permutation(first)[:SAMPLE]] = True
    found = [vectors[chosen[rows]] for rows, vectors in _blocks(embedded, store)]
    return Sample(np.concatenate(found), row_keys[:, chosen])


def _auto(embedded: Embedded, store: Store, row_keys: npt.NDArray[np.int64], sample: Sample) -> npt.NDArray[np.float32]:
    def blocks() -> Iterator[Block]:
        for rows, vectors in _blocks(embedded, store):
            yield vectors, row_keys[:, rows]

    return _gathered(oddities(blocks(), sample), row_keys.shape[1])


def _paper(
    embedded: Embedded, store: Store, row_keys: npt.NDArray[np.int64], config: CleanConfig
) -> npt.NDArray[np.float32]:
    """Return (N,) float32, the mean squared distance of each image to its two nearest others."""
    count = row_keys.shape[1]
    check_memory(count, dim_of(embedded, store), config.bank_memory_gb)
    everything = np.concatenate([vectors for _, vectors in _blocks(embedded, store)])

    def scores() -> Iterator[npt.NDArray[np.float32]]:
        for rows, vectors in _blocks(embedded, store):
            found = search(
                vectors,
                everything,
                _PAPER_K,
                query_keys=row_keys[:, rows],
                bank_keys=row_keys,
                memory_mb=config.search_memory_mb,
            )
            yield mean_distance(found.distances)

    return _gathered(scores(), count)


def _blocks(embedded: Embedded, store: Store) -> Iterator[tuple[slice, npt.NDArray[np.float16]]]:
    """Yield the row numbers of each shard's images and their vectors of length 1, (M, D) float16."""
    read = 0
    for vectors in image_vectors(embedded, store):
        yield slice(read, read + len(vectors)), prepared(vectors, "cosine")
        read += len(vectors)


def _gathered(parts: Iterator[npt.NDArray[np.float32]], total: int) -> npt.NDArray[np.float32]:
    found = []
    for part in parts:
        found.append(part)
        advance("clean", len(part), total=total)
    return np.concatenate(found)
