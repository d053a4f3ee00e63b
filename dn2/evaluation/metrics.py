"""How well scores tell anomalous images from normal ones, where the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score


def roc_auc(scores: npt.NDArray[Any], is_anomaly: npt.NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: how often an anomalous image scores above a normal one, 0 to 1.

    Args:
        scores: (N,) anomaly scores.
        is_anomaly: (N,) the truth, with both values in it.
    """
    return float(roc_auc_score(is_anomaly, scores))
