"""How odd images are among those of their own kind, and which are nearer to kinds that are said to be foreign.

Oddness is the distance to the two nearest others, on a logarithmic scale, less its median in the kind, in units of the
spread below that median, where there are no anomalies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dn2.neighbors.reverse import distances_to, to_two_nearest
from dn2.scoring.kinds import kinds_of
from dn2.scoring.typicality import Block, Sample

_FEWEST = 12  # images of a kind that say what is usual in it
_UPPER_SIGMA = 0.1587  # share of a normal distribution below minus one sigma


@dataclass(frozen=True, slots=True)
class Told:
    """What is found of some images.

    Attributes:
        oddness: (B,) float32, spreads above the median of its kind; lower is more typical.
        kind: (B,) int64.
        foreign: (B,) bool, nearer to kinds that are said to be foreign than to the others.
    """

    oddness: npt.NDArray[np.float32]
    kind: npt.NDArray[np.int64]
    foreign: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.kind)


class Kinds:
    """The kinds of images of a sample, and what is usual in each.

    Attributes:
        sample: one image of each unit.
        of: (S,) int64 kind of each of its images, 0 the largest.
    """

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.of = kinds_of(sample.vectors, sample.distances)
        self._away = _logs(to_two_nearest(sample.distances))
        usual = [_usual(self._away[self.of == kind]) for kind in range(self.count)]
        self._median, self._spread = (np.array(column) for column in zip(*usual, strict=True))

    @property
    def count(self) -> int:
        """How many kinds there are."""
        return int(self.of.max()) + 1

    @property
    def main(self) -> int | None:
        """The kind that holds more than half of the sample: it is taken for normal. None where no kind does."""
        return 0 if 2 * int((self.of == 0).sum()) > len(self.of) else None

    def told_of_sample(self, foreign: Collection[int]) -> Told:
        """Return what is found of the images of the sample.

        Args:
            foreign: kinds that are said to be so.
        """
        mine = np.isin(self.of, list(foreign))
        return Told(self._oddness(self._away, self.of), self.of, mine | _nearer(self.sample.distances, mine))

    def told(self, blocks: Iterable[Block], foreign: Collection[int]) -> Iterator[Told]:
        """Yield what is found of each block of other images: each is of the kind of its nearest one of the sample.

        Args:
            blocks: the images.
            foreign: kinds that are said to be so.
        """
        mine = np.isin(self.of, list(foreign))
        for vectors, keys in blocks:
            for distances in distances_to(vectors, keys, self.sample.vectors, self.sample.keys):
                kind = self.of[distances.argmin(axis=1)]
                oddness = self._oddness(_logs(to_two_nearest(distances)), kind)
                yield Told(oddness, kind, np.isin(kind, list(foreign)) | _nearer(distances, mine))

    def _oddness(self, away: npt.NDArray[np.float64], kind: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = ((away - self._median[kind]) / self._spread[kind]).astype(np.float32)
        return found


def _nearer(distances: npt.NDArray[np.float32], mine: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return (Q,) which rows are nearer to two of the marked columns, (S,) bool, than to two others."""
    if not mine.any():
        return np.zeros(len(distances), bool)
    to_mine = to_two_nearest(distances, np.flatnonzero(mine)).sum(axis=1)
    found: npt.NDArray[np.bool_] = to_mine < to_two_nearest(distances, np.flatnonzero(~mine)).sum(axis=1)
    return found


def _logs(nearest: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    logs: npt.NDArray[np.float64] = np.log(np.maximum(nearest.mean(axis=1, dtype=np.float64), 1e-12))
    return logs


def _usual(away: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the median of a kind and the spread below it; of too few images no one is called odd."""
    if len(away) < _FEWEST:
        return 0.0, np.inf
    median = float(np.median(away))
    return median, max(median - float(np.quantile(away, _UPPER_SIGMA)), 1e-3)
