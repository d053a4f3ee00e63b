"""Make a bank from the embeddings of normal images."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2.config import FitConfig, check_name, fingerprint
from dn2.errors import BankError, RejectedError
from dn2.neighbors.bank import check_memory, keys, make_current, open_bank, prepared, publish, segment_vectors
from dn2.neighbors.exact import search
from dn2.neighbors.vectors import write_vectors
from dn2.progress import advance
from dn2.records import BankVersion, Embedded, EmbeddedShard
from dn2.scoring.calibration import LEAVE_ONE_OUT_ROWS, held_out_rows, leave_one_out, usable_groups
from dn2.scoring.scores import mean_distance, threshold_at
from dn2.store import layout
from dn2.store.lock import locked
from dn2.store.schemas import BANK_ROWS, CALIBRATION, EMBEDDINGS, REJECTS
from dn2.store.storage import Store
from dn2.store.tables import column_vectors, concat, keep_rows, read_table, with_constant, writing

log = getLogger(__name__)
_ROW_COLUMNS = ["image_id", "uri", "content_sha256", "group_id", "label"]


def fit(
    embedded: Embedded,
    store: str | os.PathLike[str] | Store,
    *,
    bank: str,
    config: FitConfig | None = None,
) -> BankVersion:
    """Make a version of a bank from embedded normal images, with a threshold, and make it the current one.

    Vectors first, then calibration scores, then the version file, then the pointer: until the last moment everyone
    sees the version before. The same embeddings and settings give the same version, which is made once. One bank has
    one writer at a time: whoever comes second waits.

    Args:
        embedded: what `embed` returned.
        store: where dn2 keeps its files.
        bank: the bank's name.
        config: neighbours, metric, false-alarm rate.

    Raises:
        RejectedError: too many images could not be read; their list is written to the store first.
        BankError: too few images for k, or too many for the memory budget.
        StoreError: the store cannot be written, or another run has been writing the same bank for an hour.
    """
    store, config = Store.open(store), config or FitConfig()
    name = check_name(bank)
    _check_rejects(embedded, store, config)
    with locked(store, layout.bank(name)):
        record = _version(embedded, store, name, config)
        make_current(store, record)
    _warn(record)
    return record


def _version(embedded: Embedded, store: Store, name: str, config: FitConfig) -> BankVersion:
    """Return the version that these embeddings and settings make, from the store if it is there already."""
    described = [[shard.path, *shard.shard.superseded] for shard in embedded.shards]
    settings = config.model_dump(mode="json", include={"k", "metric", "false_alarm_rate", "calibration"})
    version = fingerprint([name, embedded.embedder, described, settings])
    if store.exists(layout.bank_version(name, version)):
        return open_bank(store, name, version=version)
    dim = _dim(embedded, store)
    check_memory(embedded.embedded, dim, config.bank_memory_gb)
    rows = _rows(embedded, store)
    kept, method = _split(rows, config)
    segment = fingerprint([embedded.embedder, described, config.metric, method])
    _write_segment(store, layout.bank_segment(name, segment), embedded, rows, kept, config)
    scores = _calibrate(store, layout.bank_segment(name, segment), embedded, rows, kept, config)
    threshold, attainable = threshold_at(scores, config.false_alarm_rate)
    record = BankVersion(
        name=name,
        version=version,
        embedder=embedded.embedder,
        rows=int(kept.sum()),
        dim=dim,
        k=config.k,
        metric=config.metric,
        threshold=threshold,
        false_alarm_rate=config.false_alarm_rate,
        attainable_rate=attainable,
        calibration=method,
        calibration_rows=len(scores),
        rejected=embedded.rejected,
    )
    calibrated = rows if method == "leave-one-out" else keep_rows(rows, ~kept)
    with writing(store, layout.bank_calibration(name, version), CALIBRATION, {"method": method, **settings}) as file:
        file.write(
            {
                **{c: calibrated[c].combine_chunks() for c in ("image_id", "group_id", "label")},
                "score": scores,
            }
        )
    store.write(layout.bank_probes(name, version), store.read(layout.probes(embedded.embedder)))
    publish(store, record, segments=[segment], config=config.model_dump(mode="json"))
    return record


def _warn(record: BankVersion) -> None:
    """Say why a small bank cannot promise the false-alarm rate that was asked for."""
    if record.attainable_rate > record.false_alarm_rate:
        log.warning(
            "bank %s: %d calibration images cannot promise a false-alarm rate of %.2f%%, only %.2f%%: "
            "the threshold is the largest of their scores; %d images would do",
            record.name,
            record.calibration_rows,
            100 * record.false_alarm_rate,
            100 * record.attainable_rate,
            math.ceil(1 / record.false_alarm_rate - 1e-9) - 1,
        )


def _check_rejects(embedded: Embedded, store: Store, config: FitConfig) -> None:
    rejected, images = embedded.rejected, embedded.embedded + embedded.rejected
    too_many = rejected > config.max_rejects and rejected > config.max_reject_rate * images
    if not too_many and embedded.embedded:
        return
    path = layout.rejects(embedded.dataset.name, embedded.dataset.fingerprint)
    with writing(store, path, REJECTS, config.model_dump(mode="json")) as file:
        for shard in embedded.shards:
            table = _living(shard, store, [*REJECTS.columns.names])
            table = keep_rows(table, table["reject_reason"].is_valid().to_numpy())
            file.write({column: table[column].combine_chunks() for column in table.column_names})
    limit = max(config.max_rejects, int(config.max_reject_rate * images))
    expected = f"at most {limit}" if embedded.embedded else "some that can"
    raise RejectedError(
        f"training images from {embedded.dataset.source}: got {rejected} of {images} that cannot be read, expected "
        f"{expected}; they are listed with reasons in {store.uri_of(path)}; mend or remove them"
        + (", or raise max_reject_rate or max_rejects" if embedded.embedded else "")
    )


def _living(shard: EmbeddedShard, store: Store, columns: list[str]) -> Any:
    """Return an Arrow table of the rows of a shard that stand for an image of the dataset as it is now."""
    table = read_table(store, shard.path, EMBEDDINGS, columns)
    mask = np.ones(table.num_rows, bool)
    mask[list(shard.shard.superseded)] = False
    return keep_rows(table, mask)


def _rows(embedded: Embedded, store: Store) -> Any:
    """Return an Arrow table with one row for each embedding, in shard order."""
    tables = []
    for shard in embedded.shards:
        table = _living(shard, store, [*_ROW_COLUMNS, "reject_reason"])
        table = keep_rows(table, ~table["reject_reason"].is_valid().to_numpy()).select(_ROW_COLUMNS)
        tables.append(with_constant(table, "shard", shard.path))
    return concat(tables)


def _vectors(embedded: Embedded, store: Store) -> Iterator[npt.NDArray[np.float16]]:
    """Yield the embeddings of each shard, (M, D) float16, in the order of `_rows`."""
    for shard in embedded.shards:
        vectors, _ = column_vectors(_living(shard, store, ["embedding"])["embedding"])
        yield vectors


def _dim(embedded: Embedded, store: Store) -> int:
    dim: int = read_table(store, embedded.shards[0].path, EMBEDDINGS, ["embedding"])["embedding"].type.list_size
    return dim


def _split(rows: Any, config: FitConfig) -> tuple[npt.NDArray[np.bool_], str]:
    """Return which rows (N,) go into the bank, and how its calibration scores will be made."""
    method = config.calibration
    if method == "auto":
        method = "leave-one-out" if rows.num_rows <= LEAVE_ONE_OUT_ROWS else "held-out"
    contents = keys(rows["content_sha256"].to_pylist())
    kept = np.ones(rows.num_rows, bool)
    if method == "held-out":
        kept = ~held_out_rows(contents, keys(rows["group_id"].to_pylist()))
        if kept.all():
            raise BankError(
                f"calibration: got held-out with {len(kept)} normal images, of which no fifth can be set apart (too "
                f"few, or in groups too large), expected more images or smaller groups; or use leave-one-out"
            )
    distinct = len(np.unique(contents[kept]))
    if distinct < config.k + 1:
        raise BankError(
            f"k: got {config.k} with {distinct} different normal images in the bank, expected at least "
            f"{config.k + 1}: an image is never its own neighbour; give more normal images or a smaller k"
        )
    return kept, method


def _write_segment(
    store: Store, path: str, embedded: Embedded, rows: Any, kept: npt.NDArray[np.bool_], config: FitConfig
) -> None:
    if store.exists(f"{path}.parquet"):
        return

    def blocks() -> Iterator[npt.NDArray[np.float16]]:
        read = 0
        for vectors in _vectors(embedded, store):
            yield prepared(vectors[kept[read : read + len(vectors)]], config.metric)
            read += len(vectors)

    shape = (int(kept.sum()), _dim(embedded, store))
    checksum = write_vectors(store, f"{path}.npy", shape, blocks())
    footer = {"embedder": embedded.embedder, "metric": config.metric, "vectors_crc32": checksum}
    with writing(store, f"{path}.parquet", BANK_ROWS, footer) as file:
        table = keep_rows(rows, kept)
        file.write({column: table[column].combine_chunks() for column in table.column_names})


def _calibrate(
    store: Store, path: str, embedded: Embedded, rows: Any, kept: npt.NDArray[np.bool_], config: FitConfig
) -> npt.NDArray[np.float32]:
    """Return the calibration scores, in the order of the rows they belong to."""
    bank = segment_vectors(store, path)
    row_keys = np.stack([keys(rows[column].to_pylist()) for column in ("image_id", "content_sha256", "group_id")])
    row_keys[2] = usable_groups(row_keys[2], row_keys[1], config.k)
    if kept.all():
        scores = leave_one_out(bank, config.k, row_keys, memory_mb=config.search_memory_mb)
        advance("calibrate", len(scores), total=len(scores))
        return scores
    parts: list[npt.NDArray[np.float32]] = []
    read = 0
    for vectors in _vectors(embedded, store):
        mine = np.arange(read, read + len(vectors))[~kept[read : read + len(vectors)]]
        found = search(
            prepared(vectors[mine - read], config.metric),
            bank,
            config.k,
            query_keys=row_keys[:, mine],
            bank_keys=row_keys[:, kept],
            memory_mb=config.search_memory_mb,
        )
        parts.append(mean_distance(found.distances))
        read += len(vectors)
        advance("calibrate", len(mine), total=int((~kept).sum()))
    return np.concatenate(parts)
