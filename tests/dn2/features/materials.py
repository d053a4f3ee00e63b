"""Real pictures and stand-in weights for the tests of networks."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from skimage import data

from dn2.evaluation.bricks import blocks
from dn2.features.backbones import Backbone, Pretrained, backbone
from dn2.images.decoding import decode
from dn2.records import Embedded
from dn2.store.schemas import EMBEDDINGS
from dn2.store.storage import Store
from dn2.store.tables import read_table


def random_weights(name: str, torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> Pretrained:
    """Return a backbone whose weights file, below `torch_home`, holds random weights."""
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    chosen = backbone(name)
    assert isinstance(chosen, Pretrained)
    if not chosen.weights.exists():
        chosen.weights.parent.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            torch.save(torchvision.models.get_model(name, weights=None, **options).state_dict(), chosen.weights)
    return chosen


def photographs() -> list[np.ndarray]:
    """Return real photographs, gray and in colour, and patches of a brick wall."""
    wall = list(blocks(data.brick()).values())[:6]
    return [data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.camera(), data.grass(), *wall]


def network_input(chosen: Backbone, pictures: list[np.ndarray]) -> np.ndarray:
    """Return (N, 3, H, W) float32: pictures as the project decodes them, each the central square."""
    crops = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        crops.append(decode(buffer.getvalue(), chosen.preprocessing, max_pixels=10**7, thumbnail_px=16).pixels)
    return np.concatenate(crops)


def write_patches(folder: Path, count: int) -> None:
    """Write `count` small real pictures: 48 px patches of photographs in turn, named 000.png ..."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [data.brick(), data.grass(), data.gravel(), data.coffee(), data.astronaut()]
    for number in range(count):
        photograph = sources[number % len(sources)]
        row, column = (number * 37) % (photograph.shape[0] - 48), (number * 53) % (photograph.shape[1] - 48)
        Image.fromarray(photograph[row : row + 48, column : column + 48]).save(folder / f"{number:03d}.png")


def rows_of(store: Path, embedded: Embedded, columns: list[str] | None = None) -> list[dict]:
    opened = Store.open(store)
    return [row for shard in embedded.shards for row in read_table(opened, shard.path, EMBEDDINGS, columns).to_pylist()]
