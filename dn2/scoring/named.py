"""Which images a file names: a list of paths, URIs or ids, a table of such, or a report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dn2.errors import ConfigError, SchemaError
from dn2.sources.foreign import iter_foreign_rows
from dn2.store.files import joined, locate, read_file
from dn2.store.schemas import REPORT
from dn2.store.storage import Store
from dn2.store.tables import iter_rows, read_config

_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Named:
    """An image as a file names it.

    Attributes:
        image_id: its id, if that is told.
        uri: where it lies, if that is told.
    """

    image_id: str | None
    uri: str | None

    @property
    def words(self) -> str:
        """What to call it."""
        return self.uri or self.image_id or ""


def named_in(file: str) -> list[Named]:
    """Return the images that a file names.

    Args:
        file: path or URL of a text with a path, URI or image id on each line, or of a table with a column image_id or
            uri. Of a report's own Parquet only the flagged images count. Paths are taken from where the file lies.

    Raises:
        ConfigError: it names no image, or is no such file.
        NotFoundError: it is not there.
        SourceError: it cannot be read.
    """
    place = locate(file)
    if place.uri.lower().endswith((".parquet", ".csv")):
        found = [*_listed(file)]
    else:
        lines = (line.strip() for line in read_file(file, f"file {place.uri}").splitlines())
        found = [_one(line, place.uri) for line in lines if line]
    if not found:
        raise ConfigError(f"file {place.uri}: got no image, expected paths, URIs or image ids, one on each line")
    return found


def _one(text: str, file: str) -> Named:
    if _ID.fullmatch(text):
        return Named(text, None)
    return Named(None, locate(joined(file, text)).uri)


def _listed(file: str) -> Iterator[Named]:
    place = locate(file)
    folder, _, name = place.uri.rpartition("/")
    if name.lower().endswith(".parquet") and _is_report(Store.open(folder), name):
        columns = ["image_id", "uri", "is_anomaly", "selected"]
        for rows in iter_rows(Store.open(folder), name, REPORT, columns):
            for one, uri, above, selected in zip(*(rows[column] for column in columns), strict=True):
                if above or selected:
                    yield Named(one, uri)
        return
    for told in iter_foreign_rows(place, ["image_id", "uri"], required=[]):
        if not told:
            raise ConfigError(f"table {place.uri}: got neither a column image_id nor uri, expected one of them")
        nothing = [None] * len(next(iter(told.values())))
        for one, uri in zip(told.get("image_id", nothing), told.get("uri", nothing), strict=True):
            if one or uri:
                yield Named(one or None, locate(joined(place.uri, uri)).uri if uri else None)


def _is_report(folder: Store, name: str) -> bool:
    try:
        read_config(folder, name, REPORT)
    except SchemaError:  # a table of somebody else
        return False
    return True
