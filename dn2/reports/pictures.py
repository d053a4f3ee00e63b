"""The small pictures that pages show."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

from PIL import Image

from dn2 import layout
from dn2.store.documents import check_shard
from dn2.store.schemas import THUMBNAILS
from dn2.store.storage import Store
from dn2.store.tables import read_table


def thumbnails(store: Store, shards: Mapping[str, str]) -> dict[str, bytes]:
    """Return JPEG bytes by image id; images copied from another store may have none.

    Args:
        store: where dn2 keeps its files.
        shards: by image id, the embedding shard beside which the thumbnail lies.

    Raises:
        SchemaError: a row of a bank names something else.
    """
    wanted: dict[str, set[str]] = {}
    for image_id, shard in shards.items():
        wanted.setdefault(check_shard(store, shard), set()).add(image_id)
    found: dict[str, bytes] = {}
    for shard, ids in wanted.items():
        if store.exists(path := layout.thumbnails(shard)):
            table = read_table(store, path, THUMBNAILS)
            names = table["image_id"].to_pylist()
            found |= {name: table["thumbnail"][row].as_py() for row, name in enumerate(names) if name in ids}
    return found


def shares(picture: bytes) -> tuple[float, float]:
    """Return width and height of a JPEG picture as shares of the longer one."""
    with Image.open(io.BytesIO(picture), formats=["JPEG"]) as opened:
        width, height = opened.size
    return width / max(width, height), height / max(width, height)


def data_uri(picture: bytes | None) -> str:
    """Return a JPEG picture as a data URI, or nothing where there is none."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}" if picture else ""
