"""Several devices, each with a worker of its own. Two workers on the CPU take the way that several GPUs take."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import dn2
from dn2.config import EmbedConfig
from dn2.errors import ConfigError, SourceError
from dn2.features.backbones import backbone
from dn2.features.engines import TorchEngine, devices_of, load_engine
from dn2.progress import Advance, listening
from tests.conftest import make_pictures
from tests.dn2.features.materials import network_input, photographs, rows_of

GRID = "tests.dn2.features.own:Grid"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "pictures", 40)
    return tmp_path / "pictures"


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_two_workers_embed_what_one_does(folder: Path, tmp_path: Path, engine: str):
    found, told, workers = [], [], []
    for devices in ("cpu", "cpu,cpu"):
        store, steps = tmp_path / devices, []
        config = EmbedConfig(backbone=GRID, device=devices, engine=engine, shard_size=3, batch_size=2)

        def listener(step: Advance, steps: list[Advance] = steps) -> None:
            steps.append(step)
            workers.append(threading.current_thread().name.partition("_")[0])

        with listening(listener):
            embedded = dn2.embed(dn2.ingest(folder, store), store, config=config)
        found.append(rows_of(store, embedded))
        told.append(sum(step.items for step in steps if step.stage == "embed"))

    assert found[0] == found[1]
    assert told == [40, 40]
    assert "dn2-embed" in workers


def test_fault_of_one_worker_stops_all_and_what_is_finished_stays(folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    config = EmbedConfig(backbone=GRID, device="cpu,cpu", shard_size=3, batch_size=1, decode_threads=1)
    dataset = dn2.ingest(folder, store)
    (folder / "007.png").unlink()
    (folder / "007.png").mkdir()

    with pytest.raises(SourceError, match="Is a directory"):
        dn2.embed(dataset, store, config=config)
    (folder / "007.png").rmdir()
    make_pictures(tmp_path / "again", 40)
    (tmp_path / "again/007.png").rename(folder / "007.png")
    done = list((store / "embeddings").rglob("0*[0-9a-f].parquet"))
    embedded = dn2.embed(dataset, store, config=config)

    assert len(done) < 14
    assert (embedded.embedded, len(embedded.shards)) == (40, 14)


def test_workers_are_no_more_than_shards(folder: Path, tmp_path: Path):
    config = EmbedConfig(backbone=GRID, device="cpu,cpu,cpu", shard_size=100)
    assert dn2.embed(dn2.ingest(folder, tmp_path / "s"), tmp_path / "s", config=config).embedded == 40


@pytest.mark.parametrize(
    ("device", "engine", "meant"),
    [
        ("cpu", "auto", ("cpu",)),
        ("cuda:1", "torch", ("cuda:1",)),
        ("cuda:0,cuda:2", "auto", ("cuda:0", "cuda:2")),
        ("auto", "openvino", ("cpu",)),
    ],
)
def test_devices_of_a_setting(device: str, engine: str, meant: tuple[str, ...]):
    assert devices_of(device, engine=engine) == meant


def test_auto_takes_every_gpu_that_torch_can_see(monkeypatch: pytest.MonkeyPatch):
    """No machine of ours has three: torch is made to say so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices_of("auto") == ("cuda:0", "cuda:1", "cuda:2")
    assert devices_of("auto", engine="openvino") == ("cpu",)


@pytest.mark.parametrize("engine", ["auto", "torch", "openvino"])
def test_cpu_beside_a_gpu_warns(engine: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with caplog.at_level(logging.WARNING):
        load_engine(backbone(GRID), engine=engine, device="cpu")
    (message,) = caplog.messages
    assert message.startswith("the network runs on the CPU, but there is a GPU")


def test_half_precision_agrees_with_single():
    """On the CPU as on a GPU: the same steps, with float16 where the network calculates."""
    lite0 = backbone("efficientnet_lite0")
    pixels = network_input(lite0, photographs()[:4])
    half = load_engine(lite0, engine="torch", device="cpu", precision="float16")

    one, other = half.start(pixels)().astype(np.float64), TorchEngine(lite0, torch.device("cpu")).start(pixels)()

    assert half.name == f"torch {torch.__version__} cpu fp16"
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosine.min() > 0.9995
    assert not np.array_equal(one, other)


def test_half_precision_with_openvino_is_refused():
    with pytest.raises(ConfigError, match="engine openvino runs in float32: got precision float16"):
        load_engine(backbone(GRID), engine="openvino", precision="float16")


@pytest.mark.gpu
def test_every_visible_gpu_embeds(folder: Path, tmp_path: Path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: this machine cannot embed on GPUs")
    config = EmbedConfig(shard_size=3, batch_size=2)
    embedded = dn2.embed(dn2.ingest(folder, tmp_path / "gpu"), tmp_path / "gpu", config=config)
    plain = EmbedConfig(device="cpu", shard_size=3)
    beside = dn2.embed(dn2.ingest(folder, tmp_path / "cpu"), tmp_path / "cpu", config=plain)

    one, other = (
        np.array([row["embedding"] for row in rows_of(store, of)], np.float64)
        for store, of in ((tmp_path / "gpu", embedded), (tmp_path / "cpu", beside))
    )
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosine.min() > 0.9995
