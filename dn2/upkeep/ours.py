"""What in a store is dn2's own, by its name: whatever else lies there is none of its business."""

from __future__ import annotations

import re

from dn2.store.listing import StoredFile
from dn2.store.storage import Store

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # of a dataset or bank
_HEX = r"[0-9a-f]{16}"
_PART = rf"\d+-{_HEX}(-all)?"
_EMBEDDER = r"[^/\n]+-[0-9a-f]{12}"
_REPORT = r"summary\.json|report\.html|histogram\.png|groups\.parquet|part-\d{5,}\.parquet"
_FILE = re.compile(
    rf"\.tmp/[0-9a-f]{{32}}(\.[^/]*)?|"
    rf"manifests/{_NAME}/{_PART}\.parquet|"
    rf"embeddings/{_EMBEDDER}/probes\.parquet|"
    rf"embeddings/{_EMBEDDER}/{_NAME}/{_PART}-\d{{9}}-\d{{9}}-[0-9a-f]{{8}}(\.thumbnails)?\.parquet|"
    rf"watermarks/{_NAME}/{_NAME}/{_PART}-{_HEX}\.json|"
    rf"rejects/{_NAME}/{_HEX}\.parquet|"
    rf"cleaning/{_HEX}/(summary\.json|report\.html|rows\.parquet)|"
    rf"scores/{_NAME}/{_HEX}/(found-\d{{4,}}-\d{{4,}}/)?part-\d{{5,}}\.parquet|"
    rf"reports/{_NAME}/{_HEX}/({_REPORT})"
)


class Ours:
    """Tells what of a store dn2 has written there itself, and may remove."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._links = {"": False}  # the root may be one

    def has(self, path: str) -> bool:
        """Return whether a file is dn2's own: it has a name that dn2 gives, and no folder on the way is a link."""
        return is_ours(path) and not self.is_behind_link(path.rpartition("/")[0])

    def files_in(self, folder: str) -> list[StoredFile]:
        """Return dn2's own files below a folder.

        Raises:
            StoreError: it cannot be listed.
        """
        return [] if self.is_behind_link(folder) else [file for file in self._store.walk(folder) if self.has(file.path)]

    def is_behind_link(self, folder: str) -> bool:
        """Return whether a folder, or one above it, is a link: then what lies there is not the store's alone."""
        if folder not in self._links:
            place = self._store.local(folder)
            above = self.is_behind_link(folder.rpartition("/")[0])
            self._links[folder] = above or (place is not None and place.is_symlink())
        return self._links[folder]


def is_ours(path: str) -> bool:
    """Return whether a path is one that dn2 gives to a file that may be removed one day."""
    return _FILE.fullmatch(path) is not None
