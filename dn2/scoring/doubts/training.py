"""Doubts about a bank: images far outside the others, too few units, and what its threshold cannot promise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import poisson

from dn2.records import BankVersion, Embedded, EmbedderName
from dn2.records.doubts import SHOWN, Doubt, named
from dn2.scoring.calibration import Calibration
from dn2.scoring.doubts.pictures import COLUMNS, OF_PICTURES, Shards, picture_doubts
from dn2.scoring.rows import living_rows
from dn2.store.storage import Store
from dn2.store.tables import keep_rows

FEW_UNITS = 20
_LARGE = 0.1  # share of the images
_TAIL, _CHANCE = 0.15, 1e-3  # see `far_out`
_RAISED = 1.5  # so many times the threshold without them


def bank_doubts(
    record: BankVersion,
    embedded: Embedded,
    store: Store,
    *,
    images: Any,
    scores: npt.NDArray[np.float32],
    unit_of: npt.NDArray[np.int64] | None,
) -> tuple[Doubt, ...]:
    """Return what is odd about the images that a bank is trained with, and what it cannot promise.

    Args:
        record: the bank.
        embedded: the training images.
        store: where they lie.
        images: Arrow table of the n images whose scores calibrate the bank.
        scores: (n,) float32, theirs.
        unit_of: (n,) int64, the number of each one's unit; None where each counts by itself.
    """
    found = [*promises(record), *calibration_doubts(record, images, scores, unit_of)]
    shards = _shards(embedded, store)
    return (*found, *picture_doubts(shards, store, crop=EmbedderName.parse(record.embedder).crop))


def changed_doubts(
    record: BankVersion, images: Any, scores: npt.NDArray[np.float32], unit_of: npt.NDArray[np.int64] | None
) -> tuple[Doubt, ...]:
    """Return the doubts of a bank that has grown or shrunk: what was said of pictures stays.

    Arguments are as in `bank_doubts`; the record has the doubts of the version before.
    """
    stay = (doubt for doubt in record.doubts if doubt.code in OF_PICTURES)
    return (*promises(record), *calibration_doubts(record, images, scores, unit_of), *stay)


def calibration_doubts(
    record: BankVersion, images: Any, scores: npt.NDArray[np.float32], unit_of: npt.NDArray[np.int64] | None
) -> Iterator[Doubt]:
    """Yield what the calibration of a bank makes doubtful; arguments as in `bank_doubts`."""
    if record.calibrated_by < FEW_UNITS:
        yield Doubt(
            "few-units",
            f"the bank rests on {record.calibrated_by} independent units, in {len(scores)} images that calibrate it, "
            f"fewer than {FEW_UNITS}: what comes may lie outside of all. Add images of other parts, places or days",
            {"units": record.calibrated_by, "images": len(scores), "expected": FEW_UNITS},
        )
    yield from _large_unit(images, unit_of)
    far = far_out(scores)
    if not far.any() or far.all():
        return
    without, _ = Calibration.of(scores[~far], None if unit_of is None else unit_of[~far]).threshold(
        record.false_alarm_rate
    )
    if record.threshold < _RAISED * without:
        return
    order = np.flatnonzero(far)[np.argsort(-scores[far], kind="stable")]
    uris = [images["uri"][int(row)].as_py() for row in order[:SHOWN]]
    yield Doubt(
        "far-images",
        f"{len(order):,} of {len(scores):,} training images lie far outside the others, and raise the threshold from "
        f"{without:.4g} to {record.threshold:.4g}: if they are not normal, remove them: {named(uris, len(order))}",
        {"far": len(order), "images": len(scores), "threshold": record.threshold, "threshold_without": without},
        tuple(uris),
    )


def _large_unit(images: Any, unit_of: npt.NDArray[np.int64] | None) -> Iterator[Doubt]:
    """Yield that one unit holds more than a tenth of the images, where there are 20 units: of fewer some one does."""
    if unit_of is None:
        return
    units, counts = np.unique(unit_of, return_counts=True)
    share = counts.max(initial=0) / len(unit_of)
    if len(units) < FEW_UNITS or share <= _LARGE:
        return
    rows = np.flatnonzero(unit_of == units[counts.argmax()])
    uris = [images["uri"][int(row)].as_py() for row in rows[:SHOWN]]
    yield Doubt(
        "large-unit",
        f"{len(rows):,} of {len(unit_of):,} images are copies or near copies of each other, or one group: they count "
        f"once. If they are independent, train with --units images: {named(uris, len(rows))}",
        {"images": len(unit_of), "of_unit": len(rows)},
        tuple(uris),
    )


def far_out(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return which of (N,) scores lie farther out than the tail of the others reaches.

    On a logarithmic scale the upper tail is modelled as exponential, with the slope that the scores have from the
    median to the highest 15 %. Of those, the j largest are far out if so many lie there by chance (Poisson) once in a
    thousand times or less; j is the number for which that is least likely.
    """
    count, far = len(scores), np.zeros(len(scores), bool)
    largest = np.argsort(-scores, kind="stable")[: int(_TAIL * count)]
    if not len(largest):
        return far
    logs = np.log(np.maximum(scores, np.finfo(np.float32).tiny).astype(np.float64))
    median, begin = np.quantile(logs, [0.5, 1 - _TAIL])
    slope = max((begin - median) / math.log(0.5 / _TAIL), np.finfo(np.float32).eps)
    expected = count * _TAIL * np.exp(-np.maximum(logs[largest] - begin, 0) / slope)
    chance = poisson.logsf(np.arange(len(largest)), expected)
    least = int(chance.argmin())
    far[largest[: least + 1]] = chance[least] < math.log(_CHANCE)
    return far


def promises(record: BankVersion) -> Iterator[Doubt]:
    """Yield why a bank cannot promise the false-alarm rate that was asked for, and if its images are all alike."""
    if record.threshold == 0 and record.copies < record.images - 1:
        yield Doubt(
            "no-differences",
            "the threshold is 0: the backbone sees no difference between the normal images; check its weights",
        )
    if record.attainable_rate > record.false_alarm_rate:
        enough = math.ceil(1 / record.false_alarm_rate - 1e-9) - 1
        what = "images" if record.calibrated_by == record.calibration_rows else "units"
        yield Doubt(
            "rate-not-kept",
            f"{record.calibrated_by} calibration {what} cannot promise a false-alarm rate of "
            f"{record.false_alarm_rate:.2%}, only {record.attainable_rate:.2%}; {enough} {what} would do",
            {
                "calibrated_by": record.calibrated_by,
                "asked": record.false_alarm_rate,
                "promised": record.attainable_rate,
                "needed": enough,
            },
        )


def _shards(embedded: Embedded, store: Store) -> Shards:
    def rows(number: int) -> Any:
        table = living_rows(embedded.shards[number], store, COLUMNS)
        return keep_rows(table, table["width"].is_valid().to_numpy())

    return Shards([one.path for one in embedded.shards], [one.embedded for one in embedded.shards], rows)
