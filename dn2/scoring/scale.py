"""Local scale: a distance counts relative to how far images of that kind lie from each other.

Where kinds of normal images are unequally spread, or have unequally many images, one threshold for squared distances
flags those that are wide or rare. Breunig, Kriegel, Ng, Sander 2000 ("LOF: identifying density-based local outliers")
divide the density around a row by that around its neighbours; Schubert, Zimek, Kriegel 2014 ("Local outlier detection
reconsidered") write that as a ratio of distances, as it is done here.

A row's scale is the geometric mean of its own spread and that of its kind. Its own alone is noisy, and odd rows would
hide what is odd beside them. A kind's is the mean over the graph of mutual neighbours, whose connected parts are kinds
of images (Brito, Chavez, Quiroz, Yukich 1997, "Connectivity of the mutual k-nearest-neighbor graph in clustering and
outlier detection"): an odd row belongs to the kind that it is nearest to, and ten images are enough to be one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.neighbors.bank import Bank
from dn2.neighbors.products import Neighbors
from dn2.progress import advance
from dn2.store.schemas import SCALES
from dn2.store.storage import Store
from dn2.store.tables import writing

SPREAD = 5  # nearest others that make a row's spread: of a kind of ten images none lies outside it
NEIGHBOURS = 10  # of a row, over which spreads are averaged
_MUTUAL = 2  # of them must have the row among theirs too; otherwise all are its neighbours: it is odd
_ROUNDS = 32  # of averaging: with more, kinds that touch each other become one
_LEAST = 0.01  # of the mean spread: near copies that nobody named must not make a scale of nothing
_AT_ONCE = 10_000  # rows compared at a time


def relative(found: Neighbors, scales: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
    """Return (Q, k) float32: squared distances as they are, or each over the mean scale of the query's k neighbours.

    Their mean is a score: about 1 for an image among images like it, whatever kind of image that is.

    Args:
        found: (Q, k) neighbours, none missing.
        scales: (N,) float32 scales of the bank's rows, squared distances; None for a bank that has none.
    """
    if scales is None:
        return found.distances
    mean = scales[found.rows].mean(axis=1, dtype=np.float64)
    divided: npt.NDArray[np.float32] = (found.distances / mean[:, None]).astype(np.float32)
    return divided


def local_scales(bank: Bank, columns: tuple[str, ...], *, memory_mb: int) -> npt.NDArray[np.float32]:
    """Return (N,) float32 scales of all rows of a bank, squared distances; nan for those that were taken out.

    Args:
        bank: searched for its own rows, by its own index.
        columns: rows that share a key in one of them are none of each other's neighbours.
        memory_mb: working memory of the search, in MiB. Does not change the result.
    """
    rows = np.full((bank.count, NEIGHBOURS), -1, np.int64)
    spread = np.full(bank.count, np.nan)
    for numbers, vectors, keys in bank.blocks(columns):
        found = bank.nearest(vectors, keys, memory_mb=memory_mb, columns=columns, k=NEIGHBOURS)
        rows[numbers], spread[numbers] = found.rows, spreads(found)
        advance("scale", len(numbers), total=bank.count)
    return scales_of(rows, spread)


def spreads(found: Neighbors) -> npt.NDArray[np.float64]:
    """Return (N,) mean squared distances of rows to their 5 nearest others; 0 for one that has none.

    Args:
        found: (N, 10) of them, -1 where there are fewer.
    """
    there = found.rows[:, :SPREAD] >= 0
    total = np.where(there, found.distances[:, :SPREAD], 0).sum(axis=1, dtype=np.float64)
    return np.asarray(total / np.maximum(there.sum(axis=1), 1))


def scales_of(rows: npt.NDArray[np.int64], spread: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return (N,) float32 scales: each the geometric mean of a row's own spread and that of its kind.

    The latter are the spreads averaged 32 times over each row and its mutual neighbours; a row with fewer than 2 of
    these is averaged with all 10. The least scale is a hundredth of the mean spread; if that is 0, since all rows are
    alike, scales are 1.

    Args:
        rows: (N, 10) int64, the nearest others of each row; -1 where there are fewer.
        spread: (N,) squared distances; nan for rows that were taken out.
    """
    linked = np.zeros(rows.shape, bool)
    for low in range(0, len(rows), _AT_ONCE):
        block = slice(low, low + _AT_ONCE)
        mine = np.arange(len(rows))[block, None, None]
        linked[block] = (rows[rows[block]] == mine).any(axis=2) & (rows[block] >= 0)
    odd = linked.sum(axis=1) < _MUTUAL
    linked[odd] = rows[odd] >= 0
    kind, counts = spread, 1 + linked.sum(axis=1)
    for _ in range(_ROUNDS):
        total = kind.copy()
        for column in range(rows.shape[1]):
            total += np.where(linked[:, column], kind[rows[:, column]], 0)
        kind = total / counts
    living = ~np.isnan(spread)
    mean = float(spread[living].mean()) if living.any() else 0.0
    scales = np.maximum(np.sqrt(spread * kind), _LEAST * mean) if mean > 0 else np.where(living, 1.0, np.nan)
    return scales.astype(np.float32)


def write_scales(store: Store, bank: Bank, columns: tuple[str, ...], *, memory_mb: int) -> None:
    """Write the scales of a version that is not published yet, if its scores are scaled.

    Args:
        store: where to.
        bank: of the version.
        columns: see `local_scales`.
        memory_mb: working memory of the search, in MiB.

    Raises:
        StoreError: the store cannot be written.
    """
    if bank.search.scale == "none":
        return
    scales = local_scales(bank, columns, memory_mb=memory_mb)
    footer = {"neighbors": NEIGHBOURS, "columns": list(columns)}
    with writing(store, layout.bank_scales(bank.name, bank.version), SCALES, footer) as file:
        for first, segment in bank.parts():
            mine = scales[first : first + segment.count]
            ids = segment.table["image_id"].combine_chunks()
            file.write({"image_id": ids, "scale": np.ma.masked_array(mine, np.isnan(mine))})
