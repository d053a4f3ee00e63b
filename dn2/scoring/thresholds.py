"""Above which score an image is anomalous: the bank's own threshold, or one by rate, quantile, number or budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dn2.config import ThresholdConfig
from dn2.records import BankVersion
from dn2.scoring.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold and where it comes from.

    Attributes:
        value: a higher score is anomalous (squared distance); a float32, as scores are.
        rule: how it was chosen, in words.
        warning: what it cannot promise, if anything.
    """

    value: float
    rule: str
    warning: str | None = None


class Largest:
    """The largest scores of a batch that is seen part by part.

    Attributes:
        scores: (at most `count`,) float32, descending.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.scores = np.empty(0, np.float32)

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        """Take the (Q,) float32 scores of the next part."""
        if self.count:
            self.scores = np.sort(np.concatenate([self.scores, scores]))[::-1][: self.count]


def remembered(config: ThresholdConfig) -> int:
    """Return how many of the largest scores of a batch the rule must see: one more than the budget, or none."""
    return config.budget + 1 if config.budget is not None else 0


def choose_threshold(
    config: ThresholdConfig,
    bank: BankVersion,
    calibration: Calibration,
    largest: npt.NDArray[np.float32],
) -> Threshold:
    """Return the threshold that a rule gives for a batch.

    Args:
        config: the rule; empty means the bank's own threshold.
        bank: its version.
        calibration: its calibration.
        largest: the largest scores of the batch, (at most `remembered`,) float32, descending.
    """
    if config.false_alarm_rate is not None:
        value, promised = calibration.threshold(config.false_alarm_rate)
        rule = f"a false-alarm rate of {100 * config.false_alarm_rate:.4g}%"
        return Threshold(value, rule, _broken_promise(bank, config.false_alarm_rate, promised))
    if config.quantile is not None:
        rank = math.ceil(Fraction(repr(config.quantile)) * len(calibration.scores))
        return Threshold(
            float(calibration.scores[rank - 1]), f"the quantile {config.quantile:.6g} of the calibration scores"
        )
    if config.value is not None:
        return Threshold(float(np.float32(config.value)), f"a fixed number, {config.value:.6g}")
    rule = f"the bank's own, for a false-alarm rate of {100 * bank.false_alarm_rate:.4g}%"
    if config.budget is None:
        warning = _broken_promise(bank, bank.false_alarm_rate, bank.attainable_rate)
        return Threshold(bank.threshold, rule, warning)
    budget = f"at most {config.budget} images of this batch"
    if not len(largest):  # nothing was scored
        return Threshold(bank.threshold, f"{budget}; as none was scored, {rule}")
    if len(largest) > config.budget:
        return Threshold(float(largest[config.budget]), budget)
    return Threshold(float(np.nextafter(largest[-1], np.float32(-np.inf))), budget)


def _broken_promise(bank: BankVersion, asked: float, promised: float) -> str | None:
    if promised <= asked:
        return None
    units = "" if bank.calibrated_by == bank.calibration_rows else f" in {bank.units} units"
    return (
        f"the bank has only {bank.calibration_rows} calibration images{units}: its threshold promises a false-alarm "
        f"rate of {promised:.2%}, not the {asked:.2%} asked for"
    )
