"""What the manifest parts of a dataset say together: which images it holds now, and in which rows they stand."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dn2.images.source import ListedFile
from dn2.store import layout
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import iter_rows

_PART = re.compile(r"\d+-[0-9a-f]{16}\.parquet")
_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE known (uri TEXT PRIMARY KEY, image_id TEXT, present INTEGER, part INTEGER, row INTEGER) WITHOUT ROWID;
CREATE TABLE found (uri TEXT PRIMARY KEY, version TEXT, size INTEGER) WITHOUT ROWID;
"""
# The same row written twice, by two ingests at once, is folded into the first.
_LEARN = """
INSERT INTO known VALUES (?, ?, ?, ?, ?) ON CONFLICT (uri) DO UPDATE SET
    image_id = excluded.image_id, present = excluded.present, part = excluded.part, row = excluded.row
    WHERE known.image_id <> excluded.image_id OR known.present <> excluded.present
"""


def part_names(store: Store, dataset: str) -> tuple[str, ...]:
    """Return the names of a dataset's manifest parts, oldest first; an unknown dataset has none."""
    names = store.names(layout.manifests(dataset))
    return tuple(name.removesuffix(".parquet") for name in names if _PART.fullmatch(name))


def image_id(uri: str, version: str) -> str:
    """Return 32 hex digits of the sha256 of an image's URI and version."""
    return hashlib.sha256(f"{uri}\0{version}".encode()).hexdigest()[:32]


class ManifestIndex:
    """The union of manifest parts in a temporary database on disk, so that memory does not grow with the dataset."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    @classmethod
    @contextmanager
    def of(cls, store: Store, dataset: str, parts: Iterable[str]) -> Iterator[ManifestIndex]:
        """Yield the index of the given parts, later ones overruling earlier ones."""
        with (
            tempfile.TemporaryDirectory(prefix="dn2-") as folder,
            closing(sqlite3.connect(Path(folder) / "manifest.sqlite", isolation_level=None)) as database,
        ):
            database.executescript(_TABLES)
            index = cls(database)
            for number, part in enumerate(parts):
                index._learn(store, layout.manifest(dataset, part), number)
            yield index

    def _learn(self, store: Store, path: str, number: int) -> None:
        row = 0
        for rows in iter_rows(store, path, MANIFEST, ["uri", "image_id", "present"]):
            keys = zip(rows["uri"], rows["image_id"], rows["present"], strict=True)
            self._database.execute("BEGIN")
            self._database.executemany(
                _LEARN, ((*key, number, position) for position, key in enumerate(keys, start=row))
            )
            self._database.execute("COMMIT")
            row += len(rows["uri"])

    def find(self, files: Iterable[ListedFile]) -> int:
        """Take in a listing; return how many URIs it held."""
        self._database.execute("BEGIN")
        done = self._database.executemany(
            "INSERT OR IGNORE INTO found VALUES (?, ?, ?)", ((f.uri, f.version, f.size) for f in files)
        )
        self._database.execute("COMMIT")
        return done.rowcount

    def new_or_changed(self) -> Iterator[tuple[ListedFile, str, bool]]:
        """Yield each listed file that is not known as it is, its image id, and whether its URI was known; by URI."""
        query = """
            SELECT found.uri, version, size, image_id, present FROM found LEFT JOIN known USING (uri) ORDER BY found.uri
        """
        for uri, version, size, known_id, present in self._database.execute(query):
            identity = image_id(uri, version)
            if identity != known_id or not present:
                yield ListedFile(uri, version, size), identity, bool(present)

    def vanished(self) -> Iterator[tuple[str, str]]:
        """Yield URI and image id of each known image that the listing does not show; by URI."""
        query = """
            SELECT known.uri, image_id FROM known LEFT JOIN found USING (uri)
            WHERE present AND found.uri IS NULL ORDER BY known.uri
        """
        yield from self._database.execute(query)

    def live_rows(self) -> Iterator[tuple[int, int]]:
        """Yield (number of the part, row in it) of every image that the dataset holds now, in order."""
        yield from self._database.execute("SELECT part, row FROM known WHERE present ORDER BY part, row")
