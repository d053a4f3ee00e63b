from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dn2.errors import ConfigError
from dn2.features.backbones import Backbone, backbone
from dn2.features.engine import Engine
from dn2.features.engines import load_engine
from tests.conftest import need
from tests.dn2.features.materials import network_input, photographs, random_weights


@pytest.fixture(scope="module", params=["efficientnet_lite0", "resnet18"])
def chosen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The offline backbone with its real weights, and a ResNet with random ones."""
    if request.param == "efficientnet_lite0":
        return backbone(request.param)
    with pytest.MonkeyPatch.context() as patch:
        return random_weights(request.param, tmp_path_factory.mktemp("torch-home"), patch)


@pytest.fixture(scope="module")
def engines(chosen: Backbone) -> tuple[Engine, Engine]:
    return load_engine(chosen, engine="torch", device="cpu"), load_engine(chosen, engine="openvino")


def agree(a: np.ndarray, b: np.ndarray) -> None:
    """Also what distinguishes the pictures must agree: all embeddings of a random network are nearly parallel."""
    for one, other in ((a, b), (a - a.mean(0), b - b.mean(0))):
        one, other = one.astype(np.float64), other.astype(np.float64)
        cosine = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
        assert cosine.min() > 0.9999


def test_openvino_and_torch_agree_on_real_pictures(chosen: Backbone, engines: tuple[Engine, Engine]):
    pixels = network_input(chosen, photographs())

    first, second = (engine.start(pixels)() for engine in engines)

    assert first.shape == second.shape == (len(pixels), {"efficientnet_lite0": 1280, "resnet18": 512}[chosen.name])
    assert first.dtype == second.dtype == np.float32
    agree(first, second)


@pytest.mark.parametrize("number", [0, 1], ids=["torch", "openvino"])
def test_batch_size_does_not_change_embeddings(chosen: Backbone, engines: tuple[Engine, Engine], number: int):
    """Including a last batch of one."""
    pixels = network_input(chosen, photographs()[:7])
    whole = engines[number].start(pixels)()

    for size in (1, 3):
        pieces = [engines[number].start(pixels[start : start + size])() for start in range(0, len(pixels), size)]
        assert [len(piece) for piece in pieces][-1] == 1
        np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-3, atol=1e-4)


def test_batch_is_not_written_over_by_the_next_one(chosen: Backbone, engines: tuple[Engine, Engine]):
    pixels = network_input(chosen, photographs()[:2])
    for engine in engines:
        first = engine.start(pixels[:1])()
        before = first.copy()
        engine.start(pixels[1:])()
        np.testing.assert_array_equal(first, before)


def test_engines_tell_what_they_are(engines: tuple[Engine, Engine]):
    assert engines[0].name == f"torch {torch.__version__} cpu fp32"
    assert engines[1].name.startswith("openvino 20")
    assert engines[1].name.endswith(" cpu fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with a GPU takes torch")
def test_auto_is_openvino_on_a_machine_without_gpu():
    assert load_engine(backbone("efficientnet_lite0")).name.startswith("openvino ")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
def test_openvino_on_a_gpu_is_refused(device: str):
    with pytest.raises(ConfigError, match=f"engine openvino runs on the CPU: got device '{device}', expected cpu or"):
        load_engine(backbone("efficientnet_lite0"), engine="openvino", device=device)


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_missing_gpu_is_refused_with_their_number(engine: str):
    count = torch.cuda.device_count()
    with pytest.raises(ConfigError, match=f"device: got 'cuda:{count}', expected cpu or one of the {count} GPUs"):
        load_engine(backbone("efficientnet_lite0"), engine=engine, device=f"cuda:{count}")


@pytest.mark.gpu
def test_gpu_agrees_with_the_cpu(chosen: Backbone, engines: tuple[Engine, Engine]):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: this machine cannot test embeddings on a GPU")
    pixels = network_input(chosen, photographs())

    engine = load_engine(chosen, device="cuda:0")

    assert engine.name == f"torch {torch.__version__} cuda:0 fp16"
    agree(engine.start(pixels)(), engines[0].start(pixels)())


def test_converted_network_is_kept_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("DN2_CACHE_DIR", str(tmp_path))
    lite0 = backbone("efficientnet_lite0")
    pixels = network_input(lite0, photographs()[:2])
    first = load_engine(lite0, engine="openvino").start(pixels)()
    (kept,) = (path for path in (tmp_path / "openvino").iterdir())
    assert sorted(path.name for path in kept.iterdir()) == ["network.bin", "network.xml"]
    modified = (kept / "network.bin").stat().st_mtime_ns

    again = load_engine(lite0, engine="openvino").start(pixels)()

    np.testing.assert_array_equal(again, first)
    assert (kept / "network.bin").stat().st_mtime_ns == modified
    assert caplog.messages == []

    (kept / "network.bin").write_bytes(b"damaged")
    mended = load_engine(lite0, engine="openvino").start(pixels)()

    np.testing.assert_array_equal(mended, first)
    assert caplog.messages == [f"the converted network in {kept} is damaged: it is converted again"]
    assert (kept / "network.bin").stat().st_size > 10**7


def test_cache_folder_that_cannot_be_made_costs_only_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DN2_CACHE_DIR", str(tmp_path / "file/cache"))
    small = random_weights("squeezenet1_1", tmp_path, monkeypatch)

    with caplog.at_level(logging.WARNING):
        engine = load_engine(small, engine="openvino")

    assert engine.start(network_input(small, photographs()[:1]))().shape == (1, 512)
    assert [message.partition(" in ")[0] for message in caplog.messages] == ["cannot keep the converted network"]
    assert "Not a directory" in caplog.messages[0]


def test_full_disk_under_the_cache_folder_costs_only_a_warning(tmp_path: Path):
    """A real file system of 3 MB, where OpenVINO's writer fails in its own way; nothing half-written stays."""
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=3m none {tmp_path}"
    need(subprocess.run([*alone, mount], capture_output=True).returncode == 0, "unshare, with the right to mount,")
    code = (
        "import logging, numpy; logging.basicConfig(format='%(message)s')\n"
        "from dn2.features.backbones import backbone\n"
        "from dn2.features.engines import load_engine\n"
        "engine = load_engine(backbone('efficientnet_lite0'), engine='openvino')\n"
        "print(engine.start(numpy.zeros((1, 3, 224, 224), numpy.float32))().shape)\n"
    )
    run = f'{mount} && DN2_CACHE_DIR={tmp_path}/cache "$0" -c "$1" && find {tmp_path} -type f'

    done = subprocess.run([*alone, run, sys.executable, code], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "(1, 1280)\n"), done.stderr
    assert "cannot keep the converted network in" in done.stderr
