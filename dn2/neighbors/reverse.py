"""Reverse neighbours: how many rows of a sample have a row among their own k nearest.

A count of who has whom among its neighbours needs no common scale: where images are spread out, so are the balls of
their neighbours. Radovanovic, Nanopoulos, Ivanovic 2015 ("Reverse nearest neighbors in unsupervised distance-based
outlier detection") call rows that are nobody's neighbour antihubs; Hautamaki, Karkkainen, Franti 2004 use the count.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dn2.neighbors.products import Products, Rows, Visit

_QUERIES = 1024  # per block of products
_ROWS = 64  # of distances that are looked at together: they stay in the cache


def distances_to(
    queries: npt.NDArray[np.float16],
    query_keys: npt.NDArray[np.int64],
    centers: npt.NDArray[np.float16],
    center_keys: npt.NDArray[np.int64],
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield (B, S) float32 squared distances of the next B queries; infinite where they share a key with a centre.

    They are products, rounded like those of `search`, and made to be compared with each other: not to be scores.

    Args:
        queries: (Q, D) float16.
        query_keys: (M, Q) int64; -1 is no key.
        centers: (S, D) float16.
        center_keys: (M, S) int64.
    """
    rows, visits = Rows(centers, center_keys), [Visit(0, len(centers))]
    for low in range(0, len(queries), _QUERIES):
        block = slice(low, low + _QUERIES)
        products = Products(queries[block], query_keys[:, block], rows, visits)
        for _, values in products:
            yield np.maximum(values.numpy() + products.norms.astype(np.float32)[:, None], 0)


def radii(distances: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float32]:
    """Return (S,) float32: the squared radius of the ball around each row that holds its k nearest others.

    It lies midway between the k-th and the next one: rounding moves no row across it, unless there are copies.

    Args:
        distances: (S, S) float32, infinite for a row and itself.
        k: below S. Where fewer others are left for a row, its ball holds all of them.
    """
    found = np.empty(len(distances), np.float32)
    for low in range(0, len(distances), _ROWS):
        part = np.partition(distances[low : low + _ROWS], k, axis=1)
        last = np.where(np.isinf(part[:, :k]), -1, part[:, :k]).max(axis=1)
        following = np.where(np.isinf(part[:, k]), last + 1, part[:, k])
        found[low : low + _ROWS] = (last + following) / 2
    return found


def covered(
    distances: npt.NDArray[np.float32], radii: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return (Q,) float32: the weights of the balls in which each row lies.

    Args:
        distances: (Q, S) float32, squared, of rows to the centres of balls.
        radii: (S,) float32, squared.
        weights: (S,) float32.
    """
    found = np.empty(len(distances), np.float32)
    for low in range(0, len(distances), _ROWS):
        found[low : low + _ROWS] = (distances[low : low + _ROWS] <= radii).astype(np.float32) @ weights
    return found


def to_two_nearest(
    distances: npt.NDArray[np.float32], columns: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.float32]:
    """Return (Q, 2) float32: the two smallest of each row, ascending; infinite where there are fewer.

    Args:
        distances: (Q, S) float32.
        columns: (M,) int64, which of them count; by default all.
    """
    found = np.full((len(distances), 2), np.inf, np.float32)
    for low in range(0, len(distances), _ROWS):
        part = distances[low : low + _ROWS]
        part = part.copy() if columns is None else part.take(columns, axis=1)
        rows = np.arange(len(part))
        for place in range(min(2, part.shape[1])):  # two passes are faster than a partition
            nearest = part.argmin(axis=1)
            found[low : low + _ROWS, place] = part[rows, nearest]
            part[rows, nearest] = np.inf
    return found
