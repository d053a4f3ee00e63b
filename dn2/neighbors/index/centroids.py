"""Index centroids: an image is compared with k-means centres in place of the bank's images, as in the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dn2.neighbors.index.kind import Index, Laid
from dn2.words import many

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dn2.records import BankVersion


class Centroids(Index):
    """Centres of all images, in one segment; what is added later lies beside it as it comes."""

    name = "centroids"
    centres = True
    held_out = "every image helped to make the centres"

    def nlist(self, rows: int, cells: int, centroids: int) -> int:
        """Return how many centres there can be."""
        return min(centroids, rows)

    def rows(self, count: int, nlist: int) -> int:
        """Return the number of the centres, however many images they stand for."""
        return nlist

    def laid(self, vectors: npt.NDArray[np.float16], nlist: int) -> Laid:
        """Return centres, and the rows that lie nearest to them."""
        from dn2.neighbors.build import centres_of

        centres, nearest = centres_of(vectors, nlist)
        return Laid(nearest, centres=centres)

    def size(self, bank: BankVersion) -> str:
        """Return how many centres there are."""
        return many(bank.nlist, "centre")

    def searched(self, bank: BankVersion) -> str:
        """Return what images are compared with."""
        if bank.segment_count == 1:
            return f"compared with {bank.rows:,} centres instead of images"
        return "compared with centres instead of images, and with the images that were added since"

    def content(self, bank: BankVersion) -> str:
        """Return what the bank holds: images too, if some were added."""
        return "centres of normal images" if bank.segment_count == 1 else "centres and normal images"
