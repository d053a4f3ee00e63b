"""Which bytes the versions of a bank hold, and which of them never calibrate it: read from their files."""

from __future__ import annotations

from collections.abc import Collection
from logging import getLogger

from dn2 import layout
from dn2.errors import NotFoundError, SchemaError
from dn2.neighbors.versions import version_names
from dn2.records import BankFiles
from dn2.store.documents import BANK_VERSION, as_record, read_document
from dn2.store.schemas import BANK_ROWS
from dn2.store.several import each
from dn2.store.storage import Store
from dn2.store.tables import iter_rows

log = getLogger(__name__)


class Holding:
    """Looks up some bytes in the segments of a bank. Each segment is read once, whatever version has it.

    Args:
        store: where dn2 keeps its files.
        name: the bank's name.
        contents: sha256 of the bytes that are looked for.
    """

    def __init__(self, store: Store, name: str, contents: Collection[str]) -> None:
        self._store, self._name, self._contents = store, name, contents
        self._found: dict[str, dict[str, str]] = {}  # by segment: content by image id

    def ids(self, files: BankFiles, *, held: bool = True) -> dict[str, str]:
        """Return the bytes that a version has, by image id.

        Args:
            files: what the version is made of.
            held: also look among the images that only calibrate it.

        Raises:
            NotFoundError: a segment's file is missing.
            SchemaError: it is damaged.
        """
        removed = frozenset(files.removed_ids)
        segments = (*files.segments, *((files.held or ()) if held else ()))
        return {one: content for name in segments for one, content in self._in(name).items() if one not in removed}

    def _in(self, segment: str) -> dict[str, str]:
        if segment not in self._found:
            found = self._found[segment] = {}
            path = f"{layout.bank_segment(self._name, segment)}.parquet"
            for rows in iter_rows(self._store, path, BANK_ROWS, ["image_id", "content_sha256"]):
                pairs = zip(rows["image_id"], rows["content_sha256"], strict=True)
                found.update((one, content) for one, content in pairs if content in self._contents)
        return self._found[segment]


def never_calibrating(store: Store, name: str) -> frozenset[str]:
    """Return the sha256 of the bytes that any version of a bank of images remembers never to calibrate with.

    A version file that is damaged is passed over with a warning.
    """

    def look(version: str) -> tuple[str, ...]:
        path = layout.bank_version(name, version)
        try:
            document = read_document(store, path, BANK_VERSION, [])
            told = {"segments": [], "flagged": document.get("flagged", [])}
            return as_record(BankFiles, told, store.uri_of(path)).flagged
        except (NotFoundError, SchemaError) as error:
            log.warning("bank %s: version %s passed over: %s", name, version, error)
            return ()

    return frozenset(one for told in each(store, look, version_names(store, name)) for one in told)
