"""Coarser dependence than that of units: patients, days, rolls. Images of one form a cluster, as images of a kind do.

Nothing in the images tells which it is, so it is told both ways: what rate is promised if the clusters are kinds of
images, and what it would be if each is one patient.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dn2.neighbors.reverse import distances_to
from dn2.scoring.calibrating import CalibrationImages
from dn2.scoring.kinds import kinds_of
from dn2.scoring.rows import image_vector
from dn2.scoring.units import one_of_each

_SAMPLE = 2_000  # images
_MOST = 60  # clusters: with more, a rate of 1.7 % is promised either way
_FEWEST = 20  # units


def clusters_in(images: CalibrationImages, tiles: int) -> int | None:
    """Return into how many clusters the units fall that calibrate a bank.

    None where that says nothing about patients: their groups are named, there are fewer than 20 units, or one cluster
    holds more than half of them.

    Args:
        images: that calibrate it.
        tiles: of each.
    """
    if images.unit_of is None or images.table["group_id"].null_count == 0:
        return None
    drawn = images.sample(_SAMPLE)
    one = drawn[one_of_each(images.unit_of[drawn])]
    if len(one) < _FEWEST:
        return None
    return clusters_of(image_vector(images.queries(one)[0].reshape(len(one), tiles, -1)))


def clusters_of(vectors: npt.NDArray[np.float16]) -> int | None:
    """Return into how many clusters images fall; None where one holds more than half of them.

    Args:
        vectors: (S, D) float16, one image of each unit.
    """
    own = np.arange(len(vectors), dtype=np.int64)[None]
    distances = np.concatenate(list(distances_to(vectors, own, vectors, own)))
    sizes = np.bincount(kinds_of(vectors, distances, most=_MOST))
    return None if 2 * int(sizes.max()) > len(vectors) else len(sizes)
