"""What the whole of a batch is compared with: some of the normal images, the kinds they are of, and their main axes.

It is made when something is scored with a version first, from its own files, and kept beside it: versions of an older
dn2 get it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.neighbors.kmeans import centroids
from dn2.neighbors.segments import Segment
from dn2.neighbors.versions import read_version
from dn2.records import BankVersion, Drift
from dn2.scoring.calibrating import tile_by_tile
from dn2.scoring.calibration import Calibration
from dn2.scoring.rows import image_vector
from dn2.scoring.units import one_of_each
from dn2.store.schemas import CALIBRATION, REFERENCE
from dn2.store.storage import Store
from dn2.store.tables import column_vectors, read_table, vector_column, writing

_ROWS = 2_000  # images that are compared with, at most, and as many that make centres and axes
_KINDS, _OF_EACH = 12, 20  # at most, and how many images there must be of each on average
_AXES = 100  # at most
_ITERATIONS = 20  # of Lloyd's algorithm


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Normal images, of those that depend on each other one; none has helped to make centres and axes.

    Attributes:
        images: (N, D) float16.
        inside: (N,) bool, whether their own scores are inside.
        centres: (C, D) float16, of kinds of images.
        axes: (A, D) float16, principal ones of length 1.
    """

    images: npt.NDArray[np.float16]
    inside: npt.NDArray[np.bool_]
    centres: npt.NDArray[np.float16]
    axes: npt.NDArray[np.float16]


def reference_of(store: Store, bank: BankVersion, calibration: Calibration) -> Reference:
    """Return what batches are compared with by a bank version, made if it is not there yet.

    Args:
        store: where dn2 keeps its files.
        bank: the version.
        calibration: its.

    Raises:
        NotFoundError: a file of the version is missing.
        SchemaError: one is damaged.
        StoreError: the store cannot be read or written.
    """
    path = layout.bank_reference(bank.name, bank.version)
    if not store.exists(path):
        made = _made(store, bank, calibration)
        parts = {"image": made.images, "centre": made.centres, "axis": made.axes}
        vectors = np.concatenate(list(parts.values()))
        inside = [*made.inside.tolist(), *[None] * (len(vectors) - len(made.images))]
        with writing(store, path, REFERENCE.with_dim(bank.dim), {"bank": bank.name, "version": bank.version}) as file:
            file.write(
                {
                    "role": [role for role, rows in parts.items() for _ in rows],
                    "inside": inside,
                    "embedding": vector_column(vectors, np.ones(len(vectors), bool)),
                }
            )
    table = read_table(store, path, REFERENCE)
    roles, vectors = np.array(table["role"].to_pylist()), column_vectors(table["embedding"])[0]
    inside = np.array([bool(one) for one in table["inside"].to_pylist()], bool)[roles == "image"]
    return Reference(vectors[roles == "image"], inside, vectors[roles == "centre"], vectors[roles == "axis"])


def _made(store: Store, bank: BankVersion, calibration: Calibration) -> Reference:
    """Return the reference of a version: centres and axes are of half of its images, or of all if others calibrate."""
    files = read_version(store, bank.name, bank.version, BankVersion)[1]
    names, removed = (*files.segments, *reversed(files.held or ())), frozenset(files.removed_ids)
    segments = [Segment(store, layout.bank_segment(bank.name, name), removed) for name in names]
    table = read_table(store, layout.bank_calibration(bank.name, bank.version), CALIBRATION)
    ids, units = np.array(table["image_id"].to_pylist()), table["unit"]
    usual = calibration.p_values(table["score"].to_numpy()) > Drift.level
    one = np.arange(len(ids)) if units.null_count else one_of_each(units.to_numpy())
    is_inside = dict(zip(ids[one].tolist(), usual[one].tolist(), strict=True))
    images, found = _vectors(segments, _some(list(is_inside)), bank)
    inside, makers = np.array([is_inside[name] for name in found], bool), images[:0]
    if bank.calibration == "held-out":
        in_bank = dict.fromkeys(name for segment in segments if not segment.centres for name in _ids(segment))
        known = set(ids.tolist())
        makers = _vectors(segments, _some([name for name in in_bank if name not in known]), bank)[0]
        if not len(images):  # of an older dn2, which kept no vectors of what calibrates
            images, inside, makers = makers, np.ones(len(makers), bool), images
    if not len(makers) and len(images) >= 4 * _OF_EACH:  # else there will be neither centres nor axes
        makers, images, inside = images[::2][inside[::2]], images[1::2], inside[1::2]
    images, inside, wide = images[:_ROWS], inside[:_ROWS], makers[:_ROWS].astype(np.float32)
    count = min(len(wide), int(inside.sum())) // _OF_EACH
    centres = axes = wide[:0]
    if count >= 2:
        centres = centroids(wide, min(count, _KINDS), iterations=_ITERATIONS)
        axes = np.linalg.svd(wide - wide.mean(0), full_matrices=False)[2][: min(len(wide) // 2, _AXES)]
    return Reference(images, inside, centres.astype(np.float16), axes.astype(np.float16))


def _ids(segment: Segment) -> list[str]:
    names: list[str] = segment.table["image_id"].to_pylist()
    segment.let_go()
    return names


def _some(names: Sequence[str]) -> set[str]:
    """Return at most twice as many of some names as are compared with, evenly drawn."""
    return set(names[:: -(-len(names) // (2 * _ROWS)) or 1])


def _vectors(
    segments: Sequence[Segment], wanted: set[str], bank: BankVersion
) -> tuple[npt.NDArray[np.float16], list[str]]:
    """Return (N, D) float16 of images, one for each, and their ids; of segments only one is open at a time."""
    vectors = [np.empty((0, bank.dim), np.float16)]
    ids: list[str] = []
    left = set(wanted)
    for segment in segments:
        if segment.centres or not left:
            continue
        names = segment.table["image_id"].to_pylist()
        mine = np.array([name in left for name in names], bool)
        if segment.gone is not None:
            mine &= ~segment.gone
        if mine.any():
            rows = tile_by_tile(segment.table, np.flatnonzero(mine), bank.tiles)
            vectors.append(image_vector(segment.vectors[rows]))
            ids += [names[row] for row in rows[:, 0]]
            left.difference_update(ids)
        segment.let_go()
    return np.concatenate(vectors), ids
