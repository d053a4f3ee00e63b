"""Which images of a batch its bank knows already: by their bytes, or because they are nearly one of its images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.neighbors.bank import prepared
from dn2.neighbors.exact import at_most
from dn2.neighbors.products import Rows
from dn2.neighbors.segments import keys, segment_vectors
from dn2.neighbors.versions import read_version
from dn2.records import BankFiles, BankVersion, Scored
from dn2.records.doubts import SHOWN, Doubt, named
from dn2.scoring.units import units_of
from dn2.store.schemas import BANK_ROWS, EMBEDDINGS, SCORES
from dn2.store.storage import Store
from dn2.store.tables import column_vectors, iter_rows, keep_rows, read_table

_NEAR = 0.15  # of the next distance, and of the usual one (squared): pictures that were saved again with little loss
_SHARE, _TIMES = 0.02, 3  # of a batch, and of what is met by chance: so many must be near before any counts
_SAMPLE = 1000  # images of the bank that tell how many are near by chance
_BYTES = ["image_id", "content_sha256"]


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a batch's scores says.

    Attributes:
        readable: (N,) bool, which of its images have a score.
        copies: (N,) bool, which have the bytes of an image that the bank was trained with.
        near: (N,) bool, which others are nearly one.
        scores: (N,) float32, nan where there is none.
        units: (N,) int64, equal for images of one group or with the same bytes.
    """

    readable: npt.NDArray[np.bool_]
    copies: npt.NDArray[np.bool_]
    near: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32]
    units: npt.NDArray[np.int64]

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which images the bank knows."""
        return self.copies | self.near

    @property
    def new(self) -> npt.NDArray[np.bool_]:
        """Which images have a score and are not known."""
        return self.readable & ~self.known


def read_parts(scored: Scored, store: Store, bank: BankVersion, typical: float) -> list[Part]:
    """Return what each part of the scores says; an image takes 15 bytes.

    Near images count if they are a fiftieth of the batch, and three times what is met by chance.

    Args:
        scored: the batch.
        store: where it lies.
        bank: what it was compared with.
        typical: the median of the bank's calibration scores.

    Raises:
        NotFoundError: a part of the scores or a file of the bank is missing.
        SchemaError: one of them is damaged.
    """
    files = read_version(store, bank.name, bank.version, BankVersion)[1]
    contents = _contents(store, bank, files)
    parts = [_read(store, part.path, part.shard, contents, typical) for part in scored.parts]
    near, images = (sum(int(getattr(part, name).sum()) for part in parts) for name in ("near", "readable"))
    if near and (near < max(2, _SHARE * images) or near <= _TIMES * images * _by_chance(store, bank, files)):
        return [replace(part, near=np.zeros_like(part.near)) for part in parts]
    return parts


def known_doubts(scored: Scored, store: Store, parts: list[Part]) -> Iterator[Doubt]:
    """Yield a doubt if the bank knows some of the images."""
    by_bytes, nearly, images = (
        sum(int(getattr(part, name).sum()) for part in parts) for name in ("copies", "near", "readable")
    )
    count, uris = by_bytes + nearly, list[str]()
    if not count:
        return
    for part, one in zip(parts, scored.parts, strict=True):
        if len(uris) < SHOWN and part.known.any():
            uris += keep_rows(read_table(store, one.path, SCORES, ["uri"]), part.known)["uri"].to_pylist()
    yield Doubt(
        "known-images",
        f"{count:,} of {images:,} images are in the bank already, {by_bytes:,} by their bytes and {nearly:,} nearly: "
        f"the batch's rates leave them out. Score images it was not trained with: {named(uris, count)}",
        {"known": count, "by_bytes": by_bytes, "nearly": nearly, "images": images},
        tuple(uris[:SHOWN]),
    )


def is_near(distances: list[float], score: float, typical: float) -> bool:
    """Return whether an image is nearly one that the bank holds: far nearer than to the next, and than is usual.

    Args:
        distances: squared, to the k nearest rows of the bank, nearest first.
        score: what they come to: their mean, or that over a scale.
        typical: the median of the bank's calibration scores.
    """
    usual = typical * (sum(distances) / len(distances) / score if score > 0 else 1)
    return distances[0] <= _NEAR * min(usual, distances[-1] if len(distances) > 1 else usual)


def _read(store: Store, path: str, shard: str, contents: npt.NDArray[np.int64], typical: float) -> Part:
    columns = ["image_id", "group_id", "score", "neighbor_distances"]
    table, content = read_table(store, path, SCORES, columns), dict[str, str]()
    if store.exists(shard):  # deciding anew needs no embeddings
        images = read_table(store, shard, EMBEDDINGS, _BYTES)
        content = dict(zip(*(images[name].to_pylist() for name in _BYTES), strict=True))
    names = table["image_id"].to_pylist()
    mine = keys(content.get(name, name) for name in names)
    readable, groups = table["score"].is_valid().to_numpy(), keys(table["group_id"].to_pylist())
    copies = readable & np.isin(mine, contents)
    scores, distances = table["score"].to_numpy().astype(np.float32), table["neighbor_distances"].to_pylist()
    pairs = zip(distances, scores.tolist(), strict=True)
    near = np.array([found is not None and is_near(found, score, typical) for found, score in pairs], bool) & ~copies
    return Part(readable, copies, near, scores, np.where(groups != -1, groups, mine))


def _contents(store: Store, bank: BankVersion, files: BankFiles) -> npt.NDArray[np.int64]:
    """Return the keys of the bytes of all images that a bank was trained with and still holds."""
    gone, found = set(files.removed_ids), [np.empty(0, np.int64)]
    for segment in (*files.segments, *(files.held or ())):
        for rows in iter_rows(store, f"{layout.bank_segment(bank.name, segment)}.parquet", BANK_ROWS, _BYTES):
            mine = keys(rows["content_sha256"])
            found.append(mine[[name not in gone for name in rows["image_id"]]] if gone else mine)
    return np.unique(np.concatenate(found))


def _some(store: Store, bank: BankVersion, files: BankFiles, count: int) -> npt.NDArray[np.float16]:
    """Return about so many vectors of the bank's first segment, evenly, (M, D) float16."""
    held = segment_vectors(store, layout.bank_segment(bank.name, files.segments[0]))
    return held[np.unique(np.linspace(0, len(held) - 1, count).astype(np.int64))]


def _by_chance(store: Store, bank: BankVersion, files: BankFiles) -> float:
    """Return the share of a bank's images that are so much nearer to one than to the next of a sample of them.

    In few dimensions that is nothing special, whatever the number of images.
    """
    sample = _some(store, bank, files, _SAMPLE)
    own = np.arange(len(sample), dtype=np.int64)[None]
    distances = at_most(sample, Rows(sample, own), max(2, bank.k), query_keys=own).distances
    finite = distances[np.isfinite(distances).all(axis=1) & (distances[:, 0] > 0)]
    return float((finite[:, 0] <= _NEAR * finite[:, -1]).mean()) if len(finite) else 0.0


def near_units(scored: Scored, store: Store, bank: BankVersion, parts: list[Part]) -> npt.NDArray[np.int64]:
    """Return (N,) int64 units of the new images of a batch: as they are told, and near copies.

    Twice as many images of the bank stand beside them: a batch that is one burst shows no gap to anything else.
    """
    vectors = []
    for part, one in zip(parts, scored.parts, strict=True):
        ids = keep_rows(read_table(store, one.path, SCORES, ["image_id"]), part.new)["image_id"].to_pylist()
        table = read_table(store, one.shard, EMBEDDINGS, ["image_id", "embedding"])
        rows, valid = column_vectors(table["embedding"])
        place = {name: row for row, name in enumerate(keep_rows(table, valid)["image_id"].to_pylist())}
        vectors.append(rows[[place[name] for name in ids]])
    mine = prepared(np.concatenate(vectors), bank.metric)
    told = np.concatenate([part.units[part.new] for part in parts])
    others = _some(store, bank, read_version(store, bank.name, bank.version, BankVersion)[1], 2 * len(mine))
    apart = np.arange(len(others), dtype=np.int64)  # no key of a text is so small, but by a chance of 2 to the 40
    wanted = np.arange(len(mine) + len(others)) < len(mine)
    none = np.full(len(wanted), -1)
    return units_of([mine, others], np.concatenate([told, apart]), none, wanted)[: len(mine)]
