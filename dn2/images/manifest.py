"""What the manifest parts of a dataset say together: which images it holds now, and in which rows they stand."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dn2 import layout
from dn2.errors import SchemaError
from dn2.sources.source import ListedFile
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import iter_rows, read_config

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE known (
    uri TEXT PRIMARY KEY, image_id TEXT, present INTEGER, group_id TEXT, label TEXT, part INTEGER, row INTEGER
) WITHOUT ROWID;
CREATE TABLE found (
    uri TEXT PRIMARY KEY, version TEXT, size INTEGER, group_id TEXT, label TEXT,
    times INTEGER DEFAULT 1, clashes INTEGER DEFAULT 0, other_group_id TEXT, other_label TEXT
) WITHOUT ROWID;
"""
# The same row written twice, by two ingests at once, is folded into the first.
_LEARN = """
INSERT INTO known VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (uri) DO UPDATE SET
    image_id = excluded.image_id, present = excluded.present, group_id = excluded.group_id, label = excluded.label,
    part = excluded.part, row = excluded.row
    WHERE known.image_id <> excluded.image_id OR known.present <> excluded.present
        OR known.group_id IS NOT excluded.group_id OR known.label IS NOT excluded.label
"""
# The same file listed twice is one image; with another group or label it is a clash, of which one example is kept.
_FIND = """
INSERT INTO found (uri, version, size, group_id, label) VALUES (?, ?, ?, ?, ?) ON CONFLICT (uri) DO UPDATE SET
    times = times + 1,
    other_group_id = iif(clashes, other_group_id, excluded.group_id),
    other_label = iif(clashes, other_label, excluded.label),
    clashes = clashes OR found.group_id IS NOT excluded.group_id OR found.label IS NOT excluded.label
"""
Grouping = tuple[str | None, str | None]  # group_id and label


@dataclass(frozen=True, slots=True)
class Parts:
    """The manifest parts of a dataset that lie in a store.

    Attributes:
        counted: names of those that make the dataset, oldest first.
        replaced: names of those that a merged part stands for, and of that merged part.
    """

    counted: tuple[str, ...]
    replaced: dict[str, str]


def part_names(store: Store, dataset: str) -> tuple[str, ...]:
    """Return the names of a dataset's manifest parts, oldest first; an unknown dataset has none.

    Parts that a merged part stands for are left out.

    Raises:
        SchemaError: a merged part is damaged.
    """
    return all_parts(store, dataset).counted


def all_parts(store: Store, dataset: str) -> Parts:
    """Return the manifest parts of a dataset that count, and those that a merged part stands for.

    A merged part stands where the last part stood that it was made of: before a part of the same number that it does
    not know, which an ingest at the same time wrote.

    Raises:
        SchemaError: a merged part is damaged.
    """
    folder = layout.manifests(dataset)
    known = (layout.manifest.parse(f"{folder}/{name}") for name in store.names(folder))
    names = sorted((one["part"] for one in known if one), key=lambda part: (number_of(part), not is_merged(part), part))
    replaced: dict[str, str] = {}
    contents = {name: _named(store, dataset, name, "replaces") for name in names if is_merged(name)}
    for name, content in contents.items():
        replaced = dict.fromkeys(content, name) | replaced  # the first merge has replaced it
        for other, more in contents.items():  # two merges at once: the one that knows less is a part of the other
            if other != name and (set(content) < set(more) or (set(content) == set(more) and name < other)):
                replaced[name] = other
    return Parts(
        tuple(name for name in names if name not in replaced), {n: replaced[n] for n in names if n in replaced}
    )


def number_of(part: str) -> int:
    """Return the number that a manifest part's name begins with: later parts have larger ones."""
    return int(part.partition("-")[0])


def is_merged(part: str) -> bool:
    """Return whether a manifest part was made of others, by its name."""
    return part.endswith("-all")


def made_of(store: Store, dataset: str, part: str) -> tuple[str, ...]:
    """Return the names of the manifest parts that a merged part was made of, oldest first.

    Raises:
        NotFoundError: there is no such part.
        SchemaError: it is damaged, or does not say.
    """
    return _named(store, dataset, part, "made_of")


def _named(store: Store, dataset: str, part: str, field: str) -> tuple[str, ...]:
    path = layout.manifest(dataset, part)
    names = read_config(store, path, MANIFEST).get(field)
    if not isinstance(names, list) or not names or not all(layout.is_part(name) for name in names):
        raise SchemaError(f"{store.uri_of(path)}: got {field} = {names!r:.60}, expected the names of manifest parts")
    return tuple(names)


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
        columns = ["uri", "image_id", "present", "group_id", "label"]
        for rows in iter_rows(store, path, MANIFEST, columns):
            keys = zip(*(rows[name] for name in columns), strict=True)
            self._database.execute("BEGIN")
            self._database.executemany(
                _LEARN, ((*key, number, position) for position, key in enumerate(keys, start=row))
            )
            self._database.execute("COMMIT")
            row += len(rows["uri"])

    def find(self, files: Iterable[ListedFile]) -> int:
        """Take in a listing; return how many URIs it held."""
        rows = ((file.uri, file.version, file.size, file.group_id, file.label) for file in files)
        self._database.execute("BEGIN")
        self._database.executemany(_FIND, rows)
        self._database.execute("COMMIT")
        ((count,),) = self._database.execute("SELECT count(*) FROM found")
        return int(count)

    def twice(self) -> str | None:
        """Return a URI that was listed more than once; None if there is none."""
        for (uri,) in self._database.execute("SELECT uri FROM found WHERE times > 1 LIMIT 1"):
            return str(uri)
        return None

    def clash(self) -> tuple[str, Grouping, Grouping] | None:
        """Return a URI that was listed with two different groups or labels, and both; None if there is none."""
        query = "SELECT uri, group_id, label, other_group_id, other_label FROM found WHERE clashes LIMIT 1"
        for uri, group_id, label, other_group_id, other_label in self._database.execute(query):
            return uri, (group_id, label), (other_group_id, other_label)
        return None

    def new_or_changed(self) -> Iterator[tuple[ListedFile, str, bool]]:
        """Yield each listed file that is not known as it is, its image id, and whether its URI was known; by URI."""
        query = """
            SELECT
                found.uri, version, size, found.group_id, found.label, image_id, present,
                found.group_id IS NOT known.group_id OR found.label IS NOT known.label
            FROM found LEFT JOIN known USING (uri) ORDER BY found.uri
        """
        for *columns, known_id, present, regrouped in self._database.execute(query):
            file = ListedFile(*columns)
            identity = image_id(file.uri, file.version)
            if identity != known_id or not present or regrouped:
                yield file, identity, bool(present)

    def vanished(self) -> Iterator[tuple[str, str]]:
        """Yield URI and image id of each known image that the listing does not show; by URI."""
        query = """
            SELECT known.uri, image_id FROM known LEFT JOIN found USING (uri)
            WHERE present AND found.uri IS NULL ORDER BY known.uri
        """
        yield from self._database.execute(query)

    def live_rows(self) -> Iterator[tuple[int, int]]:
        """Yield (number of the part, row in it) of every image that the dataset holds now, in order."""
        rows = self._database.execute("SELECT part, row FROM known WHERE present ORDER BY part, row")
        yield from iter(rows.fetchone, None)  # the cursor itself would be closed by a reader that stops early
