"""A bank of normal groups: one vector for each, what is normal for their sizes, and what turns images into vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.checks import check_name
from dn2.errors import SchemaError
from dn2.groups.pooling import Pooling
from dn2.groups.sizes import Sizes
from dn2.neighbors.exact import search
from dn2.neighbors.products import Neighbors
from dn2.neighbors.segments import keys, segment_vectors
from dn2.neighbors.vectors import load_vectors
from dn2.neighbors.versions import current_version, read_version
from dn2.records import GroupBankVersion
from dn2.store.schemas import BANK_GROUPS, GROUP_CALIBRATION
from dn2.store.storage import Store
from dn2.store.tables import read_table


def open_group_bank(
    store: str | os.PathLike[str] | Store, name: str, *, version: str | None = None
) -> GroupBankVersion:
    """Return a version of a bank of groups, by default the current one.

    Raises:
        ConfigError: the name is no valid name.
        BankError: it is a bank of images.
        NotFoundError: there is no such bank or version in the store.
        SchemaError: its pointer or version file is not one.
    """
    store, name = Store.open(store), check_name(name)
    version = version or current_version(store, name)
    return read_version(store, name, version, GroupBankVersion)[0]


def group_keys(source: str, group_ids: list[str], contents: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return (2, G) int64 by which a group is known again: its name in its source, or the bytes of its images."""
    return np.stack([keys(f"{source}\0{name}" for name in group_ids), contents.view(np.int64)])


def open_sizes(
    store: Store, name: str, version: str, sizes: Sequence[int], names: list[str], contents: npt.NDArray[np.uint64]
) -> Sizes:
    """Return what a version's calibration says about the sizes of groups.

    Args:
        store: where it lies.
        name: the bank's name.
        version: of the bank.
        sizes: of the parts in it.
        names: of the G groups.
        contents: (G,) uint64, equal for groups of the same images.

    Raises:
        NotFoundError: the file is missing.
        SchemaError: it is damaged.
    """
    table = read_table(store, layout.bank_calibration(name, version), GROUP_CALIBRATION)
    effective, group_of = None, None
    number_of = {one: number for number, one in enumerate(names)}
    try:
        if not table["effective"].null_count:
            rows = [number_of[one] for one in table["group_id"].to_pylist()]
            effective, group_of = table["effective"].to_numpy(), contents[rows].view(np.int64)
        return Sizes.measured(
            sizes,
            table["size"].to_numpy(),
            table["distance"].to_numpy(),
            groups=len(names),
            effective=effective,
            group_of=group_of,
        )
    except (KeyError, ValueError) as error:
        raise SchemaError(
            f"bank {name!r} version {version}: the calibration does not fit sizes {tuple(sizes)} and {len(names)} "
            f"groups ({error}); train it again"
        ) from error


class GroupBank:
    """An opened version, ready to be searched.

    Attributes:
        record: its version.
        pooling: what turns images into vectors of groups.
        sizes: what is normal for groups of each size.
        rows: Arrow table with one row for each normal group.
        vectors: (G, P) float16, memory-mapped.
    """

    def __init__(self, record: GroupBankVersion, store: Store) -> None:
        self.record = record
        files = read_version(store, record.name, record.version, GroupBankVersion)[1]
        cells = files.cells
        if len(files.segments) != 1 or (record.pooling == "histogram") != (cells is not None):
            raise SchemaError(
                f"{store.uri_of(layout.bank_version(record.name, record.version))}: got {len(files.segments)} "
                f"segments and cells {cells!r:.40} for pooling {record.pooling}, expected one segment, and "
                f"cells for a histogram only; train it again"
            )
        path = layout.bank_segment(record.name, files.segments[0])
        self.vectors = segment_vectors(store, path, BANK_GROUPS)
        self.rows = read_table(store, f"{path}.parquet", BANK_GROUPS)
        self.pooling = Pooling(record.metric)
        if cells is not None:
            centers = np.array(load_vectors(store, layout.bank_cells(path), cells.crc32))
            self.pooling = Pooling(record.metric, centers, cells.width, cells.reach)
        if (self.vectors.shape, self.rows.num_rows) != ((record.groups, record.dim), record.groups):
            raise SchemaError(
                f"bank {record.name!r} version {record.version}: got {self.vectors.shape} vectors and "
                f"{self.rows.num_rows} groups, expected {(record.groups, record.dim)} vectors; train it again"
            )
        contents = self.rows["content"].to_numpy()
        self.sizes = open_sizes(
            store, record.name, record.version, record.sizes, self.rows["group_id"].to_pylist(), contents
        )
        names = zip(self.rows["source"].to_pylist(), self.rows["group_id"].to_pylist(), strict=True)
        self._keys = np.stack(
            [keys(f"{source}\0{name}" for source, name in names), self.rows["content"].to_numpy().view(np.int64)]
        )

    @classmethod
    def open(cls, store: Store, record: GroupBankVersion) -> GroupBank:
        """Return the opened bank; the last one is kept for the next caller in this process.

        Raises:
            NotFoundError: one of its files is missing.
            SchemaError: one of them is damaged.
        """
        return _opened(store.uri, record)

    def left(self, group_keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return (G,) int64: how many normal groups each group can be compared with: all but itself and its copies.

        Args:
            group_keys: (2, G) int64, see `group_keys`.
        """
        by_name, by_content = (_times(*pair) for pair in zip(group_keys, self._keys, strict=True))
        both = _times(group_keys[0] ^ (3 * group_keys[1]), self._keys[0] ^ (3 * self._keys[1]))
        left: npt.NDArray[np.int64] = len(self.vectors) - by_name - by_content + both
        return left

    def search(
        self, vectors: npt.NDArray[np.float16], group_keys: npt.NDArray[np.int64], *, memory_mb: int
    ) -> Neighbors:
        """Return the k nearest normal groups of each group, never the group itself.

        Args:
            vectors: (G, P) float16.
            group_keys: (2, G) int64, see `group_keys`.
            memory_mb: working memory, in MiB.
        """
        return search(
            vectors, self.vectors, self.record.k, query_keys=group_keys, bank_keys=self._keys, memory_mb=memory_mb
        )


def _times(values: npt.NDArray[np.int64], among: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (G,) int64: how often each value is among others."""
    names, counts = np.unique(among, return_counts=True)
    places = np.searchsorted(names, values).clip(max=len(names) - 1)
    return np.where(names[places] == values, counts[places], 0)


@lru_cache(maxsize=1)
def _opened(store_uri: str, record: GroupBankVersion) -> GroupBank:
    return GroupBank(record, Store.open(store_uri))
