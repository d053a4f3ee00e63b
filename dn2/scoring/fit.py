"""Make a bank from the embeddings of normal images."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2.config import FitConfig, check_name, fingerprint
from dn2.errors import BankError
from dn2.neighbors.bank import check_memory, keys, prepared, segment_vectors
from dn2.neighbors.exact import search
from dn2.neighbors.vectors import write_vectors
from dn2.neighbors.versions import check_kind, make_current, open_bank, publish
from dn2.progress import advance
from dn2.records import BankVersion, Cleaning, Embedded
from dn2.scoring.calibration import LEAVE_ONE_OUT_ROWS, held_out_rows, trusted, usable_groups
from dn2.scoring.cleaning import kept_rows
from dn2.scoring.rows import check_rejects, described, dim_of, image_rows, image_vectors
from dn2.scoring.scores import mean_distance, threshold_at
from dn2.store import layout
from dn2.store.documents import BANK_VERSION
from dn2.store.lock import locked
from dn2.store.schemas import BANK_ROWS, CALIBRATION
from dn2.store.storage import Store
from dn2.store.tables import keep_rows, writing

log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Split:
    """What each training image is used for.

    Attributes:
        in_bank: (N,) bool, others are compared with it.
        calibrates: (N,) bool, its own score is a calibration score.
        method: leave-one-out or held-out.
    """

    in_bank: npt.NDArray[np.bool_]
    calibrates: npt.NDArray[np.bool_]
    method: str


def fit(
    embedded: Embedded,
    store: str | os.PathLike[str] | Store,
    *,
    bank: str,
    config: FitConfig | None = None,
    cleaning: Cleaning | None = None,
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
        cleaning: what `clean` returned for the same images: only those that it keeps go into the bank. The others
            still calibrate it, but for the share that is taken for anomalies.

    Raises:
        RejectedError: too many images could not be read; their list is written to the store first.
        BankError: too few images for k, or too many for the memory budget; or the bank is one of groups.
        ConfigError: the cleaning is one of other images.
        StoreError: the store cannot be written, or another run has been writing the same bank for an hour.
    """
    store, config = Store.open(store), config or FitConfig()
    name = check_name(bank)
    check_rejects(embedded, store, config)
    with locked(store, layout.bank(name)):
        check_kind(store, name, BANK_VERSION)
        record = _version(embedded, store, name, config, cleaning)
        make_current(store, record)
    _warn(record)
    return record


def _version(embedded: Embedded, store: Store, name: str, config: FitConfig, cleaning: Cleaning | None) -> BankVersion:
    """Return the version that these embeddings and settings make, from the store if it is there already."""
    images, cleaned = described(embedded), [] if cleaning is None else [cleaning.fingerprint]
    settings = config.model_dump(mode="json", include={"k", "metric", "false_alarm_rate", "calibration"})
    version = fingerprint([name, embedded.embedder, images, settings, *cleaned])
    if store.exists(layout.bank_version(name, version)):
        return open_bank(store, name, version=version)
    dim = dim_of(embedded, store)
    check_memory(embedded.embedded if cleaning is None else cleaning.kept, dim, config.bank_memory_gb)
    rows = image_rows(embedded, store)
    split = _split(rows, config, np.ones(rows.num_rows, bool) if cleaning is None else kept_rows(rows, store, cleaning))
    segment = fingerprint([embedded.embedder, images, config.metric, split.method, *cleaned])
    _write_segment(store, layout.bank_segment(name, segment), embedded, rows, split.in_bank, config)
    scores = _calibrate(store, layout.bank_segment(name, segment), embedded, rows, split, config)
    normal = trusted(scores, 0.0 if cleaning is None else cleaning.contamination)
    scores, calibrated = scores[normal], keep_rows(keep_rows(rows, split.calibrates), normal)
    threshold, attainable = threshold_at(scores, config.false_alarm_rate)
    record = BankVersion(
        name=name,
        version=version,
        embedder=embedded.embedder,
        rows=int(split.in_bank.sum()),
        dim=dim,
        k=config.k,
        metric=config.metric,
        threshold=threshold,
        false_alarm_rate=config.false_alarm_rate,
        attainable_rate=attainable,
        calibration=split.method,
        calibration_rows=len(scores),
        rejected=embedded.rejected,
        cleaning=None if cleaning is None else layout.cleaning(cleaning.fingerprint),
        dropped=0 if cleaning is None else cleaning.dropped,
        contamination=0.0 if cleaning is None else cleaning.contamination,
        contamination_estimated=cleaning is not None and cleaning.estimated,
    )
    footer = {"method": split.method, **settings, "contamination": record.contamination}
    with writing(store, layout.bank_calibration(name, version), CALIBRATION, footer) as file:
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


def _split(rows: Any, config: FitConfig, typical: npt.NDArray[np.bool_]) -> _Split:
    """Return what each row is used for.

    Args:
        rows: an Arrow table of N images.
        config: how calibration scores are made.
        typical: (N,) which images cleaning has kept.
    """
    method = config.calibration
    if method == "auto":
        method = "leave-one-out" if rows.num_rows <= LEAVE_ONE_OUT_ROWS else "held-out"
    contents = keys(rows["content_sha256"].to_pylist())
    calibrates = np.ones(rows.num_rows, bool)
    in_bank = typical
    if method == "held-out":
        calibrates = held_out_rows(contents, keys(rows["group_id"].to_pylist()))
        in_bank = typical & ~calibrates
        if not calibrates.any():
            raise BankError(
                f"calibration: got held-out with {rows.num_rows} normal images, of which no fifth can be set apart "
                f"(too few, or in groups too large), expected more images or smaller groups; or use leave-one-out"
            )
    distinct = len(np.unique(contents[in_bank]))
    if distinct < config.k + 1:
        raise BankError(
            f"k: got {config.k} with {distinct} different normal images in the bank, expected at least "
            f"{config.k + 1}: an image is never its own neighbour; give more normal images or a smaller k"
        )
    return _Split(in_bank, calibrates, method)


def _write_segment(
    store: Store, path: str, embedded: Embedded, rows: Any, in_bank: npt.NDArray[np.bool_], config: FitConfig
) -> None:
    if store.exists(f"{path}.parquet"):
        return

    def blocks() -> Iterator[npt.NDArray[np.float16]]:
        read = 0
        for vectors in image_vectors(embedded, store):
            yield prepared(vectors[in_bank[read : read + len(vectors)]], config.metric)
            read += len(vectors)

    shape = (int(in_bank.sum()), dim_of(embedded, store))
    checksum = write_vectors(store, f"{path}.npy", shape, blocks())
    footer = {"embedder": embedded.embedder, "metric": config.metric, "vectors_crc32": checksum}
    with writing(store, f"{path}.parquet", BANK_ROWS, footer) as file:
        table = keep_rows(rows, in_bank)
        file.write({column: table[column].combine_chunks() for column in table.column_names})


def _calibrate(
    store: Store, path: str, embedded: Embedded, rows: Any, split: _Split, config: FitConfig
) -> npt.NDArray[np.float32]:
    """Return the scores of the rows that calibrate, in their order: each against the bank rows that are not itself."""
    bank = segment_vectors(store, path)
    row_keys = np.stack([keys(rows[column].to_pylist()) for column in ("image_id", "content_sha256", "group_id")])
    row_keys[2] = usable_groups(row_keys[2], row_keys[1], config.k, split.in_bank)
    parts: list[npt.NDArray[np.float32]] = []
    read = 0
    for vectors in image_vectors(embedded, store):
        mine = np.flatnonzero(split.calibrates[read : read + len(vectors)])
        found = search(
            prepared(vectors[mine], config.metric),
            bank,
            config.k,
            query_keys=row_keys[:, read + mine],
            bank_keys=row_keys[:, split.in_bank],
            memory_mb=config.search_memory_mb,
        )
        parts.append(mean_distance(found.distances))
        read += len(vectors)
        advance("calibrate", len(mine), total=int(split.calibrates.sum()))
    return np.concatenate(parts)
