"""An embedding shard while it is filled, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.features.reading import Item, Wanted
from dn2.records import Shard
from dn2.sources.source import ABSENT
from dn2.store.schemas import EMBEDDINGS, MANIFEST, THUMBNAILS
from dn2.store.storage import Store
from dn2.store.tables import iter_rows, vector_column, writing

_COLUMNS = ["image_id", "uri", "version", "size", "present", "group_id", "label"]


class Draft:
    """The rows of one shard: from the manifest first, then with what became of each."""

    def __init__(self, shard: Shard, rows: dict[str, list[Any]], dim: int) -> None:
        self.shard = shard
        self._rows = rows
        self._items: list[Item] = []
        self._vectors = np.zeros((len(rows["uri"]), dim), np.float16)
        self._valid = np.zeros(len(rows["uri"]), bool)
        self._gone = set(shard.superseded)

    @classmethod
    def open(cls, shard: Shard, store: Store, dim: int) -> Draft:
        """Return an empty draft with the shard's slice of its manifest part."""
        rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        path = layout.manifest(shard.dataset, shard.part)
        for piece in iter_rows(store, path, MANIFEST, _COLUMNS, start=shard.start, stop=shard.stop):
            for name, values in piece.items():
                rows[name].extend(values)
        return cls(shard, rows, dim)

    @property
    def wanted(self) -> list[Wanted]:
        """What is to be read, row by row."""
        columns = (self._rows[name] for name in ("uri", "size", "present", "version"))
        return [
            Wanted(row, uri, version, size, present, absent=version == ABSENT)
            for row, (uri, size, present, version) in enumerate(zip(*columns, strict=True))
        ]

    @property
    def is_full(self) -> bool:
        """True when every row has its item."""
        return len(self._items) == len(self._valid)

    def add(self, items: list[Item], embeddings: npt.NDArray[np.float16]) -> int:
        """Take in the next items, with an embedding for each that has pixels; return how many are living images."""
        at = [item.row for item in items if item.pixels is not None]
        self._vectors[at] = embeddings
        self._valid[at] = True
        for item in items:
            item.pixels = None  # 600 kB each that nobody needs any more
        self._items += items
        return sum(item.row not in self._gone for item in items)

    def write(self, store: Store, path: str, provenance: Mapping[str, Any]) -> None:
        """Write the thumbnails and then the shard: when it is there, everything is.

        Raises:
            StoreError: the store cannot be written.
        """
        seen = [item for item in self._items if item.thumbnail is not None]
        with writing(store, layout.thumbnails(path), THUMBNAILS, provenance) as file:
            ids = [self._rows["image_id"][item.row] for item in seen]
            file.write({"image_id": ids, "thumbnail": [item.thumbnail for item in seen]})
        with writing(store, path, EMBEDDINGS.with_dim(self._vectors.shape[1]), provenance) as file:
            file.write(
                {
                    **{name: self._rows[name] for name in ("image_id", "uri", "group_id", "label")},
                    "embedding": vector_column(self._vectors, self._valid),
                    "content_sha256": [item.sha256 for item in self._items],
                    "width": [item.width for item in self._items],
                    "height": [item.height for item in self._items],
                    "size": [item.size for item in self._items],
                    "reject_reason": [item.reason for item in self._items],
                }
            )
