"""The embedding shards of a merged part: rows of the shards of its parts, copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from dn2 import layout
from dn2.config import EmbedConfig
from dn2.errors import SchemaError
from dn2.features.shards import shard_path, slices
from dn2.fields import explain
from dn2.images.manifest import ManifestIndex
from dn2.progress import advance
from dn2.records import Shard, Size
from dn2.store.schemas import EMBEDDINGS, MANIFEST, THUMBNAILS
from dn2.store.storage import Store
from dn2.store.tables import concat, iter_rows, keep_rows, read_config, read_table, writing
from dn2.upkeep.alike import ALL, EMPTY, NONE, SOME


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings with which parts of a dataset were embedded, and how much of them.

    Attributes:
        embedder: id of the embedder.
        fingerprint: of the settings that change what a shard holds.
        shard_size: rows of a shard.
        state: for each part, whether NONE, SOME or ALL of its slices with living rows have a shard; or it is EMPTY.
        images: living rows of each part that have one.
    """

    embedder: str
    fingerprint: str
    shard_size: int
    state: tuple[int, ...]
    images: tuple[int, ...]

    def covers(self, count: int) -> bool:
        """Return whether each of the first parts is embedded, those without a living row aside."""
        told = self.state[:count]
        return ALL in told and all(one in (ALL, EMPTY) for one in told)


def found_settings(
    store: Store, dataset: str, parts: Sequence[str], sizes: Sequence[int], index: ManifestIndex
) -> list[Settings]:
    """Return with which settings any of some manifest parts were embedded.

    Args:
        store: where dn2 keeps its files.
        dataset: name of the dataset.
        parts: its manifest parts.
        sizes: rows of each.
        index: their union.

    Raises:
        SchemaError: a shard whose footer must be read is damaged.
        StoreError: the store cannot be read.
    """
    found = []
    for embedder in store.names("embeddings"):
        folder = layout.shards(embedder, dataset)
        paths = {f"{folder}/{name}" for name in store.names(folder)}
        for settings, shard_size in _settings_in(store, paths, set(parts)):
            wanted, there, images = ([0] * len(parts) for _ in range(3))
            for part, start, stop, dead in slices(sizes, index.live_rows(), shard_size):
                wanted[part] += 1
                if shard_path(embedder, dataset, parts[part], start, stop, settings) in paths:
                    there[part] += 1
                    images[part] += stop - start - len(dead)
            state = tuple(
                EMPTY if not asked else ALL if asked == got else SOME if got else NONE
                for asked, got in zip(wanted, there, strict=True)
            )
            if any(there):
                found.append(Settings(embedder, settings, shard_size, state, tuple(images)))
    return found


def _settings_in(store: Store, paths: set[str], parts: set[str]) -> list[tuple[str, int]]:
    """Return the settings of the shards in a folder; of shards that known ones explain, no footer is read."""
    known: dict[tuple[str, int], None] = {}
    told = [(one, path) for path in paths if (one := layout.embeddings.parse(path)) and one["part"] in parts]
    for one, path in sorted(told, key=lambda pair: (pair[0]["start"] - pair[0]["stop"], pair[1])):  # the largest first
        embedder, dataset, part, start, stop, _ = one.values()
        if any(
            start % size == 0
            and stop - start <= size
            and shard_path(embedder, dataset, part, start, stop, settings) == path
            for settings, size in known
        ):
            continue
        config = _config_of(store, path)
        known[config.shard_fingerprint(), config.shard_size] = None
    return list(known)


def _config_of(store: Store, path: str) -> EmbedConfig:
    content = read_config(store, path, EMBEDDINGS).get("config")
    try:
        return EmbedConfig.reread(content)
    except ValidationError as error:
        raise SchemaError(f"{store.uri_of(path)}: config: {explain(error)}") from error


def copy_shards(
    store: Store,
    dataset: str,
    merged: Sequence[str],
    sizes: Sequence[int],
    index: ManifestIndex,
    settings: Settings,
    part: str,
    images: int,
) -> tuple[int, Size]:
    """Write the shards of a merged part, each after its thumbnails; those that are there already are kept.

    The old shards are read one after the other, each once: the merged part has its rows in their order.

    Args:
        store: where dn2 keeps its files.
        dataset: name of the dataset.
        merged: the parts that are merged.
        sizes: rows of each, at least.
        index: the union of all parts of the dataset.
        settings: which shards are copied.
        part: name of the merged part.
        images: its rows.

    Returns:
        how many were written, and what all shards of the merged part take.

    Raises:
        NotFoundError: a shard is missing.
        SchemaError: one is damaged, or holds other images than its manifest part.
        StoreError: the store cannot be read or written.
    """
    written, start = 0, 0
    pieces = _pieces(store, dataset, merged, sizes, index, settings)
    for pictures, rows, footers in _regrouped(pieces, settings.shard_size):
        stop = start + rows.num_rows
        path = shard_path(settings.embedder, dataset, part, start, stop, settings.fingerprint)
        if not store.exists(path):
            _write(store, path, pictures, rows, _footer(footers, Shard(dataset, "", part, start, stop)))
            written += 1
        advance("compact", rows.num_rows, total=images)
        start = stop
    if start != images:
        raise AssertionError(f"{start} rows copied for {images} images: a bug in dn2")
    folder = layout.shards(settings.embedder, dataset)
    mine = [file for file in store.walk(folder) if file.path.startswith(f"{folder}/{part}-")]
    return written, sum((Size(1, file.size) for file in mine), Size())


Piece = tuple[Any, Any, dict[str, Any]]  # thumbnails, rows, footer


def _pieces(
    store: Store,
    dataset: str,
    merged: Sequence[str],
    sizes: Sequence[int],
    index: ManifestIndex,
    settings: Settings,
) -> Iterator[Piece]:
    """Yield the living rows of each old shard, in order."""
    for number, start, stop, dead in slices(sizes, index.live_rows(), settings.shard_size):
        if number >= len(merged):
            return
        path = shard_path(settings.embedder, dataset, merged[number], start, stop, settings.fingerprint)
        footer, rows = read_config(store, path, EMBEDDINGS), read_table(store, path, EMBEDDINGS)
        ids = rows["image_id"].to_pylist()
        manifest = layout.manifest(dataset, merged[number])
        columns = iter_rows(store, manifest, MANIFEST, ["image_id"], start=start, stop=stop)
        if ids != [one for piece in columns for one in piece["image_id"]]:
            raise SchemaError(
                f"{store.uri_of(path)}: got other images than rows {start} to {stop} of {store.uri_of(manifest)}; "
                f"delete that file: it is made again when it is needed"
            )
        mask = np.ones(len(ids), bool)
        mask[list(dead)] = False
        pictures = read_table(store, layout.thumbnails(path), THUMBNAILS)
        living = {one for one, kept in zip(ids, mask, strict=True) if kept}
        shown = np.array([one in living for one in pictures["image_id"].to_pylist()], bool)
        yield keep_rows(pictures, shown), keep_rows(rows, mask), footer


def _regrouped(pieces: Iterator[Piece], size: int) -> Iterator[tuple[Any, Any, list[dict[str, Any]]]]:
    """Yield the same rows, `size` at a time, with their thumbnails and the footers of the shards they come from."""
    waiting: list[Piece] = []
    count = 0
    for pictures, rows, footer in pieces:
        waiting.append((pictures, rows, footer))
        count += rows.num_rows
        while count >= size:
            yield _taken(waiting, size)
            count -= size
    if count:
        yield _taken(waiting, count)


def _taken(waiting: list[Piece], count: int) -> tuple[Any, Any, list[dict[str, Any]]]:
    """Take the first rows of what waits."""
    pictures, rows, footers = [], [], []
    while count:
        shown, table, footer = waiting.pop(0)
        first, rest = table.slice(0, count), table.slice(count)
        ids = set(first["image_id"].to_pylist())
        mine = np.array([one in ids for one in shown["image_id"].to_pylist()], bool)
        if rest.num_rows:
            waiting.insert(0, (keep_rows(shown, ~mine), rest, footer))
        count -= first.num_rows
        pictures.append(keep_rows(shown, mine))
        rows.append(first)
        footers.append(footer)
    return concat(pictures), concat(rows), footers


def _write(store: Store, path: str, pictures: Any, rows: Any, footer: dict[str, Any]) -> None:
    for schema, place, table in ((THUMBNAILS, layout.thumbnails(path), pictures), (EMBEDDINGS, path, rows)):
        with writing(store, place, replace(schema, columns=table.schema.remove_metadata()), footer) as file:
            if table.num_rows:
                file.write({name: table[name].combine_chunks() for name in table.column_names})


def _footer(footers: list[dict[str, Any]], shard: Shard) -> dict[str, Any]:
    """Return the provenance of copied rows: where shards differ in it, all that they say."""
    sources = {str(one["shard"].get("source")) for one in footers if isinstance(one.get("shard"), dict)}
    told = {name: sorted({str(one.get(name)) for one in footers}) for name in ("engine", "decoder")}
    where = replace(shard, source=", ".join(sorted(sources)))
    return {**footers[-1], **{name: ", ".join(values) for name, values in told.items()}, "shard": asdict(where)}
