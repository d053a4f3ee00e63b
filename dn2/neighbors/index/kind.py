"""What an index is: how a bank's neighbours are searched, and what the bank holds for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numbers and torch are loaded where a bank is made, not where it is told of
    import numpy as np
    import numpy.typing as npt

    from dn2.neighbors.ivf import Cells
    from dn2.records import BankVersion


@dataclass(frozen=True, slots=True)
class Laid:
    """How rows come to lie in a segment.

    Attributes:
        rows: (M,) int64, which of the rows lie there, in their order; those nearest to the centres, if there are any.
        cells: where they lie, if they lie in cells.
        centres: (M, D) float32 that lie there in place of the rows.
    """

    rows: npt.NDArray[np.int64]
    cells: Cells | None = None
    centres: npt.NDArray[np.float32] | None = None


class Index:
    """An index; each states its traits, and what it does otherwise than one that holds all images as they come.

    Attributes:
        name: what it is called in settings and in the files of bank versions.
        exact: all images are compared: there is nothing to measure.
        divided: its rows lie in cells, of which some are visited.
        centres: centres stand in place of images: no image can be removed, or be known not to be in it.
        held_out: why only images that are held out can calibrate it; empty if others can too.
    """

    name: str
    exact = False
    divided = False
    centres = False
    held_out = ""

    def nlist(self, rows: int, cells: int, centroids: int) -> int:
        """Return how many cells a segment gets, or how many centres a bank of `rows` images gets.

        Args:
            rows: of the bank.
            cells: that suit a segment.
            centroids: centres that the settings allow.
        """
        return 0

    def rows(self, count: int, nlist: int) -> int:
        """Return how many rows are held for `count` rows of images."""
        return count

    def laid(self, vectors: npt.NDArray[np.float16], nlist: int) -> Laid:
        """Return how (N, D) vectors come to lie in a segment with `nlist` cells or centres."""
        import numpy as np

        return Laid(np.arange(len(vectors)))

    def size(self, bank: BankVersion) -> str:
        """Return what there is of its cells or centres, in words; nothing if it has none."""
        return ""

    def searched(self, bank: BankVersion) -> str:
        """Return how a bank is searched, in words; only asked where that is not exact."""
        return self.size(bank)

    def content(self, bank: BankVersion) -> str:
        """Return what a bank holds, in words."""
        return "normal images"
