"""Confirmed anomalies: they are kept for a bank, never enter it, and show what it finds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from logging import getLogger

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.checks import check_name
from dn2.config import AddConfig
from dn2.errors import ConfigError, NotFoundError, SourceError
from dn2.neighbors.bank import Bank, prepared
from dn2.neighbors.holding import Holding
from dn2.neighbors.segments import OWN, keys_of
from dn2.neighbors.versions import current_version, read_version
from dn2.records import Anomalies, BankVersion
from dn2.scoring.named import Named, named_in
from dn2.scoring.scores import image_scores
from dn2.store.files import locate, translated
from dn2.store.lock import locked
from dn2.store.schemas import ANOMALIES, EMBEDDINGS
from dn2.store.several import each
from dn2.store.storage import Store
from dn2.store.tables import column_vectors, iter_rows, keep_rows, read_table, writing

log = getLogger(__name__)
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class _Anomaly:
    """A row of the file: see ANOMALIES."""

    image_id: str | None
    uri: str
    content_sha256: str
    shard: str | None


def anomalies(
    store: str | os.PathLike[str] | Store,
    *,
    bank: str,
    file: str | None = None,
    remove: bool = False,
) -> Anomalies:
    """Return the confirmed anomalies that are kept for a bank, after adding or removing those that a file names.

    They are told from all other images by their bytes. Training and adding leave them out, and how many of them are
    above the threshold tells what the bank finds. Those that were embedded after they were named are looked up again.

    Args:
        store: where dn2 keeps its files.
        bank: the bank's name.
        file: path or URL of a text with a path, URI or image id on each line, or of a table with a column image_id or
            uri (CSV, Parquet). Of a report's own Parquet the flagged images count. By default nothing is changed.
        remove: no longer keep those that the file names.

    Raises:
        ConfigError: nothing is to be removed, or the file names no image.
        NotFoundError: there is no such bank or file, or an image is neither in the store nor where it should lie.
        BankError: the bank is one of groups.
        SourceError: the file, or an image, cannot be read.
        StoreError: the store cannot be read or written, or another run has been writing the same bank for an hour.
    """
    store, name = Store.open(store), check_name(bank)
    if remove and file is None:
        raise ConfigError("remove: got no file, expected one that names the anomalies to remove")
    with locked(store, layout.bank(name)):
        record, _ = read_version(store, name, current_version(store, name), BankVersion)
        before = _kept(store, name)
        if file is None:
            after = _looked_up(store, record, before)
        elif remove:
            after = _without(before, named_in(file), file)
        else:
            new = _resolved(store, record, named_in(file), file)
            after = list({one.content_sha256: one for one in (*before, *new)}.values())
        if after != before:
            _write(store, name, after)
        return replace(evaluated(store, record), changed=abs(len(after) - len(before)))


def evaluated(store: Store, record: BankVersion) -> Anomalies:
    """Return what a version of a bank makes of the anomalies that are kept for it, and log it.

    Raises:
        SchemaError: the file of them is damaged.
        StoreError: the store cannot be read.
    """
    kept = _kept(store, record.name)
    if not kept:
        return Anomalies(record, ())
    scores = _scores(store, record, kept)
    files = read_version(store, record.name, record.version, BankVersion)[1]
    in_bank = Holding(store, record.name, {one.content_sha256 for one in kept}).ids(files, held=False)
    made = Anomalies(
        record,
        tuple(one.uri for one in kept),
        scored=len(scores),
        found=int((scores > np.float32(record.threshold)).sum()),
        missing=len(kept) - len(scores),
        in_bank=tuple(sorted(in_bank)),
    )
    log.info("bank %s: %d of %d kept anomalies are above the threshold", record.name, made.found, made.scored)
    return made


def kept_contents(store: Store, name: str) -> frozenset[str]:
    """Return the sha256 of the bytes of the anomalies that are kept for a bank.

    Raises:
        SchemaError: the file of them is damaged.
    """
    return frozenset(one.content_sha256 for one in _kept(store, name))


def _kept(store: Store, name: str) -> list[_Anomaly]:
    path = layout.bank_anomalies(name)
    if not store.exists(path):
        return []
    table = read_table(store, path, ANOMALIES)
    return [_Anomaly(**row) for row in table.to_pylist()]


def _write(store: Store, name: str, kept: Sequence[_Anomaly]) -> None:
    rows = [asdict(one) for one in kept]
    with writing(store, layout.bank_anomalies(name), ANOMALIES, {"bank": name}) as file:
        file.write({column: [row[column] for row in rows] for column in ANOMALIES.columns.names})


def _resolved(store: Store, record: BankVersion, named: Sequence[Named], file: str) -> list[_Anomaly]:
    """Return the images that are named, with their bytes: as they are embedded, or as they lie where they are named."""
    by_id, by_uri, _ = _embedded(store, record, {one.image_id for one in named}, {one.uri for one in named})
    found: list[_Anomaly] = []
    unknown: list[str] = []
    for one in named:
        known = by_id.get(one.image_id or "") or by_uri.get(one.uri or "")
        if known is None:
            content = _bytes_of(one.uri) if one.image_id is None else None  # what a report names is not fetched
            known = None if content is None else _Anomaly(None, one.words, content, None)
        if known is None:
            unknown.append(one.words)
        else:
            found.append(known)
    if unknown:
        raise NotFoundError(
            f"file {file}: got {len(unknown)} images that are neither embedded in store {store.uri} nor can be read: "
            f"{', '.join(unknown[:_SHOWN])}{' ...' if len(unknown) > _SHOWN else ''}; expected paths, URIs or image ids"
        )
    return _looked_up(store, record, found)


def _bytes_of(uri: str | None) -> str | None:
    """Return the sha256 of the bytes of a file; None if it is not there."""
    if uri is None:
        return None
    place = locate(uri)
    try:
        with translated(SourceError, f"image {uri}: cannot be read"):
            return hashlib.sha256(place.fs.cat_file(place.path)).hexdigest()
    except FileNotFoundError:
        return None


def _looked_up(store: Store, record: BankVersion, kept: Sequence[_Anomaly]) -> list[_Anomaly]:
    """Return anomalies with their shards, where they have been embedded as the bank is and are not known to be."""
    missing = {one.content_sha256 for one in kept if not _is_embedded(one, store, record)}
    by_content = _embedded(store, record, (), (), missing)[2] if missing else {}
    return [replace(by_content.get(one.content_sha256, one), uri=one.uri) for one in kept]


def _is_embedded(one: _Anomaly, store: Store, record: BankVersion) -> bool:
    known = layout.embeddings.parse(one.shard or "")
    return bool(known) and known["embedder"] == record.embedder and store.exists(str(one.shard))  # type: ignore[index]


def _embedded(
    store: Store,
    record: BankVersion,
    ids: Collection[str | None],
    uris: Collection[str | None],
    contents: Collection[str] = (),
) -> tuple[dict[str, _Anomaly], dict[str, _Anomaly], dict[str, _Anomaly]]:
    """Return those of some images that the bank's embedder has embedded: by id, by URI and by content."""
    datasets = store.names(f"embeddings/{record.embedder}")
    folders = [layout.shards(record.embedder, one) for one in datasets]
    paths = [f"{folder}/{name}" for folder in folders for name in store.names(folder)]

    def look(path: str) -> list[_Anomaly]:
        columns = ["image_id", "uri", "content_sha256"]
        pieces = iter_rows(store, path, EMBEDDINGS, columns)
        rows = (row for piece in pieces for row in zip(*(piece[column] for column in columns), strict=True))
        return [
            _Anomaly(one, uri, content, path)
            for one, uri, content in rows
            if content is not None and (one in ids or uri in uris or content in contents)
        ]

    found = [
        one for part in each(store, look, [path for path in paths if layout.embeddings.parse(path)]) for one in part
    ]
    return (
        {one.image_id or "": one for one in found},
        {one.uri: one for one in found},  # of a file that has changed, what it was embedded as last
        {one.content_sha256: one for one in found},
    )


def _without(kept: Sequence[_Anomaly], named: Sequence[Named], file: str) -> list[_Anomaly]:
    ids, uris = {one.image_id for one in named} - {None}, {one.uri for one in named} - {None}
    known = {one.image_id for one in kept} | {one.uri for one in kept}
    unknown = [one.words for one in named if not {one.image_id, one.uri} & known]
    if unknown:
        raise NotFoundError(
            f"file {file}: got {len(unknown)} images that are not kept as anomalies: {', '.join(unknown[:_SHOWN])}; "
            f"dn2 bank anomalies lists those that are"
        )
    return [one for one in kept if one.image_id not in ids and one.uri not in uris]


def _scores(store: Store, record: BankVersion, kept: Sequence[_Anomaly]) -> npt.NDArray[np.float32]:
    """Return (Q,) float32 scores of those that are embedded as the bank is."""
    config = AddConfig()
    parts = [np.empty(0, np.float32)]
    bank = Bank.open(store, record, memory_gb=config.bank_memory_gb)
    for shard in sorted({one.shard for one in kept if one.shard is not None and _is_embedded(one, store, record)}):
        ids = {one.image_id for one in kept if one.shard == shard}
        table = read_table(store, shard, EMBEDDINGS, [*OWN, "embedding"])
        mine = keep_rows(table, np.array([one in ids for one in table["image_id"].to_pylist()], bool))
        vectors, valid = column_vectors(mine["embedding"])
        queries = prepared(vectors.reshape(-1, record.dim), record.metric)
        keys = np.repeat(keys_of(keep_rows(mine, valid), OWN), record.tiles, axis=1)
        nearest = bank.complete(bank.nearest(queries, keys, memory_mb=config.search_memory_mb))
        parts.append(image_scores(nearest.distances, record.tiles)[0])
    return np.concatenate(parts)
