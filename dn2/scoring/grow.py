"""Add confirmed normal images to a bank, or take images out of it, without training it again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.checks import check_name, fingerprint
from dn2.config import AddConfig, FitConfig
from dn2.errors import BankError, EmbedderError
from dn2.features.probes import check_bank
from dn2.neighbors.bank import Bank, Search, prepared
from dn2.neighbors.build import divide, usual_nlist
from dn2.neighbors.index import index_of
from dn2.neighbors.segments import keys, keys_of, write_segment
from dn2.neighbors.versions import current_version, make_current, publish, read_version
from dn2.records import BankFiles, BankVersion, Embedded, Growth
from dn2.scoring.anomalies import evaluated, kept_contents
from dn2.scoring.calibrating import CalibrationImages
from dn2.scoring.calibration import held_out_rows
from dn2.scoring.doubts.training import changed_doubts
from dn2.scoring.fidelity import fidelity
from dn2.scoring.fit import COMPARED, write_calibration
from dn2.scoring.rows import check_rejects, described, dim_of, image_rows, tile_rows, tile_vectors
from dn2.scoring.scale import write_scales
from dn2.scoring.seen import Admission, admission, among
from dn2.store.lock import locked
from dn2.store.schemas import CALIBRATION
from dn2.store.storage import Store
from dn2.store.tables import keep_rows, read_table

log = getLogger(__name__)
_SHOWN = 10  # copies that are named


@dataclass(frozen=True, slots=True)
class _Before:
    """A bank as it is.

    Attributes:
        record: its current version.
        files: what it is made of.
        bank: opened.
        calibrates: ids of the images whose scores calibrate it.
    """

    record: BankVersion
    files: BankFiles
    bank: Bank
    calibrates: frozenset[str]

    @property
    def removed(self) -> frozenset[str]:
        """Ids of the images that were taken out."""
        return frozenset(self.files.removed_ids)


def add(
    embedded: Embedded, store: str | os.PathLike[str] | Store, *, bank: str, config: AddConfig | None = None
) -> Growth:
    """Add normal images to a bank: a new version with one more segment, which is made the current one.

    What the bank has stays as it is. Images that it has already, and copies (same bytes) of images that it has or of
    each other, are not added; an image that was removed comes back. If the bank is calibrated by held-out images, a
    fifth of the new ones is held out too, unless the bank holds centres, in which any of them may have a part already;
    and all calibration scores are made anew, since every image that is added may
    be a nearer neighbour. Images that were flagged, and others that a report of the bank has scored, never calibrate:
    whoever adds them has seen their scores. Confirmed anomalies are left out. If nothing is new, no version is made.

    Args:
        embedded: what `embed(..., bank=bank)` returned.
        store: where dn2 keeps its files.
        bank: the bank's name.
        config: whether the images are those that were flagged; limits.

    Raises:
        RejectedError: too many images could not be read.
        BankError: the bank is one of groups, or its segments do not fit the memory budget.
        EmbedderError: the images were embedded differently.
        NotFoundError: there is no such bank.
        SchemaError: the bank was trained by an older dn2 that kept no images for calibration.
        StoreError: the store cannot be written, or another run has been writing the same bank for an hour.
    """
    store, name, config = Store.open(store), check_name(bank), config or AddConfig()
    check_rejects(embedded, store, config)
    with locked(store, layout.bank(name)):
        before = _before(store, name, config)
        record = before.record
        if embedded.embedder != record.embedder:
            raise EmbedderError(
                f"images {embedded.dataset.source}: got embeddings of {embedded.embedder}, expected those of "
                f"{record.embedder}, which made bank {name!r}; embed the images with bank=..."
            )
        check_bank(store, record.embedder, layout.bank_probes(name, record.version))
        growth = _added(embedded, store, before, config)
        evaluated(store, growth.bank)
    log.info("bank %s: %d added, %d known, %d copies", name, growth.added, growth.known, growth.copies)
    return growth


def remove(
    store: str | os.PathLike[str] | Store, image_ids: Sequence[str], *, bank: str, config: AddConfig | None = None
) -> Growth:
    """Take images out of a bank: a new version without them, which is made the current one.

    Args:
        store: where dn2 keeps its files.
        image_ids: of images that are in the bank, or calibrate it.
        bank: the bank's name.
        config: limits.

    Raises:
        BankError: one of them is not in the bank, too few would be left, or the bank holds centres instead of images.
        NotFoundError: there is no such bank.
        StoreError: the store cannot be written, or another run has been writing the same bank for an hour.
    """
    store, name, config = Store.open(store), check_name(bank), config or AddConfig()
    wanted = frozenset(image_ids)
    with locked(store, layout.bank(name)):
        before = _before(store, name, config)
        record = before.record
        living = _living(before)
        unknown = sorted(wanted - living - before.calibrates)
        if unknown or not wanted:
            centres = (
                " (its first images are centres, which cannot be removed)" if index_of(record.index).centres else ""
            )
            raise BankError(
                f"image ids: got {', '.join(unknown[:3]) or 'none'}{' ...' if len(unknown) > 3 else ''}, expected ids "
                f"of images in bank {name!r}{centres}; reports list them as neighbor_ids"
            )
        calibrates = before.calibrates - wanted
        if not calibrates:
            raise BankError(
                f"bank {name!r}: got all {len(before.calibrates)} calibration images, expected to keep some"
            )
        gone = before.removed | (wanted & living)
        changed = fingerprint([record.version, "remove", sorted(wanted), *_counting(config)])
        files = replace(before.files, removed_ids=tuple(sorted(gone)))
        rows = record.rows - record.tiles * len(wanted & living)
        made = _publish(store, before, files, calibrates, config, version=changed, rows=rows)
    return Growth(made, removed=len(wanted))


def _counting(config: AddConfig) -> list[dict[str, Any]]:
    """Return what the settings add to the names of what is made with them."""
    return [settings] if (settings := config.identity()) else []


def _before(store: Store, name: str, config: AddConfig) -> _Before:
    version = current_version(store, name)
    record, files = read_version(store, name, version, BankVersion)
    if files.held is None:
        raise BankError(
            f"bank {name!r}: got version {version} of an older dn2, expected one that keeps its calibration images; "
            f"train the bank again"
        )
    bank = Bank(store, name, version, Search.of(record), files, memory_gb=config.bank_memory_gb)
    rows = read_table(store, layout.bank_calibration(name, version), CALIBRATION, ["image_id"])
    return _Before(record, files, bank, frozenset(rows["image_id"].to_pylist()))


def _living(before: _Before) -> frozenset[str]:
    """Return the ids of all images that are in the bank."""
    names = (
        name
        for segment in before.bank.segments
        if not segment.centres
        for name in segment.table["image_id"].to_pylist()
    )
    return frozenset(names) - before.removed


def _added(embedded: Embedded, store: Store, before: _Before, config: AddConfig) -> Growth:
    rows, record = image_rows(embedded, store), before.record
    names = np.array(rows["image_id"].to_pylist(), object)
    known, returned = _known(before, names)
    anomalous = among(rows, kept_contents(store, record.name)) & ~known
    fresh, returned = ~known & ~returned & ~anomalous, returned & ~anomalous
    contents = keys(rows["content_sha256"].to_pylist())
    copies = fresh & np.isin(contents, _contents(before))
    places = np.flatnonzero(fresh & ~copies)
    copies[np.setdiff1d(places, places[np.unique(contents[places], return_index=True)[1]])] = True
    new = fresh & ~copies
    growth = Growth(
        record,
        known=int(known.sum()),
        copies=int(copies.sum()),
        copy_uris=tuple(keep_rows(rows, copies)["uri"].to_pylist()[:_SHOWN]),
        rejected=embedded.rejected,
        anomalies=int(anomalous.sum()),
    )
    if not new.any() and not returned.any():
        return growth
    mine = keep_rows(rows, new | returned)
    told = frozenset(mine["content_sha256"].to_pylist())
    seen = Admission(told) if config.flagged else admission(mine, store, record.name)
    chosen = among(rows, seen.chosen)
    held, index = np.zeros(len(new), bool), index_of(record.index)
    fair = new & ~chosen
    if record.calibration == "held-out" and not index.centres and fair.any():
        fifth, _ = held_out_rows(contents[fair], keys(keep_rows(rows, fair)["group_id"].to_pylist()))
        held[np.flatnonzero(fair)[fifth]] = True
    added = new & ~held
    base = fingerprint([described(embedded), record.version, *_counting(config), *seen.identity])
    segments, held_apart = before.files.segments, before.files.held or ()
    if added.any():
        segments = (*segments, f"{base}-added")
        _write(embedded, store, record, segments[-1], rows, added, divided=index.divided)
    if held.any():
        held_apart = (*held_apart, f"{base}-held")
        _write(embedded, store, record, held_apart[-1], rows, held, divided=False)
    removed = tuple(sorted(before.removed - set(names[returned])))
    flagged = tuple(sorted(seen.chosen.union(before.files.flagged)))
    files = replace(before.files, segments=segments, held=held_apart, removed_ids=removed, flagged=flagged)
    came = added | returned
    calibrating = held | (came & ~chosen if record.calibration == "leave-one-out" else np.zeros(len(new), bool))
    calibrates = before.calibrates | set(names[calibrating])
    changed = fingerprint([record.version, "add", base])
    count = record.rows + record.tiles * int(added.sum() + returned.sum())
    made = _publish(store, before, files, calibrates, config, version=changed, rows=count)
    return replace(
        growth,
        bank=made,
        added=int(came.sum()),
        held_out=int(held.sum()),
        flagged=int((came & among(rows, seen.flagged)).sum()),
        passed=int((came & among(rows, seen.passed)).sum()),
    )


def _known(before: _Before, names: npt.NDArray[Any]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which of (N,) image ids the bank has, or is calibrated by, and which it had until they were removed."""
    living = _living(before)
    known = np.array([name in living or name in before.calibrates for name in names], bool)
    if before.record.calibration == "leave-one-out":  # what cleaning dropped calibrates, but can be added
        known = np.array([name in living for name in names], bool)
    return known, np.array([name in before.removed for name in names], bool)


def _contents(before: _Before) -> npt.NDArray[np.int64]:
    """Return the keys of the bytes of all images that the bank has or is calibrated by."""
    found = [np.empty(0, np.int64)]
    held_out = before.record.calibration == "held-out"
    for segment in before.bank.segments:
        if not segment.centres:
            mine = keys_of(segment.table, ["content_sha256"])[0]
            found.append(mine if segment.gone is None else mine[~segment.gone])
    for segment in before.bank.held if held_out else ():
        mine = np.array([name in before.calibrates for name in segment.table["image_id"].to_pylist()], bool)
        found.append(keys_of(segment.table, ["content_sha256"])[0][mine])
    return np.concatenate(found)


def _write(
    embedded: Embedded,
    store: Store,
    record: BankVersion,
    name: str,
    rows: Any,
    mask: npt.NDArray[np.bool_],
    *,
    divided: bool,
) -> None:
    """Write a segment of some images; a large one of a bank of cells is divided into cells of its own."""
    dim = dim_of(embedded, store)
    vectors = np.empty((record.tiles * int(mask.sum()), dim), np.float16)
    read = written = 0
    for shard in tile_vectors(embedded, store):
        part = prepared(shard[mask[read : read + len(shard)]].reshape(-1, dim), record.metric)
        vectors[written : written + len(part)] = part
        read, written = read + len(shard), written + len(part)
    table, cells = tile_rows(keep_rows(rows, mask), record.tiles), None
    if divided and usual_nlist(len(vectors)) > record.nprobe:
        cells, order = divide(vectors, usual_nlist(len(vectors)))
        vectors, table = vectors[order], table.take(order)
    footer = {"embedder": record.embedder, "metric": record.metric}
    path = layout.bank_segment(record.name, name)
    write_segment(store, path, table, vectors.shape, [vectors], footer, cells=cells)


def _publish(
    store: Store,
    before: _Before,
    files: BankFiles,
    calibrates: frozenset[str],
    config: AddConfig,
    *,
    version: str,
    rows: int,
) -> BankVersion:
    """Calibrate the changed bank, of so many rows now, and make it the current version."""
    parent, memory = before.record, config.search_memory_mb
    search = Search.of(parent)
    bank = Bank(store, parent.name, version, search, files, memory_gb=config.bank_memory_gb)
    by_unit = FitConfig.reread(files.config).units == "auto"
    images, cost = CalibrationImages(bank, calibrates, by_unit=by_unit, memory_mb=memory), parent.fidelity
    write_scales(store, bank, images.columns, memory_mb=memory)
    if index_of(parent.index).divided and cost is not None:
        drawn = images.sample(COMPARED)
        found, true = (images.nearest(drawn, memory_mb=memory, exact=exact) for exact in (False, True))
        cost = fidelity(found, true, parent.false_alarm_rate, tiles=parent.tiles, scales=bank.scales)
    scores = images.scores(memory_mb=memory)
    calibration = images.calibration(scores)
    threshold, attainable = calibration.threshold(parent.false_alarm_rate)
    record = replace(
        parent,
        version=version,
        rows=rows,
        threshold=threshold,
        attainable_rate=attainable,
        calibration_rows=len(scores),
        units=calibration.units if by_unit else None,
        rate_interval=calibration.interval(threshold),
        segment_count=len(files.segments),
        removed=len(files.removed_ids),
        fidelity=cost,
    )
    record = replace(record, doubts=changed_doubts(record, images.table, scores, images.unit_of))
    write_calibration(store, record, images, scores, files.config, mask=np.ones(len(scores), bool))
    probes = store.read(layout.bank_probes(parent.name, parent.version))
    store.write(layout.bank_probes(record.name, record.version), probes)
    publish(store, record, replace(files, grown=True))
    make_current(store, record)
    return record
