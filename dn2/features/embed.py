"""Read, decode, embed and write: one row for every row of the manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from dn2.config import EmbedConfig, fingerprint
from dn2.errors import EmbedderError
from dn2.features.backbones import Backbone, backbone
from dn2.features.draft import Draft
from dn2.features.engines import Engine, embed_pixels, load_engine
from dn2.features.probes import check_engine
from dn2.features.reading import Item, Wanted, read_ahead
from dn2.features.shards import plan_shards
from dn2.images.tables import reader_of
from dn2.progress import advance
from dn2.records import BankVersion, Dataset, Embedded, EmbeddedShard, GroupBankVersion, Shard
from dn2.store import layout
from dn2.store.schemas import EMBEDDINGS
from dn2.store.storage import Store
from dn2.store.tables import read_table


def embed(
    dataset: Dataset,
    store: str | os.PathLike[str] | Store,
    *,
    config: EmbedConfig | None = None,
    bank: BankVersion | GroupBankVersion | None = None,
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
    store = Store.open(store)
    config = resolved(config or EmbedConfig(), bank)
    shards = plan_shards(dataset, store, shard_size=config.shard_size)
    done = embed_shards(shards, store, config=config, total=dataset.images)
    return Embedded(dataset, embedder_id(config), done)


def resolved(config: EmbedConfig, bank: BankVersion | GroupBankVersion | None) -> EmbedConfig:
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


@cache
def _loaded(name: str, engine: str, device: str) -> tuple[Backbone, Engine]:
    """Load a network once per process."""
    chosen = backbone(name)
    return chosen, load_engine(chosen, engine=engine, device=device)


def embed_shards(
    shards: Sequence[Shard],
    store: str | os.PathLike[str] | Store,
    *,
    config: EmbedConfig,
    total: int | None = None,
) -> tuple[EmbeddedShard, ...]:
    """Embed the images of some shards of one dataset, but for those that are done already.

    Reading and decoding run in threads ahead of the network, and a finished shard is written while the next one is
    embedded.

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
    paths = {shard: layout.embeddings(embedder_id(config), _shard_name(shard, config)) for shard in shards}
    missing = [shard for shard in shards if not store.exists(paths[shard])]
    advance("embed", sum(shard.images for shard in shards if shard not in missing), total=total)
    if missing:
        chosen, engine = _loaded(config.backbone, config.engine, config.device)
        check_engine(store, chosen.embedder(), engine)
        with ThreadPoolExecutor(1, thread_name_prefix="dn2-write") as writer:
            written: Future[None] | None = None
            for draft in _filled(missing, store, chosen, engine, config, total):
                if written is not None:
                    written.result()  # at most one shard waits to be written
                provenance = _provenance(draft.shard, chosen, engine, config)
                written = writer.submit(draft.write, store, paths[draft.shard], provenance)
            if written is not None:
                written.result()
    return tuple(_finished(shard, store, paths[shard]) for shard in shards)


def _shard_name(shard: Shard, config: EmbedConfig) -> str:
    where = fingerprint([shard.dataset, shard.part, config.shard_fingerprint()], length=8)
    return f"{shard.dataset}/{shard.part}-{shard.start:09d}-{shard.stop:09d}-{where}"


def _filled(
    shards: Sequence[Shard], store: Store, chosen: Backbone, engine: Engine, config: EmbedConfig, total: int | None
) -> Iterator[Draft]:
    """Yield each shard when all of its images are through the network."""
    drafts: dict[int, Draft] = {}

    def wanted() -> Iterator[tuple[int, list[Wanted]]]:
        for number, shard in enumerate(shards):
            drafts[number] = Draft.open(shard, store, chosen.dim)
            yield number, drafts[number].wanted

    source = reader_of(shards[0].source)
    for number, items, limit in read_ahead(wanted(), source, chosen.preprocessing, config):
        living = drafts[number].add(items, _embeddings(engine, items, chosen.dim))
        advance("embed", living, total=total, limit=limit)
        if drafts[number].is_full:
            yield drafts.pop(number)


def _embeddings(engine: Engine, items: Sequence[Item], dim: int) -> npt.NDArray[np.float16]:
    """Return (M, D) float16 for the M items that have pixels."""
    pixels = [item.pixels for item in items if item.pixels is not None]
    if not pixels:
        return np.zeros((0, dim), np.float16)
    return embed_pixels(engine, pixels)


def _provenance(shard: Shard, chosen: Backbone, engine: Engine, config: EmbedConfig) -> dict[str, Any]:
    return {
        "embedder": asdict(chosen.embedder()),
        "engine": engine.name,
        "decoder": f"pillow {PIL.__version__}",
        "config": config.model_dump(mode="json"),
        "shard": asdict(shard),
    }


def _finished(shard: Shard, store: Store, path: str) -> EmbeddedShard:
    reasons = read_table(store, path, EMBEDDINGS, ["reject_reason"])["reject_reason"].to_pylist()
    gone = set(shard.superseded)
    rejected = sum(reason is not None for row, reason in enumerate(reasons) if row not in gone)
    return EmbeddedShard(shard, path, shard.images - rejected, rejected)
