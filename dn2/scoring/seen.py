"""Which images a bank's reports have scored before: whoever adds them may have chosen them by their scores.

Normal images that were chosen by their scores are no fair sample. With those that were flagged among the calibration
scores a threshold rises from round to round, and with those that were passed alone it falls. In the bank both may be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.errors import NotFoundError, SchemaError
from dn2.layout import SUMMARY
from dn2.neighbors.holding import Holding, never_calibrating
from dn2.neighbors.versions import read_version
from dn2.records import BankVersion, Embedded, Scored
from dn2.scoring.anomalies import kept_contents
from dn2.scoring.rows import image_rows
from dn2.store.documents import GROUP_REPORT_SUMMARY, REPORT_SUMMARY, as_record, read_document, schema_of
from dn2.store.schemas import EMBEDDINGS, REPORT
from dn2.store.several import each
from dn2.store.storage import Store
from dn2.store.tables import iter_rows

log = getLogger(__name__)
_WHOLE = 0.9  # so much of what a report has flagged, and of what it has passed, makes its batch a whole one


@dataclass(frozen=True, slots=True)
class Admission:
    """Which of some images may not do what a bank's other images do, each set as sha256 of their bytes.

    Attributes:
        flagged: that a report has flagged, or a version of the bank remembers: they do not calibrate.
        passed: others that a report has scored: they do not calibrate either.
        anomalous: that are kept as confirmed anomalies: they do not enter the bank.
    """

    flagged: frozenset[str] = frozenset()
    passed: frozenset[str] = frozenset()
    anomalous: frozenset[str] = frozenset()

    @property
    def chosen(self) -> frozenset[str]:
        """Those that were chosen by their scores."""
        return self.flagged | self.passed

    @property
    def identity(self) -> list[list[str]]:
        """What it adds to the name of what is made with it: nothing where all images do the same."""
        return [sorted(self.chosen), sorted(self.anomalous)] if self.chosen or self.anomalous else []


def among(rows: Any, contents: frozenset[str]) -> npt.NDArray[np.bool_]:
    """Return which of the N images of an Arrow table have one of these bytes, (N,) bool."""
    if not contents:
        return np.zeros(rows.num_rows, bool)
    return np.array([one in contents for one in rows["content_sha256"].to_pylist()], bool)


def of_training(embedded: Embedded, store: Store, name: str) -> Admission:
    """Return what the images of a training may not do, and warn of it; where nothing is known of any, none is read.

    Raises:
        SchemaError: the file of the kept anomalies is damaged.
        StoreError: the store cannot be read.
    """
    if not (
        store.names(layout.reports(name)) or store.exists(layout.bank_anomalies(name)) or never_calibrating(store, name)
    ):
        return Admission()
    found = admission(image_rows(embedded, store), store, name, whole=True)
    if found.chosen:
        log.warning(
            "bank %s: of the training images %d were flagged and %d passed by its reports, and the rest of their "
            "batches is not here: they are in the bank and do not calibrate it",
            name,
            len(found.flagged),
            len(found.passed),
        )
    if found.anomalous:
        log.warning("bank %s: %d of the training images are kept as anomalies and left out", name, len(found.anomalous))
    return found


def admission(rows: Any, store: Store, name: str, *, whole: bool = False) -> Admission:
    """Return what some images may not do, as all reports and versions of a bank and its kept anomalies tell.

    Images are known again by id and by content. What was in the bank when a report scored it was not chosen. Reports
    that are damaged or of another kind are passed over with a warning; memory holds one shard of them at a time.

    Args:
        rows: Arrow table of N images.
        store: where dn2 keeps its files.
        name: the bank's name.
        whole: a batch that came nearly whole, flagged or not, was not chosen by its scores.

    Raises:
        SchemaError: the file of the kept anomalies is damaged.
        StoreError: the store cannot be read.
    """
    anomalies, never = kept_contents(store, name), never_calibrating(store, name)
    images = _Images(rows["image_id"].to_pylist(), rows["content_sha256"].to_pylist())
    remembered, holding = set(images.contents & never), Holding(store, name, images.contents)
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    for look in _looks(store, name, images, anomalies):
        if whole and look.is_whole:
            remembered -= look.seen[True] | look.seen[False]
            continue
        known = _held(store, name, look.version, holding)
        for kind, mine in look.seen.items():
            seen[kind] |= mine - known
    flagged = frozenset(seen[True] | remembered) - anomalies
    return Admission(flagged, frozenset(seen[False]) - flagged - anomalies, images.contents & anomalies)


class _Images:
    """Images by id and by content."""

    def __init__(self, ids: Sequence[str], contents: Sequence[str]) -> None:
        self.contents = frozenset(contents)
        self._by_id = dict(zip(ids, contents, strict=True))

    def content(self, image_id: str, content: str | None) -> str | None:
        """Return the bytes of an image if it is one of these, or has the same bytes as one."""
        return self._by_id.get(image_id) or (content if content in self.contents else None)


@dataclass(slots=True)
class _Look:
    """What one report says of the images.

    Attributes:
        version: of the bank that it was made with.
        scored: images of the batch by whether they were flagged, without confirmed anomalies.
        came: those of them that are among the images.
        seen: sha256 of the bytes of these, by whether they were flagged.
    """

    version: str
    scored: Counter[bool] = field(default_factory=Counter)
    came: Counter[bool] = field(default_factory=Counter)
    seen: dict[bool, set[str]] = field(default_factory=lambda: {True: set(), False: set()})

    @property
    def is_whole(self) -> bool:
        """Whether nearly all of the batch came, flagged or not: then nobody has chosen."""
        return all(self.came[kind] >= _WHOLE * self.scored[kind] for kind in (True, False))


def _looks(store: Store, name: str, images: _Images, anomalies: frozenset[str]) -> Iterator[_Look]:
    """Yield what each report with some of the images says of them."""

    def look(folder: str) -> _Look | str | None:
        try:
            return _look(store, folder, images, anomalies)
        except (NotFoundError, SchemaError) as error:
            return str(error)

    folders = [layout.report(name, one) for one in store.names(layout.reports(name))]
    found = each(store, look, [one for one in folders if layout.report.parse(one)])
    broken = [one for one in found if isinstance(one, str)]
    if broken:
        log.warning("bank %s: what was flagged by %d of its reports is not known: %s", name, len(broken), broken[0])
    yield from (one for one in found if isinstance(one, _Look) and one.came)


def _look(store: Store, folder: str, images: _Images, anomalies: frozenset[str]) -> _Look | None:
    path = f"{folder}/{SUMMARY}"
    if not store.exists(path) or schema_of(store, path) == GROUP_REPORT_SUMMARY:
        return None
    document = read_document(store, path, REPORT_SUMMARY, ["scores"])
    if not isinstance(document["scores"], dict):
        raise SchemaError(f"{store.uri_of(path)}: got scores = {document['scores']!r:.60}, expected an object")
    scored = as_record(Scored, document["scores"], f"{store.uri_of(path)}: scores")
    found, columns = _Look(scored.version), ["image_id", "is_anomaly", "selected"]
    for number, part in enumerate(scored.parts):
        content_of = _contents(store, part.shard)
        for rows in iter_rows(store, f"{folder}/{layout.part(number)}", REPORT, columns):
            for one, above, selected in zip(*(rows[column] for column in columns), strict=True):
                content = content_of.get(one)
                mine = images.content(one, content)
                if above is None or mine in anomalies or content in anomalies:
                    continue
                kind = bool(above or selected)
                found.scored[kind] += 1
                if mine is not None:
                    found.came[kind] += 1
                    found.seen[kind].add(mine)
    return found


def _contents(store: Store, shard: str) -> dict[str, str]:
    """Return the sha256 of the bytes of a shard's images by id; of one that was pruned, nothing."""
    columns = ["image_id", "content_sha256"]
    try:
        pieces = iter_rows(store, shard, EMBEDDINGS, columns)
        return {one: told for rows in pieces for one, told in zip(*(rows[name] for name in columns), strict=True)}
    except NotFoundError:
        return {}


def _held(store: Store, name: str, version: str, holding: Holding) -> frozenset[str]:
    """Return the bytes that a version had; nothing, with a warning, if its files are not there any more."""
    try:
        return frozenset(holding.ids(read_version(store, name, version, BankVersion)[1]).values())
    except (NotFoundError, SchemaError) as error:
        log.warning("bank %s: what version %s held is not known: %s", name, version, error)
        return frozenset()
