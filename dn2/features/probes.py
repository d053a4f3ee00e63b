"""A few pictures that every process must embed alike before it works with an embedder's vectors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
from PIL import Image

from dn2 import layout
from dn2.errors import Dn2Error, EmbedderError
from dn2.features.backbones import Embedder
from dn2.features.engine import Engine
from dn2.features.engines import embed_pixels
from dn2.images.decoding import decode
from dn2.store.schemas import PROBES
from dn2.store.storage import Store
from dn2.store.tables import column_vectors, read_table, vector_column, writing

AGREEMENT = 0.9995  # least cosine between two embeddings of one picture that count as the same


def pictures() -> list[bytes]:
    """Return four encoded pictures, always the same: clouds of colour and lines, as JPEG and PNG, one of them gray."""
    made = []
    for seed, (height, width, kind) in enumerate([(300, 400, "JPEG"), (520, 360, "PNG"), (700, 900, "JPEG")]):
        made.append(_encode(_picture(seed, height, width), kind))
    made.append(_encode(_picture(3, 240, 240)[:, :, 0], "PNG"))
    return made


def _picture(seed: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (3, 9, 27):
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) * (3 / cells)
    total *= 255 / total.max()
    for row, column in random.integers(0, (height - 40, width - 40), (12, 2)):
        total[row : row + 4, column : column + 40] = random.integers(0, 256, 3)
    return total.astype(np.uint8)


def _encode(pixels: npt.NDArray[np.uint8], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def embed_pictures(encoded: Sequence[bytes], embedder: Embedder, engine: Engine) -> npt.NDArray[np.float16]:
    """Return (N, T * D) float16 embeddings of encoded pictures: of the T tiles of each, one after the other.

    Raises:
        EmbedderError: the network fails.
    """
    crops = [decode(data, embedder.preprocessing, max_pixels=10**7, thumbnail_px=16).pixels for data in encoded]
    try:
        return np.stack([embed_pixels(engine, tiles).reshape(-1) for tiles in crops])
    except (Dn2Error, MemoryError):
        raise
    except Exception as error:  # the network of a user's backbone may raise anything, and here it runs first
        raise EmbedderError(
            f"backbone {embedder.backbone}, run by {engine.name}: failed on a picture: {type(error).__name__}: {error}"
        ) from error


def check_engine(store: Store, embedder: Embedder, engine: Engine) -> int:
    """Make sure that this process embeds as those did that filled the embedder's folder; the first one sets the mark.

    Returns:
        length of what stands for an image: of an embedding, times the number of tiles.

    Raises:
        EmbedderError: it does not, or the network gave no finite numbers.
    """
    path = layout.probes(embedder.id)
    if not store.exists(path):
        encoded = pictures()
        vectors = embed_pictures(encoded, embedder, engine)
        config = {"embedder": asdict(embedder), "engine": engine.name}
        with writing(store, path, PROBES.with_dim(vectors.shape[1]), config) as file:
            file.write({"picture": encoded, "embedding": vector_column(vectors, np.ones(len(vectors), bool))})
        return int(vectors.shape[1])
    table = read_table(store, path, PROBES)
    known, _ = column_vectors(table["embedding"])
    ours = embed_pictures(table["picture"].to_pylist(), embedder, engine)
    compare(known, ours, f"embedder {embedder.id} in {store.uri}, run here by {engine.name}")
    return int(ours.shape[1])


def check_bank(store: Store, embedder_id: str, bank_probes: str) -> None:
    """Make sure that a bank's probes and those of the embeddings in this store agree.

    Raises:
        EmbedderError: they do not.
    """
    known, _ = column_vectors(read_table(store, bank_probes, PROBES)["embedding"])
    here, _ = column_vectors(read_table(store, layout.probes(embedder_id), PROBES)["embedding"])
    compare(known, here, f"embeddings of {embedder_id} in {store.uri} against {bank_probes}")


def compare(known: npt.NDArray[np.float16], ours: npt.NDArray[np.float16], what: str) -> None:
    """Raise unless two (N, D) float16 arrays agree row by row.

    Raises:
        EmbedderError: the shapes differ, or a cosine is below AGREEMENT.
    """
    if known.shape != ours.shape:
        raise EmbedderError(f"{what}: got probe embeddings of shape {ours.shape}, expected {known.shape}")
    a, b = known.astype(np.float64), ours.astype(np.float64)
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)).clip(1e-12)
    if not cosine.min() >= AGREEMENT:
        raise EmbedderError(
            f"{what}: got probe embeddings with cosine {cosine.min():.5f} to the known ones, expected at least "
            f"{AGREEMENT}; use the engine and versions that made them, or embed and train in another store"
        )
