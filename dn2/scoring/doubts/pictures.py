"""Doubts about the pictures themselves: masks among them, even ones, and long ones of which the crop sees too little.

They rest on what lies in the store beside the embeddings, sizes and thumbnails: no picture is read again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from dn2 import layout
from dn2.records.doubts import SHOWN, Doubt, named
from dn2.scoring.doubts.looks import look
from dn2.sources.packs import MARK
from dn2.store.schemas import THUMBNAILS
from dn2.store.storage import Store
from dn2.store.tables import read_table

OF_PICTURES = ("masks", "constant", "cropped")
COLUMNS = ["image_id", "uri", "width", "height"]  # of EMBEDDINGS
_LOOKED_AT = 10_000  # pictures: of more, whole shards are chosen
_LOST, _LONG = 0.25, 0.05  # share of a long image that the crop leaves out; share of the images of which it does
_FEW_MASKS, _MASKS = 3, 0.01  # so many are a doubt, or such a share
_SUFFIX = re.compile(r"[-_. ]*(masks?|gt|ground[-_ ]?truth|labels?|seg(mentation)?|anno(tation)?s?)$")
_Key: TypeAlias = tuple[str, int, int]  # name without its ending, width, height


@dataclass(frozen=True, slots=True)
class Shards:
    """The readable images of a dataset, shard by shard.

    Attributes:
        paths: of the embedding shards.
        images: in each of them.
        rows: takes the number of a shard, and returns an Arrow table with COLUMNS of its living rows.
    """

    paths: Sequence[str]
    images: Sequence[int]
    rows: Callable[[int], Any]

    def chosen(self) -> list[int]:
        """Return the numbers of the shards whose pictures are looked at: all, or as many as are enough, evenly."""
        total = sum(self.images)
        if total <= _LOOKED_AT:
            return list(range(len(self.paths)))
        every = max(1, round(len(self.paths) * _LOOKED_AT / total))
        return sorted({int(one) for one in np.linspace(0, len(self.paths) - 1, every)})


@dataclass(slots=True)
class _Seen:
    """Pictures that were looked at."""

    count: int
    even: list[tuple[str, _Key]]
    two_valued: list[tuple[str, _Key]]
    unclear: set[str]


def picture_doubts(shards: Shards, store: Store, *, crop: str, known: Sequence[Doubt] = ()) -> Iterator[Doubt]:
    """Yield what is odd about the pictures of a dataset.

    Args:
        shards: its images.
        store: where they lie.
        crop: which part of them is seen.
        known: doubts of the bank: what they say of the crop is not said again.
    """
    if crop == "center" and not any(doubt.code == "cropped" for doubt in known):
        yield from _cropped(shards)
    seen = _look(shards, store)
    masks = _masks(shards, seen)
    if len(masks) >= min(_FEW_MASKS, max(1, _MASKS * seen.count)):
        yield Doubt(
            "masks",
            f"{len(masks):,} pictures have two values only, and lie beside others of the same size and name: are they "
            f"masks? Leave them out of the source, by a glob or a table: {named(masks)}",
            {"masks": len(masks), "looked_at": seen.count},
            tuple(masks[:SHOWN]),
        )
    even = [uri for uri, _ in seen.even if uri not in set(masks)]
    if even:
        yield Doubt(
            "constant",
            f"{len(even):,} of {seen.count:,} pictures are all of one colour, or nearly: a lens cap, a lost exposure, "
            f"a blank page? Leave them out if they are not normal: {named(even)}",
            {"constant": len(even), "looked_at": seen.count},
            tuple(even[:SHOWN]),
        )


def _cropped(shards: Shards) -> Iterator[Doubt]:
    images, long, worst, uris = 0, 0, 0.0, list[str]()
    for number in range(len(shards.paths)):
        rows = shards.rows(number)
        width, height = (rows[name].to_numpy().astype(np.float64) for name in ("width", "height"))
        lost = 1 - np.minimum(width, height) / np.maximum(width, height)
        found = lost > _LOST
        images, long, worst = images + len(lost), long + int(found.sum()), max(worst, float(lost.max(initial=0)))
        uris += [rows["uri"][int(row)].as_py() for row in np.flatnonzero(found)[: SHOWN - len(uris)]]
    if long and long >= _LONG * images:
        yield Doubt(
            "cropped",
            f"the central square leaves out over a quarter of {long:,} of {images:,} images, up to {worst:.0%}: flaws "
            f"there are not seen. --crop full sees all of an image, --crop tiles-RxC looks at its parts",
            {"long": long, "images": images, "largest_share": round(worst, 4)},
            tuple(uris),
        )


def _look(shards: Shards, store: Store) -> _Seen:
    seen = _Seen(0, [], [], set())
    for number in shards.chosen():
        path = layout.thumbnails(shards.paths[number])
        if not store.exists(path):  # copied from elsewhere
            continue
        table = read_table(store, path, THUMBNAILS)
        pictures = dict(zip(table["image_id"].to_pylist(), table["thumbnail"], strict=True))
        for row in shards.rows(number).to_pylist():
            picture = pictures.get(row["image_id"])
            if picture is None:
                continue
            seen.count += 1
            found, entry = look(picture.as_py(), side=max(row["width"], row["height"])), (row["uri"], _key(row))
            if found.even:
                seen.even.append(entry)
            if found.two_valued:
                seen.two_valued.append(entry)
            elif not found.many_valued:
                seen.unclear.add(row["uri"])
    return seen


def _key(row: dict[str, Any]) -> _Key:
    """Return what a mask has in common with its picture."""
    name = row["uri"].replace(MARK, "/").rpartition("/")[2].lower()
    return _SUFFIX.sub("", name.rpartition(".")[0] or name), row["width"], row["height"]


def _masks(shards: Shards, seen: _Seen) -> list[str]:
    """Return the URIs of the pictures of two values that lie beside one of more values, of their name and size.

    Pictures of one colour count if there are others of two: masks of images without a flaw.
    """
    candidates = {uri for uri, _ in seen.two_valued}
    keys = {key for _, key in seen.two_valued}
    if not keys:
        return []
    paired = {
        key
        for number in range(len(shards.paths))
        for row in shards.rows(number).to_pylist()
        if row["uri"] not in candidates and row["uri"] not in seen.unclear and (key := _key(row)) in keys
    }
    masks = [uri for uri, key in seen.two_valued if key in paired]
    return masks if set(masks) - {uri for uri, _ in seen.even} else []
