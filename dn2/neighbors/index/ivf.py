"""Index ivf: an image is compared with those of the nearest cells (see `dn2.neighbors.ivf`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dn2.neighbors.index.kind import Index, Laid
from dn2.words import many

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dn2.records import BankVersion


class Ivf(Index):
    """All images, cell by cell."""

    name = "ivf"
    divided = True

    def nlist(self, rows: int, cells: int, centroids: int) -> int:
        """Return the cells that suit a segment."""
        return cells

    def laid(self, vectors: npt.NDArray[np.float16], nlist: int) -> Laid:
        """Return the vectors divided into cells."""
        from dn2.neighbors.build import divide

        cells, order = divide(vectors, nlist)
        return Laid(order, cells=cells)

    def size(self, bank: BankVersion) -> str:
        """Return how many cells there are, and how many are visited."""
        return f"{many(bank.nlist, 'cell')}, {bank.nprobe:,} visited"

    def searched(self, bank: BankVersion) -> str:
        """Return the same; of several segments, one that was added may have more cells, or none."""
        if bank.segment_count == 1:
            return self.size(bank)
        return f"cells in each of {bank.segment_count:,} segments, at most {bank.nprobe:,} visited"
