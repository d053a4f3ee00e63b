"""Read, decode, embed and write: one row for every row of the manifest."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from dn2.config import EmbedConfig, fingerprint
from dn2.errors import EmbedderError
from dn2.features.backbones import Backbone, backbone
from dn2.features.engines import Engine, load_engine
from dn2.features.probes import check_engine
from dn2.features.shards import plan_shards
from dn2.images.decoding import Decoded, UndecodableError, decode
from dn2.images.source import Source, VanishedError
from dn2.progress import advance
from dn2.records import BankVersion, Dataset, Embedded, EmbeddedShard, Shard
from dn2.store import layout
from dn2.store.schemas import EMBEDDINGS, MANIFEST, THUMBNAILS
from dn2.store.storage import Store
from dn2.store.tables import iter_rows, read_table, vector_column, writing

log = getLogger(__name__)
_MANIFEST_COLUMNS = ["image_id", "uri", "size", "present", "group_id", "label"]


def embed(
    dataset: Dataset,
    store: str | os.PathLike[str] | Store,
    *,
    config: EmbedConfig | None = None,
    bank: BankVersion | None = None,
) -> Embedded:
    """Embed every image of a dataset; shards that are finished already are not touched.

    Args:
        dataset: what `ingest` returned.
        store: where dn2 keeps its files.
        config: backbone, engine and sizes.
        bank: embed as this bank's images were embedded, whatever `config.backbone` = auto would choose.

    Returns:
        the dataset with its embedding shards.

    Raises:
        EmbedderError: the bank was made by another embedder, or this machine does not embed as the store's was.
        WeightsError: the backbone's weights are not on this machine.
        SourceError: a file could not be read for a reason that may pass.
        StoreError: the store cannot be read or written.
    """
    store, config = Store.open(store), config or EmbedConfig()
    config = resolved(config, bank)
    shards = plan_shards(dataset, store, shard_size=config.shard_size)
    done = tuple(embed_shard(shard, store, config=config, total=dataset.images) for shard in shards)
    return Embedded(dataset, embedder_id(config), done)


def resolved(config: EmbedConfig, bank: BankVersion | None) -> EmbedConfig:
    """Return the settings with `auto` replaced: by the bank's backbone, or by the best one on this machine.

    Raises:
        ConfigError: no backbone has this name.
        WeightsError: its weights are not on this machine.
        EmbedderError: it is not the embedder that made the bank.
    """
    name = config.backbone
    if name == "auto" and bank is not None:
        name = bank.embedder.rpartition("-")[0]
    chosen = backbone(name)
    here = chosen.embedder().id
    if bank is not None and bank.embedder != here:
        raise EmbedderError(
            f"bank {bank.name!r} was made by embedder {bank.embedder}, got {here}: "
            f"use its backbone and weights, or train a bank of your own with this one"
        )
    return config.model_copy(update={"backbone": chosen.name})


def embedder_id(config: EmbedConfig) -> str:
    """Return the id of the embedder that resolved settings mean."""
    return backbone(config.backbone).embedder().id


@dataclass(frozen=True, slots=True)
class _Loaded:
    backbone: Backbone
    engine: Engine


@cache
def _loaded(name: str, engine: str, device: str) -> _Loaded:
    """Load a network once per process."""
    chosen = backbone(name)
    return _Loaded(chosen, load_engine(chosen, engine=engine, device=device))


def embed_shard(
    shard: Shard, store: str | os.PathLike[str] | Store, *, config: EmbedConfig, total: int | None = None
) -> EmbeddedShard:
    """Embed the images of one shard, unless that is done already.

    Reading and decoding run in a pool of threads while the network runs in this one. The thumbnails are written first:
    when the embedding shard is there, everything is.

    Args:
        shard: the slice to embed.
        store: where dn2 keeps its files.
        config: settings without `auto`, see `resolved`.
        total: images of the whole dataset, for the progress bar.

    Raises:
        SourceError: a file could not be read for a reason that may pass. Nothing is written.
        EmbedderError: this machine does not embed as the store's was, or the network gave no finite numbers.
    """
    store = Store.open(store)
    path = layout.embeddings(embedder_id(config), _shard_name(shard, config))
    if not store.exists(path):
        loaded = _loaded(config.backbone, config.engine, config.device)
        check_engine(store, loaded.backbone.embedder(), loaded.engine)
        _write_shard(shard, store, path, loaded, config, total)
        return _finished(shard, store, path)
    finished = _finished(shard, store, path)
    advance("embed", shard.images, total=total)
    return finished


def _shard_name(shard: Shard, config: EmbedConfig) -> str:
    where = fingerprint([shard.dataset, shard.part, config.shard_fingerprint()], length=8)
    return f"{shard.dataset}/{shard.part}-{shard.start:09d}-{shard.stop:09d}-{where}"


def _finished(shard: Shard, store: Store, path: str) -> EmbeddedShard:
    reasons = read_table(store, path, EMBEDDINGS, ["reject_reason"])["reject_reason"].to_pylist()
    gone = set(shard.superseded)
    rejected = sum(reason is not None for row, reason in enumerate(reasons) if row not in gone)
    return EmbeddedShard(shard, path, shard.images - rejected, rejected)


@dataclass(slots=True)
class _Item:
    """What became of one image."""

    row: int
    decoded: Decoded | None = None
    sha256: str | None = None
    size: int = 0
    reason: str | None = None


def _write_shard(
    shard: Shard, store: Store, path: str, loaded: _Loaded, config: EmbedConfig, total: int | None
) -> None:
    rows = _manifest_rows(shard, store)
    count, dim = len(rows["uri"]), loaded.backbone.dim
    vectors, valid = np.zeros((count, dim), np.float16), np.zeros(count, bool)
    items: list[_Item] = []
    thumbnails: dict[str, list[Any]] = {"image_id": [], "thumbnail": []}
    gone = set(shard.superseded)
    for batch, limit in _batches(shard, rows, loaded, config):
        readable = [item for item in batch if item.decoded is not None]
        if readable:
            at = [item.row for item in readable]
            vectors[at] = _embeddings(loaded.engine, [item.decoded.pixels for item in readable if item.decoded])
            valid[at] = True
        for item in readable:
            if item.decoded is not None:
                thumbnails["image_id"].append(rows["image_id"][item.row])
                thumbnails["thumbnail"].append(item.decoded.thumbnail)
                item.decoded = Decoded(_NO_PIXELS, item.decoded.width, item.decoded.height, b"")
        items.extend(batch)
        advance("embed", sum(item.row not in gone for item in batch), total=total, limit=limit)
    provenance = {
        "embedder": asdict(loaded.backbone.embedder()),
        "engine": loaded.engine.name,
        "decoder": f"pillow {PIL.__version__}",
        "config": config.model_dump(mode="json"),
        "shard": asdict(shard),
    }
    with writing(store, layout.thumbnails(path), THUMBNAILS, provenance) as file:
        file.write(thumbnails)
    with writing(store, path, EMBEDDINGS.with_dim(dim), provenance) as file:
        file.write(
            {
                **{name: rows[name] for name in ("image_id", "uri", "group_id", "label")},
                "embedding": vector_column(vectors, valid),
                "content_sha256": [item.sha256 for item in items],
                "width": [item.decoded.width if item.decoded else None for item in items],
                "height": [item.decoded.height if item.decoded else None for item in items],
                "size": [item.size for item in items],
                "reject_reason": [item.reason for item in items],
            }
        )


_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


def _manifest_rows(shard: Shard, store: Store) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {name: [] for name in _MANIFEST_COLUMNS}
    path = layout.manifest(shard.dataset, shard.part)
    for piece in iter_rows(store, path, MANIFEST, _MANIFEST_COLUMNS, start=shard.start, stop=shard.stop):
        for name, values in piece.items():
            rows[name].extend(values)
    return rows


def _embeddings(engine: Engine, pixels: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        vectors = engine(np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2))).astype(np.float16)
    if not np.isfinite(vectors).all():
        raise EmbedderError(f"{engine.name}: got embeddings that are not finite in float16: the weights are no good")
    return vectors


def _batches(
    shard: Shard, rows: dict[str, list[Any]], loaded: _Loaded, config: EmbedConfig
) -> Iterator[tuple[list[_Item], str]]:
    """Yield decoded images in manifest order, batch by batch, with the stage the last batch waited for.

    At most two batches are in flight, so memory is bounded by `batch_size` and `max_pixels`.
    """
    source = Source.open(shard.source)
    threads = config.decode_threads or (max(2, os.cpu_count() or 2) if source.is_local else 16)
    pending: deque[Future[_Item]] = deque()
    numbers = iter(range(len(rows["uri"])))

    def read(row: int) -> _Item:
        if not rows["present"][row]:
            return _Item(row, reason="tombstone: the image vanished from its source")
        return _read(source, row, rows["uri"][row], rows["size"][row], loaded.backbone, config)

    with ThreadPoolExecutor(threads, thread_name_prefix="dn2-decode") as pool:
        try:
            networked = 0.0
            while True:
                for row in numbers:
                    pending.append(pool.submit(read, row))
                    if len(pending) >= 2 * config.batch_size + threads:
                        break
                if not pending:
                    return
                began = time.perf_counter()
                batch = [pending.popleft().result() for _ in range(min(config.batch_size, len(pending)))]
                waited = time.perf_counter() - began
                yield batch, "reading" if waited > networked else "network"
                networked = time.perf_counter() - began - waited
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _read(source: Source, row: int, uri: str, size: int, backbone: Backbone, config: EmbedConfig) -> _Item:
    try:
        data = source.read(uri)
    except VanishedError as error:
        return _Item(row, reason=str(error))
    item = _Item(row, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    if len(data) != size:
        item.reason = f"changed since it was listed: got {len(data)} bytes, expected {size}; run the command again"
        return item
    try:
        item.decoded = decode(
            data, backbone.preprocessing, max_pixels=config.max_pixels, thumbnail_px=config.thumbnail_px
        )
    except UndecodableError as error:
        item.reason = str(error)
    return item
