"""Doubts about a batch: images that its bank knows already, another kind of image, and its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

from dn2 import layout
from dn2.records import BankVersion, EmbedderName, Scored
from dn2.records.doubts import Doubt
from dn2.scoring.calibration import LEAVE_ONE_OUT_ROWS
from dn2.scoring.doubts.known import known_doubts, near_units, read_parts
from dn2.scoring.doubts.pictures import COLUMNS, Shards, picture_doubts
from dn2.store.schemas import CALIBRATION, EMBEDDINGS, SCORES
from dn2.store.storage import Store
from dn2.store.tables import keep_rows, read_table

_EFFECT, _CHANCE = 0.95, 1e-3  # see `another_kind`


@dataclass(frozen=True, slots=True)
class Checked:
    """A batch that was compared with what its bank holds.

    Attributes:
        doubts: what is odd about it.
        known: (N,) bool of each part of the scores, which of its rows are images that the bank holds.
    """

    doubts: tuple[Doubt, ...]
    known: tuple[npt.NDArray[np.bool_], ...]


def check_batch(scored: Scored, store: Store, bank: BankVersion) -> Checked:
    """Return what is odd about a scored batch.

    Args:
        scored: its scores.
        store: where they lie.
        bank: what it was compared with.

    Raises:
        NotFoundError: a part of the scores or a file of the bank is missing.
        SchemaError: one of them is damaged.
    """
    known = read_table(store, layout.bank_calibration(bank.name, bank.version), CALIBRATION, ["score", "unit"])
    calibration, units_known = known["score"].to_numpy(), not known["unit"].null_count
    calibration_units = known["unit"].to_numpy() if units_known else np.arange(len(calibration))
    parts = read_parts(scored, store, bank, float(np.median(calibration)))
    doubts = list(known_doubts(scored, store, parts))
    if not parts:
        return Checked((), ())
    scores, units = (np.concatenate([getattr(part, name)[part.new] for part in parts]) for name in ("scores", "units"))
    whole = all(store.exists(part.shard) for part in scored.parts)
    kind = another_kind(scores, units, calibration, calibration_units)
    if kind is not None and whole and bank.tiles == 1 and len(scores) <= LEAVE_ONE_OUT_ROWS:  # only then a search
        kind = another_kind(scores, near_units(scored, store, bank, parts), calibration, calibration_units)
    crop = EmbedderName.parse(bank.embedder).crop
    pictures = picture_doubts(_shards(scored, store), store, crop=crop, known=bank.doubts)
    found = (*doubts, *([] if kind is None else [kind]), *pictures)
    return Checked(found, tuple(part.known for part in parts))


def another_kind(
    scores: npt.NDArray[np.float32],
    units: npt.NDArray[np.int64],
    calibration: npt.NDArray[np.float32],
    calibration_units: npt.NDArray[np.int64],
) -> Doubt | None:
    """Return a doubt if nearly all of a batch scores higher, or lower, than the images that calibrate the bank.

    Units count once, as their median score: one burst of an odd part is no batch of another kind. The probability that
    a unit of the batch scores higher than one of the calibration (Mann-Whitney's U over the number of pairs) must be
    at least 0.95, or at most 0.05, and not so by chance.

    Args:
        scores: (N,) float32 of the batch.
        units: (N,) int64, the number of each image's unit.
        calibration: (n,) float32.
        calibration_units: (n,) int64.
    """
    if not len(scores):
        return None
    batch, normal = unit_medians(scores, units), unit_medians(calibration, calibration_units)
    result = mannwhitneyu(batch, normal)
    higher, chance = float(result.statistic) / (len(batch) * len(normal)), float(result.pvalue)
    if max(higher, 1 - higher) < _EFFECT or chance > _CHANCE:
        return None
    side, other, why = (
        ("higher", higher, "it is not the same kind of image, or was taken or cut otherwise: train a bank of its own")
        if higher > 0.5
        else ("lower", 1 - higher, "it is like the training images in more than kind: its p-values say too little")
    )
    return Doubt(
        "another-kind",
        f"nearly all of the batch scores {side} than the images that calibrate the bank, each of {len(batch):,} units "
        f"with a probability of {other:.1%}: {why}",
        {"units": len(batch), "calibration_units": len(normal), "scores_higher": higher, "chance": chance},
    )


def unit_medians(scores: npt.NDArray[np.float32], units: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the median score of each of M units, (M,) float64.

    Args:
        scores: (N,) float32.
        units: (N,) int64, equal for images of one unit.
    """
    number = np.unique(units, return_inverse=True)[1].reshape(-1)
    ordered = scores[np.lexsort((scores, number))].astype(np.float64)
    sizes = np.bincount(number)
    first = np.cumsum(sizes) - sizes
    medians: npt.NDArray[np.float64] = (ordered[first + (sizes - 1) // 2] + ordered[first + sizes // 2]) / 2
    return medians


def _shards(scored: Scored, store: Store) -> Shards:
    parts = [part for part in scored.parts if store.exists(part.shard)]

    def rows(number: int) -> Any:
        part = parts[number]
        table = read_table(store, part.shard, EMBEDDINGS, COLUMNS)
        living = set(read_table(store, part.path, SCORES, ["image_id"])["image_id"].to_pylist())
        mask = [name in living for name in table["image_id"].to_pylist()]
        return keep_rows(table, np.array(mask, bool) & table["width"].is_valid().to_numpy())

    return Shards([one.shard for one in parts], [one.scored for one in parts], rows)
