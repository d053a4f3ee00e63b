"""Score a batch of embedded images against a bank. Scores know no threshold; `decide` makes reports of them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.config import ScoreConfig
from dn2.errors import SchemaError
from dn2.neighbors.bank import Bank, Search, prepared
from dn2.neighbors.products import Neighbors
from dn2.neighbors.segments import OWN, keys_of, merged
from dn2.neighbors.versions import open_bank
from dn2.progress import advance
from dn2.records import BankVersion, Embedded, EmbeddedShard, Report, ScoredShard
from dn2.scoring.calibration import Calibration
from dn2.scoring.decide import decide
from dn2.scoring.plan import bank_loads, plan_scoring
from dn2.scoring.rows import living_rows
from dn2.scoring.scale import relative
from dn2.scoring.scores import image_scores
from dn2.store.schemas import FOUND, SCORES
from dn2.store.storage import Store
from dn2.store.tables import column_vectors, keep_rows, read_table, writing

_NEIGHBORS = {"neighbor_ids": "image_id", "neighbor_uris": "uri", "neighbor_tiles": "tile"}
_COLUMNS = ["image_id", "uri", "group_id", "label", "content_sha256", "embedding", "reject_reason"]


def score(
    embedded: Embedded,
    store: str | os.PathLike[str] | Store,
    *,
    bank: BankVersion | str,
    config: ScoreConfig | None = None,
) -> Report:
    """Score every image of an embedded batch and write the report.

    Args:
        embedded: what `embed(..., bank=bank)` returned.
        store: where dn2 keeps its files.
        bank: a bank version, or the name of a bank whose current version is meant.
        config: limits, threshold rule, false-discovery rate and the size of the report.

    Returns:
        the finished report; the same batch, bank version and settings give the same one, which is made once. With
        another threshold only the report is made anew: the scores are there.

    Raises:
        EmbedderError: batch and bank were embedded differently.
        NotFoundError: there is no such bank.
        StoreError: the store cannot be read or written.
    """
    store, config = Store.open(store), config or ScoreConfig()
    record = open_bank(store, bank) if isinstance(bank, str) else bank
    plan = plan_scoring(embedded, store, record, config)
    if plan.report is not None:
        advance("score", plan.report.images, total=plan.total)
        return plan.report
    for load, place, shard in plan.searches:
        search_shard(shard, store, bank=record, load=load, folder=plan.folder, number=place, config=config)
    parts = [
        score_shard(shard, store, bank=record, folder=plan.folder, number=place, config=config, total=plan.total)
        for place, shard in plan.shards
    ]
    return decide(plan.gather(parts), store, bank=record, config=config)


def score_shard(
    shard: EmbeddedShard,
    store: str | os.PathLike[str] | Store,
    *,
    bank: BankVersion,
    folder: str,
    number: int,
    config: ScoreConfig,
    total: int | None = None,
) -> ScoredShard:
    """Write the scores of a shard: a row for every image, scored or rejected; a finished part is kept.

    Args:
        shard: embedded images.
        store: where dn2 keeps its files.
        bank: what to compare with.
        folder: where the scores lie, see `plan_scoring`.
        number: place of the shard in the batch.
        config: memory limits.
        total: images of the whole batch, for the progress bar.

    Raises:
        BankError: the bank does not fit the memory budget.
        StoreError: the store cannot be read or written.
    """
    store = Store.open(store)
    path = f"{folder}/{layout.part(number)}"
    if not store.exists(path):
        with writing(store, path, SCORES, {"bank": bank.name, "version": bank.version, "shard": shard.path}) as file:
            file.write(_rows(shard, store, bank, folder, number, config))
        loads = bank_loads(store, bank, config)
        for load in loads if len(loads) > 1 else ():  # merged now
            store.remove(_found(folder, load, number))
    scores = read_table(store, path, SCORES, ["score"])["score"]
    advance("score", len(scores), total=total)
    return ScoredShard(path, shard.path, len(scores) - scores.null_count, scores.null_count)


def search_shard(
    shard: EmbeddedShard,
    store: str | os.PathLike[str] | Store,
    *,
    bank: BankVersion,
    load: tuple[int, int],
    folder: str,
    number: int,
    config: ScoreConfig,
) -> None:
    """Write the nearest rows that a shard's images have in some segments of a bank, for `score_shard` to merge.

    What is finished is kept. Without it `score_shard` searches itself: this is how several machines share a bank that
    is larger than the memory of each.

    Args:
        shard: embedded images.
        store: where dn2 keeps its files.
        bank: what to compare with.
        load: which segments, see `plan_scoring`.
        folder: where the scores lie, see `plan_scoring`.
        number: place of the shard in the batch.
        config: memory limits.

    Raises:
        BankError: a segment does not fit the memory budget.
        StoreError: the store cannot be read or written.
    """
    store = Store.open(store)
    path = _found(folder, load, number)
    if store.exists(path) or store.exists(f"{folder}/{layout.part(number)}"):
        return
    table = living_rows(shard, store, ["image_id", "content_sha256", "embedding"])
    vectors, valid = column_vectors(table["embedding"])
    readable = keep_rows(table, valid)
    opened = Bank.open(store, bank, memory_gb=config.bank_memory_gb)
    nearest = opened.nearest(
        *_queries(opened.search, vectors, readable),
        memory_mb=config.search_memory_mb,
        among=range(*load),
    )
    with writing(store, path, FOUND, {"bank": bank.name, "version": bank.version, "shard": shard.path}) as file:
        names = readable["image_id"].combine_chunks()
        shape = len(names), bank.tiles * bank.k
        rows, distances = (array.reshape(shape) for array in (nearest.rows, nearest.distances))
        file.write({"image_id": names, "rows": list(rows), "distances": list(distances)})


def _queries(
    search: Search, vectors: npt.NDArray[np.float16], readable: Any
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]:
    """Return (Q * T, D) vectors as the bank holds such, and (2, Q * T) keys, of the T tiles of Q images.

    Args:
        search: how the bank is searched.
        vectors: (Q, T * D) float16.
        readable: Arrow table of the images.
    """
    tiles = prepared(vectors.reshape(-1, search.dim), search.metric)
    return tiles, np.repeat(keys_of(readable, OWN), search.tiles, axis=1)


def _found(folder: str, load: tuple[int, int], number: int) -> str:
    """Return the path of what `search_shard` writes."""
    return layout.found(*folder.split("/")[1:], *load, number)


def _nearest(
    bank: Bank, store: Store, vectors: npt.NDArray[np.float16], readable: Any, folder: str, number: int, memory_mb: int
) -> Neighbors:
    """Return the nearest rows of a shard's images in all segments; what other tasks have found is not searched."""
    queries, keys = _queries(bank.search, vectors, readable)
    parts = []
    for load in bank.loads():
        path = _found(folder, (load.start, load.stop), number)
        if store.exists(path):
            table = read_table(store, path, FOUND)
            if table["image_id"].to_pylist() != readable["image_id"].to_pylist():
                raise SchemaError(f"{store.uri_of(path)}: got other images than the shard's; delete the file")
            shape = len(queries), bank.search.k
            rows, distances = (np.stack(table[name].to_numpy()).reshape(shape) for name in ("rows", "distances"))
            parts.append(Neighbors(rows.astype(np.int64), distances.astype(np.float32)))
        else:
            parts.append(bank.nearest(queries, keys, memory_mb=memory_mb, among=load))
    return bank.complete(merged([(0, part) for part in parts], bank.search.k))


def _rows(
    shard: EmbeddedShard, store: Store, record: BankVersion, folder: str, number: int, config: ScoreConfig
) -> dict[str, Any]:
    table = living_rows(shard, store, _COLUMNS)
    vectors, valid = column_vectors(table["embedding"])
    readable = keep_rows(table, valid)
    count = table.num_rows
    columns: dict[str, Any] = {name: table[name].combine_chunks() for name in ("image_id", "uri", "group_id", "label")}
    columns |= {"reject_reason": table["reject_reason"].combine_chunks()}
    names = ("score", "p_value", "tile", "neighbor_distances", *_NEIGHBORS)
    found: dict[str, list[Any]] = {name: [None] * count for name in names}
    if len(vectors):
        bank = Bank.open(store, record, memory_gb=config.bank_memory_gb)
        nearest = _nearest(bank, store, vectors, readable, folder, number, config.search_memory_mb)
        scores, worst = image_scores(relative(nearest, bank.scales), record.tiles)
        rarity = Calibration.read(store, record.name, record.version).p_values(scores)
        queries = np.arange(len(scores)) * record.tiles + worst
        rows, k = nearest.rows[queries], nearest.rows.shape[1]
        told = bank.described(rows.reshape(-1))
        for place, row in enumerate(np.flatnonzero(valid)):
            found["score"][row] = scores[place]
            found["p_value"][row] = rarity[place]
            for name, of in _NEIGHBORS.items():
                found[name][row] = told[of][place * k : (place + 1) * k]
            found["neighbor_distances"][row] = nearest.distances[queries[place]]
            if record.tiles > 1:
                found["tile"][row] = worst[place]
            else:
                found["neighbor_tiles"][row] = None
    return columns | found
