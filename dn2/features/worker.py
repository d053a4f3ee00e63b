"""One worker embeds shards on one device: reads ahead, sends batches through the network, fills drafts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from dn2.config import EmbedConfig
from dn2.features.backbones import Backbone, Embedder, backbone, embedder_of
from dn2.features.draft import Draft
from dn2.features.engine import Engine, Result
from dn2.features.engines import checked, load_engine
from dn2.features.probes import check_engine
from dn2.features.reading import Item, Wanted, read_ahead
from dn2.progress import advance
from dn2.records import EmbedderName, Shard
from dn2.sources.opening import reader_of
from dn2.store.storage import Store

_KEPT = 4  # engines that a process keeps for the next call
_ENGINE_SETTINGS = {"backbone", "crop", "weights", "weights_sha256", "engine", "device", "precision"}


def embedder_for(config: EmbedConfig) -> tuple[Backbone, Embedder]:
    """Return the backbone that settings without `auto` mean, and the identity of its embeddings.

    Raises:
        ConfigError: no backbone has this name.
        WeightsError: its weights are not on this machine, or are others than expected.
    """
    chosen = backbone(
        config.backbone,
        weights=config.weights,
        weights_sha256=config.weights_sha256,
        download=config.download,
    )
    return chosen, embedder_of(chosen, config.crop)


class Worker:
    """Embeds shards on one device.

    Args:
        config: settings without `auto`, and with one device.
        number: of the worker in this process: two never share an engine.
        store: where dn2 keeps its files.

    Raises:
        EmbedderError: this machine does not embed as the store's was.
    """

    def __init__(self, config: EmbedConfig, number: int, store: Store) -> None:
        self._config, self._store = config, store
        self._embedder = embedder_for(config)[1]
        needed = EmbedConfig(**config.model_dump(include=_ENGINE_SETTINGS))  # the others load nothing else
        self._engine = _engine(self._embedder.id, needed, number)
        self._length = check_engine(store, self._embedder, self._engine)
        self._tiles = EmbedderName.parse(self._embedder.id).tiles

    def filled(self, shards: Iterable[Shard], source: str, total: int | None) -> Iterator[Draft]:
        """Yield each shard when all of its images are through the network.

        Args:
            shards: of one dataset; the next one is taken when there is room for its images.
            source: URI of the dataset's source.
            total: images of the whole dataset, for the progress bar.

        Raises:
            SourceError: a file could not be read for a reason that may pass.
            EmbedderError: the network gave no finite numbers.
        """
        drafts: dict[int, Draft] = {}
        under_way: deque[tuple[int, list[Item], list[tuple[int, Result]], str]] = deque()

        def wanted() -> Iterator[tuple[int, list[Wanted]]]:
            for number, shard in enumerate(shards):
                drafts[number] = Draft.open(shard, self._store, self._length)
                yield number, drafts[number].wanted

        def finished(most: int) -> Iterator[Draft]:
            while len(under_way) > most:
                number, items, results, limit = under_way.popleft()
                living = drafts[number].add(items, self._vectors(results))
                advance("embed", living, total=total, limit=limit)
                if drafts[number].is_full:
                    yield drafts.pop(number)

        images = max(1, self._config.batch_size // self._tiles)
        reading = self._config.model_copy(update={"batch_size": images})
        if self._tiles > self._config.batch_size and not self._config.decode_threads:
            reading = reading.model_copy(update={"decode_threads": 2})  # what each of them holds is large
        for number, items, limit in read_ahead(wanted(), reader_of(source), self._embedder.preprocessing, reading):
            under_way.append((number, items, self._started(items), limit))
            yield from finished(self._engine.ahead)
        yield from finished(0)

    def _started(self, items: Iterable[Item]) -> list[tuple[int, Result]]:
        """Send all pictures of some images on their way, at most `batch_size` at a time; return how many, and what."""
        pixels = [item.pixels for item in items if item.pixels is not None]
        if not pixels:
            return []
        every, size = np.concatenate(pixels), self._config.batch_size
        batches = [every[low : low + size] for low in range(0, len(every), size)]
        return [(len(batch), self._engine.start(batch)) for batch in batches]

    def _vectors(self, results: list[tuple[int, Result]]) -> npt.NDArray[np.float16]:
        """Return (M, T * D) float16 for the M images whose T pictures were sent."""
        if not results:
            return np.zeros((0, self._length), np.float16)
        every = np.concatenate([checked(self._engine, result(), count) for count, result in results])
        return every.reshape(-1, self._length)

    def provenance(self, shard: Shard) -> dict[str, Any]:
        """Return what made a shard's embeddings."""
        return {
            "embedder": asdict(self._embedder),
            "engine": self._engine.name,
            "decoder": f"pillow {PIL.__version__}",
            "config": self._config.model_dump(mode="json"),
            "shard": asdict(shard),
        }


@lru_cache(maxsize=_KEPT)
def _engine(embedder_id: str, config: EmbedConfig, number: int) -> Engine:
    """Load a network once per process; its identity is there to notice other weights under the same name."""
    chosen, _ = embedder_for(config)
    return load_engine(chosen, engine=config.engine, device=config.device, precision=config.precision)
