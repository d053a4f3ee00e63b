"""How much each thing in a store takes: one walk over its files, of which only names, sizes and times are seen."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from dn2.layout import SUMMARY
from dn2.records import Size
from dn2.store.listing import StoredFile
from dn2.store.storage import Store

_LISTED = ("manifests", "embeddings", "rejects", "watermarks", ".tmp")  # few files, each of them a thing of its own
_FOLDERS = {"scores": 3, "reports": 3, "cleaning": 2}  # many files: told by folder, whose path has so many names
_NEVER = float("inf")  # as new as can be: where times are not known, nothing is ever old


@dataclass(slots=True)
class Folder:
    """A folder that stands for one thing: a report, a cleaning, a batch's scores.

    Attributes:
        size: of all files in it and below.
        newest: seconds since 1970 of the file that was written last; infinite where that is not known.
        whole: the same of its summary; None if it has none.
    """

    size: Size = field(default_factory=Size)
    newest: float = 0.0
    whole: float | None = None


@dataclass(slots=True)
class Inventory:
    """What one walk over a store has seen.

    Attributes:
        total: of all files.
        sizes: of each thing, by the first two names of its path; the second one is empty for a file at the top.
        files: below manifests, embeddings, rejects, watermarks and .tmp, by that name.
        folders: below scores, reports and cleaning, by path.
    """

    total: Size = field(default_factory=Size)
    sizes: dict[tuple[str, str], Size] = field(default_factory=dict)
    files: dict[str, list[StoredFile]] = field(default_factory=lambda: defaultdict(list))
    folders: dict[str, Folder] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> Inventory:
        """Walk over a store.

        Raises:
            StoreError: it cannot be listed.
        """
        found = cls()
        for file in store.walk():
            found._add(file)
        return found

    def _add(self, file: StoredFile) -> None:
        names, one = file.path.split("/"), Size(1, file.size)
        top, second = names[0], names[1] if len(names) > 1 else ""
        self.total += one
        self.sizes[top, second] = self.sizes.get((top, second), Size()) + one
        if top in _LISTED:
            self.files[top].append(file)
        depth = _FOLDERS.get(top)
        if depth is not None and len(names) > depth:
            folder = self.folders.setdefault("/".join(names[:depth]), Folder())
            time = _NEVER if file.modified is None else file.modified
            folder.size += one
            folder.newest = max(folder.newest, time)
            if names[depth:] == [SUMMARY]:
                folder.whole = time

    def size(self, top: str, second: str | None = None) -> Size:
        """Return what lies in a folder at the top, or in one of its folders."""
        if second is not None:
            return self.sizes.get((top, second), Size())
        return sum((size for (one, _), size in self.sizes.items() if one == top), Size())

    def below(self, top: str) -> list[str]:
        """Return the sorted names of the folders in a folder at the top that hold a file."""
        return sorted(second for one, second in self.sizes if one == top and second)
