"""Read, decode, embed and write: one row for every row of the manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Lock

from dn2.config import EmbedConfig
from dn2.errors import ConfigError, EmbedderError, WeightsError
from dn2.features.backbones import is_known
from dn2.features.engines import devices_of
from dn2.features.shards import plan_shards, shard_path
from dn2.features.worker import Worker, embedder_for
from dn2.progress import advance
from dn2.records import AnyBank, Dataset, Embedded, EmbeddedShard, EmbedderName, Shard
from dn2.store.files import locate
from dn2.store.schemas import EMBEDDINGS
from dn2.store.storage import Store
from dn2.store.tables import read_table


def embed(
    dataset: Dataset,
    store: str | os.PathLike[str] | Store,
    *,
    config: EmbedConfig | None = None,
    bank: AnyBank | None = None,
) -> Embedded:
    """Embed every image of a dataset; shards that are finished already are not touched.

    Args:
        dataset: what `ingest` returned.
        store: where dn2 keeps its files.
        config: backbone, crop, engine and sizes.
        bank: embed as this bank's images were embedded, whatever backbone and crop `auto` would choose.

    Returns:
        the dataset with its embedding shards.

    Raises:
        EmbedderError: the bank was made by another embedder, or this machine does not embed as the store's was.
        WeightsError: the backbone's weights are not on this machine.
        SourceError: a file could not be read for a reason that may pass.
        StoreError: the store cannot be read or written.
    """
    store = Store.open(store)
    config = resolved(config or EmbedConfig(), bank)
    shards = plan_shards(dataset, store, shard_size=config.shard_size)
    return embedded(dataset, embed_shards(shards, store, config=config, total=dataset.images), config)


def embedded(dataset: Dataset, shards: Sequence[EmbeddedShard], config: EmbedConfig) -> Embedded:
    """Return the record of a dataset whose shards were embedded by resolved settings."""
    return Embedded(dataset, embedder_id(config), tuple(shards), config.weights)


def resolved(config: EmbedConfig, bank: AnyBank | None) -> EmbedConfig:
    """Return the settings with `auto` replaced: by the bank's backbone and crop, or by the best for this machine.

    Raises:
        ConfigError: no backbone has this name.
        WeightsError: its weights are not on this machine, or must be said again: those of a bank lie elsewhere.
        EmbedderError: it is not the embedder that made the bank.
    """
    changes: dict[str, str | None] = {"crop": "center" if config.crop == "auto" else config.crop}
    if config.weights is not None:
        changes["weights"] = locate(config.weights).uri
    if bank is not None:
        made_by = EmbedderName.parse(bank.embedder)
        if config.crop == "auto":
            changes["crop"] = made_by.crop
        if config.backbone == "auto":
            changes |= {"backbone": _backbone_of(bank), "weights": changes.get("weights") or _weights_of(bank)}
    config = config.model_copy(update=changes)
    chosen, here = embedder_for(config)
    if bank is not None and bank.embedder != here.id:
        raise EmbedderError(
            f"bank {bank.name!r} was made by embedder {bank.embedder}, got {here.id}: "
            f"use its backbone, weights and crop, or train another bank with this one"
        )
    return config if ":" in config.backbone else config.model_copy(update={"backbone": chosen.name})


def _backbone_of(bank: AnyBank) -> str:
    """Return the backbone of a bank, if it is one of dn2's: what lies in a store must not decide what code is run."""
    name = EmbedderName.parse(bank.embedder).backbone
    if not is_known(name):
        raise ConfigError(
            f"bank {bank.name!r} was made with a backbone of your own, {name!r}: give it as --backbone module:object"
        )
    return name


def _weights_of(bank: AnyBank) -> str | None:
    """Return where the weights of a bank lie, if they are on this machine: nor must it decide what is fetched."""
    if bank.weights is None:
        return None
    place = locate(bank.weights)
    if not place.is_local or not place.fs.isfile(place.path):
        where = "are no longer there" if place.is_local else "are not on this machine"
        raise WeightsError(
            f"bank {bank.name!r} was trained with the weights {bank.weights}, which {where}: name them with "
            f"--weights, and --backbone {EmbedderName.parse(bank.embedder).backbone}"
        )
    return bank.weights


def embedder_id(config: EmbedConfig) -> str:
    """Return the id of the embedder that resolved settings mean."""
    return embedder_for(config)[1].id


def embed_shards(
    shards: Sequence[Shard],
    store: str | os.PathLike[str] | Store,
    *,
    config: EmbedConfig,
    total: int | None = None,
) -> tuple[EmbeddedShard, ...]:
    """Embed the images of some shards of one dataset, but for those that are done already.

    Every device has a worker of its own, which takes the next shard when it can. Reading and decoding run in threads
    ahead of the network, and a finished shard is written while the next one is embedded.

    Args:
        shards: slices to embed, all of one dataset.
        store: where dn2 keeps its files.
        config: settings without `auto`, see `resolved`.
        total: images of the whole dataset, for the progress bar.

    Raises:
        SourceError: a file could not be read for a reason that may pass. Its shard is not written.
        EmbedderError: this machine does not embed as the store's was, or the network gave no finite numbers.
        StoreError: the store cannot be read or written.
    """
    store = Store.open(store)
    identity = embedder_id(config)
    paths = {shard: _shard_path(identity, shard, config) for shard in shards}
    missing = [shard for shard in shards if not store.exists(paths[shard])]
    advance("embed", sum(shard.images for shard in shards if shard not in missing), total=total)
    if missing:
        _embed(missing, store, paths, config, total)
    return tuple(_finished(shard, store, paths[shard]) for shard in shards)


def _embed(
    shards: Sequence[Shard], store: Store, paths: Mapping[Shard, str], config: EmbedConfig, total: int | None
) -> None:
    """Embed shards with a worker for each device."""
    queue = _Queue(shards)
    devices = devices_of(config.device, engine=config.engine)[: len(shards)]

    def work(number: int) -> None:
        try:
            worker = Worker(config.model_copy(update={"device": devices[number]}), number, store)
            _write_all(worker, queue, store, paths, shards[0].source, total)
        except BaseException:
            queue.stop()
            raise

    if len(devices) == 1:
        work(0)
        return
    with ThreadPoolExecutor(len(devices), thread_name_prefix="dn2-embed") as pool:
        try:
            running = [pool.submit(copy_context().run, work, number) for number in range(len(devices))]
            for one in running:
                one.result()
        finally:
            queue.stop()


def _write_all(
    worker: Worker, queue: _Queue, store: Store, paths: Mapping[Shard, str], source: str, total: int | None
) -> None:
    """Write what a worker has filled, while it goes on with the next shard."""
    with ThreadPoolExecutor(1, thread_name_prefix="dn2-write") as writer:
        written: Future[None] | None = None
        for draft in worker.filled(queue, source, total):
            if written is not None:
                written.result()  # at most one shard waits to be written
            written = writer.submit(draft.write, store, paths[draft.shard], worker.provenance(draft.shard))
        if written is not None:
            written.result()


class _Queue:
    """Shards that several workers take one by one."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards, self._lock = iter(shards), Lock()

    def __iter__(self) -> Iterator[Shard]:
        return self

    def __next__(self) -> Shard:
        with self._lock:
            return next(self._shards)

    def stop(self) -> None:
        """Hand out nothing any more."""
        with self._lock:
            self._shards = iter(())


def _shard_path(embedder: str, shard: Shard, config: EmbedConfig) -> str:
    return shard_path(embedder, shard.dataset, shard.part, shard.start, shard.stop, config.shard_fingerprint())


def _finished(shard: Shard, store: Store, path: str) -> EmbeddedShard:
    reasons = read_table(store, path, EMBEDDINGS, ["reject_reason"])["reject_reason"].to_pylist()
    gone = set(shard.superseded)
    rejected = sum(reason is not None for row, reason in enumerate(reasons) if row not in gone)
    return EmbeddedShard(shard, path, shard.images - rejected, rejected)
