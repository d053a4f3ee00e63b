"""Which files of a store are dn2's own, by their names. No other file is touched."""

from __future__ import annotations

from dn2 import layout
from dn2.store.listing import StoredFile
from dn2.store.storage import Store


class OwnedFiles:
    """Tells which files of a store dn2 has written itself, and may delete."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._links = {"": False}  # the root may be one

    def has(self, path: str) -> bool:
        """Return whether a file is dn2's own: it has a name that dn2 gives, and no folder on the way is a link."""
        return layout.is_removable(path) and not self.is_behind_link(path.rpartition("/")[0])

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
