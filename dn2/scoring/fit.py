"""Make a bank from the embeddings of normal images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.checks import check_name, fingerprint
from dn2.config import FitConfig
from dn2.errors import BankError
from dn2.fields import LAST
from dn2.neighbors.bank import Bank, Search, prepared
from dn2.neighbors.build import nprobe_for
from dn2.neighbors.choice import Choice, choose_index
from dn2.neighbors.exact import at_most
from dn2.neighbors.index import EXACT, INDEXES
from dn2.neighbors.lay_out import gathered, lay_out
from dn2.neighbors.products import Rows
from dn2.neighbors.segments import keys, write_segment
from dn2.neighbors.versions import check_kind, grown_from, make_current, open_bank, pointed_at, publish
from dn2.records import BankFiles, BankVersion, Cleaning, Embedded, Fidelity
from dn2.scoring.anomalies import evaluated
from dn2.scoring.calibrating import CalibrationImages
from dn2.scoring.calibration import LEAVE_ONE_OUT_ROWS, held_out_rows, trusted
from dn2.scoring.cleaning import kept_rows
from dn2.scoring.coarse import clusters_in
from dn2.scoring.doubts.training import bank_doubts
from dn2.scoring.fidelity import fidelity
from dn2.scoring.rows import check_rejects, described, dim_of, image_rows, tile_rows, tile_vectors
from dn2.scoring.scale import write_scales
from dn2.scoring.seen import Admission, among, of_training
from dn2.store.documents import BANK_VERSION
from dn2.store.lock import locked
from dn2.store.schemas import CALIBRATION
from dn2.store.storage import Store
from dn2.store.tables import keep_rows, writing

log = getLogger(__name__)
_FORMAT = 2  # raised when a version's files get another meaning: older ones are made anew
COMPARED = 1_000  # images that choose how many cells are visited, and as many that measure what that costs
_LAID_OUT = {"metric", "calibration", "index", "nlist", "centroids", "segment_rows"}  # as what they come to, see `base`


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
        before = pointed_at(store, name)
        record = _version(embedded, store, name, config, cleaning)
        make_current(store, record)
        evaluated(store, record)
        if before is not None and grown_from(store, name, before, record.version):
            log.warning(
                "bank %s: version %s is the current one again, without what was added or removed since; "
                "dn2 bank use %s brings that back",
                name,
                record.version,
                before,
            )
    _warn(record)
    return record


def _version(embedded: Embedded, store: Store, name: str, config: FitConfig, cleaning: Cleaning | None) -> BankVersion:
    """Return the version that these embeddings and settings make, from the store if it is there already."""
    images, cleaned = described(embedded), [] if cleaning is None else [cleaning.fingerprint]
    seen = of_training(embedded, store, name)
    made_of = [*cleaned, *seen.identity]
    version = fingerprint([_FORMAT, name, embedded.embedder, images, config.identity(), *made_of])
    if store.exists(layout.bank_version(name, version)):
        return open_bank(store, name, version=version)
    rows, dim = image_rows(embedded, store), dim_of(embedded, store)
    kept = np.ones(rows.num_rows, bool) if cleaning is None else kept_rows(rows, store, cleaning)
    split = _split(rows, config, kept, seen)
    normal, tiles = keep_rows(rows, split.in_bank), embedded.tiles
    bank_rows, in_bank = tile_rows(normal, tiles), tiles * normal.num_rows
    choice = _choice(in_bank, dim, config, tiles)
    log.info("bank %s: index %s, %s; its search needs %.2f GiB", name, choice.index.name, choice.why, choice.memory_gb)
    parts = {"embedder": embedded.embedder, "metric": config.metric}
    others = {name: value for name, value in config.identity(without={LAST}).items() if name not in _LAID_OUT}
    index: list[Any] = [choice.index.name, choice.nlist, config.segment_rows, *([others] if others else [])]
    base = fingerprint([_FORMAT, embedded.embedder, images, config.metric, split.method, *index, *made_of])
    k = min(config.k, choice.index.rows(in_bank, choice.nlist))
    search = Search(dim, k, config.metric, tiles, choice.nlist, nprobe=0, scale=config.scale)  # all cells, for now
    with gathered((in_bank, dim), _vectors(embedded, store, split.in_bank, config.metric)) as vectors:
        limit = config.segment_rows
        segments = lay_out(
            store, name, vectors, bank_rows, choice, name=base, segment_rows=limit, tiles=tiles, footer=parts
        )
        held = _hold_out(store, name, f"{base}-held", embedded, rows, split, parts)
        flagged = tuple(sorted(seen.chosen))
        files = BankFiles(tuple(segments), tuple(held), config=config.model_dump(mode="json"), flagged=flagged)
        bank = Bank(store, name, version, search, files, memory_gb=config.bank_memory_gb)
        calibrating = set(keep_rows(rows, split.calibrates)["image_id"].to_pylist())
        by_unit = config.units == "auto"
        images_in = CalibrationImages(bank, calibrating, by_unit=by_unit, memory_mb=config.search_memory_mb)
        _choose_cells(bank, images_in, choice, config)
        write_scales(store, bank, images_in.columns, memory_mb=config.search_memory_mb)
        cost = _measured(bank, images_in, Rows(vectors, images_in.keys_of(bank_rows)), choice, config)
    scores = images_in.scores(memory_mb=config.search_memory_mb)
    contamination = 0.0 if cleaning is None else cleaning.contamination
    normal_scores = trusted(scores, contamination)
    calibration = images_in.calibration(scores, normal_scores)
    threshold, attainable = calibration.threshold(config.false_alarm_rate)
    record = BankVersion(
        name=name,
        version=version,
        embedder=embedded.embedder,
        rows=sum(segment.count for segment in bank.segments),
        dim=dim,
        k=k,
        metric=config.metric,
        threshold=threshold,
        false_alarm_rate=config.false_alarm_rate,
        attainable_rate=attainable,
        calibration=split.method,
        calibration_rows=int(normal_scores.sum()),
        units=calibration.units if by_unit else None,
        clusters=clusters_in(images_in, tiles),
        rate_interval=calibration.interval(threshold),
        rejected=embedded.rejected,
        cleaning=None if cleaning is None else layout.cleaning(cleaning.fingerprint),
        dropped=0 if cleaning is None else cleaning.dropped,
        contamination=contamination,
        contamination_estimated=cleaning is not None and cleaning.estimated,
        index=choice.index.name,
        why=choice.why,
        nlist=choice.nlist,
        nprobe=bank.search.nprobe,
        segment_count=len(segments),
        copies=normal.num_rows - len(np.unique(keys(normal["content_sha256"].to_pylist()))),
        fidelity=cost,
        weights=embedded.weights,
        scale=config.scale,
    )
    images, mine = keep_rows(images_in.table, normal_scores), scores[normal_scores]
    units = None if images_in.unit_of is None else images_in.unit_of[normal_scores]
    record = replace(record, doubts=bank_doubts(record, embedded, store, images=images, scores=mine, unit_of=units))
    write_calibration(store, record, images_in, scores, files.config, mask=normal_scores)
    store.write(layout.bank_probes(name, version), store.read(layout.probes(embedded.embedder)))
    publish(store, record, files)
    return record


def _choice(rows: int, dim: int, config: FitConfig, tiles: int) -> Choice:
    """Return the index that the settings ask for, in which so many rows stand for an image."""
    return choose_index(
        rows,
        dim,
        index=config.index,
        expected_queries=tiles * config.expected_queries,
        nlist=config.nlist,
        centroids=config.centroids,
        segment_rows=None if config.segment_rows is None else tiles * config.segment_rows,
        budget_gb=config.bank_memory_gb,
    )


def _vectors(
    embedded: Embedded, store: Store, wanted: npt.NDArray[np.bool_], metric: str
) -> Iterator[npt.NDArray[np.float16]]:
    """Yield the vectors of those of all N images that are wanted, (N,) bool, as a bank of the metric holds them."""
    read = 0
    for vectors in tile_vectors(embedded, store):
        mine = vectors[wanted[read : read + len(vectors)]]
        yield prepared(mine.reshape(-1, vectors.shape[2]), metric)
        read += len(vectors)


def _hold_out(
    store: Store, bank: str, name: str, embedded: Embedded, rows: Any, split: _Split, footer: dict[str, Any]
) -> list[str]:
    """Write a segment of the images that calibrate the bank and are not in it; return its name, if there are any."""
    mask = split.calibrates & ~split.in_bank
    if not mask.any():
        return []
    blocks = _vectors(embedded, store, mask, footer["metric"])
    shape = (embedded.tiles * int(mask.sum()), dim_of(embedded, store))
    table = tile_rows(keep_rows(rows, mask), embedded.tiles)
    write_segment(store, layout.bank_segment(bank, name), table, shape, blocks, footer)
    return [name]


def _drawn(images: CalibrationImages) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which images choose the number of cells, and which others show what the index costs."""
    drawn = images.sample(2 * COMPARED)
    return drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]


def _choose_cells(bank: Bank, images: CalibrationImages, choice: Choice, config: FitConfig) -> None:
    """Set how many cells a bank visits, if it has any.

    Args:
        bank: not published yet.
        images: that calibrate it.
        choice: its index.
        config: recall or nprobe, and limits.
    """
    if not choice.index.divided:
        return
    choosing, others = _drawn(images)
    queries, mine = images.queries(choosing if len(choosing) else others)
    nprobe = config.nprobe or max(
        nprobe_for(
            queries,
            Rows(segment.vectors, images.keys_of(segment.table)),
            segment.cells,
            bank.search.k,
            config.recall,
            query_keys=mine,
            memory_mb=config.search_memory_mb,
        )
        for segment in bank.segments
        if segment.cells is not None
    )
    bank.search = replace(bank.search, nprobe=min(nprobe, choice.nlist))


def _measured(
    bank: Bank, images: CalibrationImages, everything: Rows, choice: Choice, config: FitConfig
) -> Fidelity | None:
    """Return what a bank's index costs in accuracy; None where it is exact.

    Args:
        bank: not published yet, with its cells chosen.
        images: that calibrate it.
        everything: what exact search would search if the bank does not hold it.
        choice: its index.
        config: limits.
    """
    index, memory, rate = choice.index, config.search_memory_mb, config.false_alarm_rate
    if index.exact:
        return None
    comparing = _drawn(images)[1]
    found = images.nearest(comparing, memory_mb=memory)
    if not index.centres:
        true = images.nearest(comparing, memory_mb=memory, exact=True)
        return fidelity(found, true, rate, tiles=bank.search.tiles, scales=bank.scales)
    queries, mine = images.queries(comparing)
    true = at_most(queries, everything, config.k, query_keys=mine, memory_mb=memory)
    return fidelity(found, true, rate, tiles=bank.search.tiles, centres=True)


def write_calibration(
    store: Store,
    record: BankVersion,
    images: CalibrationImages,
    scores: npt.NDArray[np.float32],
    config: dict[str, Any],
    *,
    mask: npt.NDArray[np.bool_],
) -> None:
    """Write the calibration of a version that is not published yet.

    Args:
        store: where to.
        record: the version.
        images: n images.
        scores: (n,) float32, theirs.
        config: the settings of the training.
        mask: (n,) bool, which of them calibrate it.

    Raises:
        StoreError: the store cannot be written.
    """
    footer = {"method": record.calibration, "contamination": record.contamination, "config": config}
    table = keep_rows(images.table, mask)
    columns = {name: table[name].combine_chunks() for name in ("image_id", "group_id", "label")}
    units = [None] * table.num_rows if images.unit_of is None else images.unit_of[mask]
    with writing(store, layout.bank_calibration(record.name, record.version), CALIBRATION, footer) as file:
        file.write({**columns, "score": scores[mask], "unit": units})


def _warn(record: BankVersion) -> None:
    """Say what is odd about the training images, and what a bank cannot promise."""
    for doubt in record.doubts:
        log.warning("bank %s: %s [%s]", record.name, doubt.message, doubt.code)


def _split(rows: Any, config: FitConfig, typical: npt.NDArray[np.bool_], seen: Admission) -> _Split:
    """Return what each row is used for.

    Args:
        rows: an Arrow table of N images.
        config: how calibration scores are made.
        typical: (N,) which images cleaning has kept.
        seen: which of them do not calibrate, or do not enter the bank.
    """
    method = config.calibration
    index = INDEXES.get(config.index, EXACT)  # what `auto` may choose has the same traits
    if method == "auto":
        method = "leave-one-out" if rows.num_rows <= LEAVE_ONE_OUT_ROWS and not index.held_out else "held-out"
    if index.held_out and method == "leave-one-out":
        raise BankError(f"calibration: got leave-one-out with index {index.name}, expected held-out: {index.held_out}")
    contents = keys(rows["content_sha256"].to_pylist())
    anomalous = among(rows, seen.anomalous)
    fair = ~among(rows, seen.chosen) & ~anomalous
    if not fair.any():
        raise BankError(
            f"calibration: got {rows.num_rows} training images, all anomalies or chosen by their scores, expected some "
            f"that are not: give the rest of their batches too, or train a bank of another name"
        )
    calibrates, in_bank = fair.copy(), typical & ~anomalous
    if method == "held-out":
        held = np.zeros(rows.num_rows, bool)
        held[fair], calibrates[fair] = held_out_rows(contents[fair], keys(rows["group_id"].to_pylist())[fair])
        in_bank &= ~held
        if not calibrates.any():
            raise BankError(
                f"calibration: got held-out with {rows.num_rows} normal images, too few or in too large groups to "
                f"hold out a fifth, expected more images or smaller groups; or use leave-one-out"
            )
    distinct = len(np.unique(contents[in_bank]))
    if distinct < config.k + 1 and not index.centres:
        raise BankError(
            f"k: got {config.k} with {distinct} different normal images in the bank, expected at least "
            f"{config.k + 1}: an image is never its own neighbour; give more normal images or a smaller k"
        )
    return _Split(in_bank, calibrates, method)
