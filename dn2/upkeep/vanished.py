"""Which rows of manifest parts stand for an image that the dataset still holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from dn2.images.manifest import ManifestIndex
from dn2.store.storage import Store


@dataclass(frozen=True, slots=True)
class Lives:
    """The living rows of a manifest part.

    Attributes:
        rows: (M,) int64, ascending.
    """

    rows: npt.NDArray[np.int64]

    def between(self, start: int, stop: int) -> int:
        """Return how many of them lie in a slice."""
        low, high = np.searchsorted(self.rows, [start, stop])
        return int(high - low)


def lives_of(store: Store, dataset: str, parts: Sequence[str]) -> dict[str, Lives]:
    """Return the living rows of each of some manifest parts of a dataset, by its name: 8 bytes for each.

    A row that is dead among some parts is dead among more of them too: an image that came back has a new row.

    Raises:
        NotFoundError: one of the parts is missing.
        SchemaError: one is damaged.
        StoreError: the store cannot be read.
    """
    found = {part: Lives(np.zeros(0, np.int64)) for part in parts}
    with ManifestIndex.of(store, dataset, parts) as index:
        for number, places in groupby(index.live_rows(), key=lambda place: place[0]):
            found[parts[number]] = Lives(np.fromiter((row for _, row in places), np.int64))
    return found
