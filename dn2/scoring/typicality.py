"""The rule `auto`: which training images look like many others, however many modes the normal ones have.

With few neighbours, impurities that come in small clusters are each other's nearest and look normal. A ball of more
neighbours than such a cluster has sees through that, but penalises normal images that are spread out. So it is asked
the other way round: in how many images' balls does an image lie? Those of a spread-out mode lie in each other's balls
as often as those of a tight one do; those of a small cluster only lie in their own few. The answer is weighted by the
answers for the images that ask (one step of a walk on the graph of neighbours), and asked a second time among the more
typical half, with smaller balls, which follow the shape of the modes.

Balls stand around a sample of at most 10,000 images: a million images cost a million times ten thousand products, and
memory for the distances within the sample (0.4 GB).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dn2.neighbors.reverse import covered, distances_to, radii, to_two_nearest

Block = tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]  # (B, D) unit vectors, (M, B) keys

SAMPLE = 10_000
_FIRST, _SECOND = (0.05, 0.1, 0.2), 0.03  # balls, as shares of the sample and of its typical half
_APART, _PLAIN, _SEEN = 0.4, 0.010, 0.33  # see `Sample.apart`
_HIDDEN = 0.07  # see `Sample.share`
_DROP = (0.25, 0.6)


class Sample:
    """Some of the images, among which balls are drawn.

    Attributes:
        vectors: (S, D) float16 of length 1.
        keys: (M, S) int64: image and content; -1 is no key.
    """

    def __init__(self, vectors: npt.NDArray[np.float16], keys: npt.NDArray[np.int64]) -> None:
        self.vectors, self.keys = vectors, keys
        self._halves: dict[float, npt.NDArray[np.bool_]] = {}
        self._apart: dict[float, float] = {}

    @cached_property
    def distances(self) -> npt.NDArray[np.float32]:
        """(S, S) float32, squared; infinite for an image and itself."""
        return np.concatenate(list(distances_to(self.vectors, self.keys, self.vectors, self.keys)))

    def typical_half(self, share: float) -> npt.NDArray[np.bool_]:
        """Return which rows, (S,), are more typical than the others, with balls of a share of the sample."""
        if share not in self._halves:
            limits, weights = _walked(self.distances, share)
            typicality = covered(self.distances, limits, weights)
            order = np.lexsort((-self.distances.min(axis=1), typicality))
            half = np.zeros(len(order), bool)
            half[order[len(order) // 2 :]] = True
            self._halves[share] = half
        return self._halves[share]

    @cached_property
    def _to_any(self) -> npt.NDArray[np.float32]:
        """(S,) float32 mean squared distance of each row to its two nearest others."""
        nearest: npt.NDArray[np.float32] = to_two_nearest(self.distances).mean(axis=1)
        return nearest

    def apart(self, share: float) -> float:
        """Return the share of images in clusters apart from the typical half, with balls of a share of the sample.

        An image of such a cluster has its two nearest others much closer than its two nearest of the typical half. The
        share of images for which the ratio of the squared distances is below 0.4, less what clean sets show (1 %), over
        the share of impurities for which it is (a third); both were measured on classes 0 to 4 of Fashion-MNIST.
        """
        if share not in self._apart:
            to_typical = to_two_nearest(self.distances, np.flatnonzero(self.typical_half(share))).mean(axis=1)
            apart = float((self._to_any < _APART * to_typical).mean())
            self._apart[share] = float(np.clip((apart - _PLAIN) / _SEEN, 0, 0.5))
        return self._apart[share]

    @cached_property
    def share(self) -> float:
        """The smallest balls that see as many images apart as the largest ones do, but for 7 % of all.

        A cluster of impurities that is larger than the balls looks typical, and hides. Larger balls than needed
        penalise modes that are spread out.
        """
        most = self.apart(max(_FIRST))
        return next(share for share in _FIRST if share == max(_FIRST) or self.apart(share) >= most - _HIDDEN)


def estimated_contamination(sample: Sample) -> float:
    """Return the share of the images that lie in clusters apart from the typical half, 0 to 0.5.

    Impurities that resemble nothing else, not even each other, are not counted.
    """
    return sample.apart(max(_FIRST))


def drop_for(contamination: float) -> float:
    """Return the share to drop: a quarter of clean images, six tenths from 3.5 % impurities on.

    Normal images that are dropped cost little, an impurity that is kept costs much.
    """
    low, high = _DROP
    return float(np.clip(low + 10 * contamination, low, high))


def oddities(blocks: Iterable[Block], sample: Sample) -> Iterator[npt.NDArray[np.float32]]:
    """Yield (B,) float32 for each block of images: higher is odder; at most 1, and above 1 for what is in no ball.

    Args:
        blocks: the images.
        sample: some of them.
    """
    half = sample.typical_half(sample.share)
    centers, keys = sample.vectors[half], sample.keys[:, half]
    limits, weights = _walked(sample.distances[np.ix_(half, half)], _SECOND)
    for vectors, own in blocks:
        parts = []
        for distances in distances_to(vectors, own, centers, keys):
            typicality = covered(distances, limits, weights)
            parts.append(np.where(typicality > 0, 1 / (1 + typicality), 1 + distances.min(axis=1)))
        yield np.concatenate(parts, dtype=np.float32) if parts else np.empty(0, np.float32)


def _walked(
    distances: npt.NDArray[np.float32], share: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return balls of a share of the rows around each row, and what each weighs: in how many others' its centre lies.

    Returns:
        (S,) float32 squared radii, and (S,) float32 weights: with them the mean typicality of the rows is near 1.
    """
    count = len(distances)
    k = max(2, min(round(share * count), count - 1))
    limits = radii(distances, k)
    weights = covered(distances, limits, np.full(count, 1 / k, np.float32))
    return limits, weights / np.float32(k)
