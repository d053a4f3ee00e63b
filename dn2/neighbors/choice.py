"""Which index suits a bank: from its size alone, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

from dn2.errors import BankError
from dn2.neighbors.build import ITERATIONS, PER_CELL, usual_nlist
from dn2.neighbors.index import EXACT, IVF, Index, index_of

_BYTES_PER_ROW = 300  # ids, URI and keys of one row in memory, rounded up

# Work is counted in rows compared with one image: what exact search does at the speed of a large matrix product. The
# constants say how many such rows something takes as long as (measured by benchmarks/neighbors.py).
_VISITED, _POWER = 5.2, 0.7  # share of the bank that an image visits: 5.2 / cells ** 0.7
_SLOWER = 1.5  # small products, and sorting what they give
_READ = 0.06  # of the bank, for an image of a batch of 2,000: its share of reading every cell once
_CELL = 1.5  # a product with a centroid, and looking after a cell
_WORTH = 0.8  # of the time of exact search: what saves less is not worth an approximation
_MEASURED = 2_500  # images compared with all rows to choose nprobe, and writing the rows in another order


@dataclass(frozen=True, slots=True)
class Choice:
    """An index, and what it takes.

    Attributes:
        index: which.
        nlist: cells of a segment, or centres; 0 if it has none.
        memory_gb: what the bank needs in memory when it is searched, in GiB: its largest segment with its ids.
        why: in words.
    """

    index: Index
    nlist: int
    memory_gb: float
    why: str


def choose_index(
    rows: int,
    dim: int,
    *,
    index: str = "auto",
    expected_queries: int = 100_000,
    nlist: int | None = None,
    centroids: int = 100,
    segment_rows: int | None = None,
    budget_gb: float = 8.0,
) -> Choice:
    """Return the index that a bank gets.

    Args:
        rows: normal images in the bank.
        dim: length of an embedding.
        index: auto, or the name of one.
        expected_queries: images that the bank will score.
        nlist: cells, if the user has said so.
        centroids: centres, at most.
        segment_rows: images of a segment; None for one segment.
        budget_gb: memory that its largest segment may need.

    Raises:
        BankError: it would need more.
    """
    largest = min(rows, segment_rows or rows)
    cells = min(nlist or usual_nlist(largest), largest)
    chosen, why = (index_of(index), "as asked for") if index != "auto" else _auto(rows, cells, expected_queries)
    nlist = chosen.nlist(rows, cells, centroids)
    divided = nlist if chosen.divided else 0
    memory = needed_gb(chosen.rows(largest, nlist), dim, divided)
    if memory > budget_gb:
        room = budget_gb * 2**30 - 4 * dim * divided
        raise BankError(
            f"bank of {rows} rows: index {chosen.name} needs {memory:.2f} GiB, expected at most bank_memory_gb = "
            f"{budget_gb:g}; raise it, set segment_rows to at most "
            f"{max(1, int(room / (2 * dim + _BYTES_PER_ROW)))}, or use index centroids"
        )
    return Choice(chosen, nlist, memory, why)


def _auto(rows: int, cells: int, queries: int) -> tuple[Index, str]:
    """Return the index that takes less time for so many images to score, and why."""
    slow, fast = queries * rows, building(rows, cells) + queries * visiting(rows, cells)
    if fast < _WORTH * slow:
        return IVF, (
            f"to score {queries:,} images, making and using {cells:,} cells takes "
            f"{fast / slow:.0%} of the time of comparing each with all {rows:,}"
        )
    return EXACT, (
        f"to score {queries:,} images, comparing each with all {rows:,} takes no longer than making and using cells"
    )


def needed_gb(rows: int, dim: int, nlist: int = 0) -> float:
    """Return the memory that a segment with its ids and cells needs when it is searched, in GiB."""
    return (rows * (2 * dim + _BYTES_PER_ROW) + nlist * 4 * dim) / 2**30


def visiting(rows: int, cells: int) -> float:
    """Return how many rows' worth of work one image is for an index of cells."""
    share: float = _SLOWER * min(1.0, _VISITED / cells**_POWER) + _READ
    return _CELL * cells + share * rows


def building(rows: int, cells: int) -> float:
    """Return how many rows' worth of work it is to make cells: k-means on a sample, assigning all rows, nprobe."""
    return float(min(rows, PER_CELL * cells) * cells * ITERATIONS + rows * cells + _MEASURED * rows)
