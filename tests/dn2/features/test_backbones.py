from __future__ import annotations

import io
import os
import pickle  # only written here, to see it refused
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from dn2.errors import ConfigError, WeightsError
from dn2.features.backbones import Pretrained, backbone, embedder_of
from tests.dn2.features.materials import network_input, photographs, random_weights


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torch-home")


def test_auto_is_lite0_where_no_other_weights_are():
    assert backbone("auto").name == "efficientnet_lite0"


def test_auto_is_resnet101_where_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chosen = random_weights("resnet101", tmp_path, monkeypatch)

    assert chosen.weights == tmp_path / "hub/checkpoints/resnet101-63fe2227.pth"
    assert (backbone("auto").name, backbone("auto").weights) == ("resnet101", chosen.weights)
    assert embedder_of(backbone("auto")) == embedder_of(chosen)


def test_auto_is_not_moved_by_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    random_weights("resnet18", tmp_path, monkeypatch)

    assert backbone("auto").name == "efficientnet_lite0"


def test_unknown_backbone_is_refused_with_the_known_names():
    with pytest.raises(
        ConfigError, match=r"^backbone: got 'resnet99', expected auto, efficientnet_lite0, .* did you mean resnet"
    ):
        backbone("resnet99")


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "wide_resnet50_2"])
def test_torchvision_weights_are_those_of_the_paper(name: str):
    """IMAGENET1K_V1, not DEFAULT, which is V2 for the deeper ones."""
    member = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]

    assert backbone(name).origin == member.url
    assert backbone(name).weights.name == Path(member.url).name
    transforms = member.transforms()
    preprocessing = backbone(name).preprocessing
    assert [preprocessing.resize] == transforms.resize_size
    assert [preprocessing.crop] == transforms.crop_size
    np.testing.assert_allclose(np.array(preprocessing.mean) / 255, transforms.mean)
    np.testing.assert_allclose(np.array(preprocessing.std) / 255, transforms.std)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_features_are_what_the_networks_own_pooling_gives(name: str, torch_home: Path, monkeypatch: pytest.MonkeyPatch):
    chosen = random_weights(name, torch_home, monkeypatch)
    pixels = torch.from_numpy(network_input(chosen, photographs()[:3]))
    network = torchvision.models.get_model(name, weights=None).eval()
    network.load_state_dict(torch.load(chosen.weights, weights_only=True))
    seen: list[torch.Tensor] = []
    network.avgpool.register_forward_hook(lambda _module, _inputs, output: seen.append(output.flatten(1)))
    member = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].transforms()

    with torch.inference_mode():
        network(torchvision.transforms.functional.normalize(pixels / 255, member.mean, member.std))
        ours = chosen.load()(pixels)

    assert ours.ndim == 2
    torch.testing.assert_close(ours, seen[0], rtol=1e-3, atol=1e-4)


def test_lite0_features_are_normalised_as_its_weights_expect():
    chosen = backbone("efficientnet_lite0")
    pixels = torch.from_numpy(network_input(chosen, photographs()[:2]))
    features = chosen.load()

    with torch.inference_mode():
        expected = features.network.extract_features((pixels - 127) / 128).mean((2, 3))
        torch.testing.assert_close(features(pixels), expected)
    assert not features.training


def test_identity_names_weights_and_preprocessing(torch_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chosen = random_weights("resnet18", torch_home, monkeypatch)
    first = embedder_of(chosen)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    other = backbone("resnet18")
    other.weights.parent.mkdir(parents=True)
    other.weights.write_bytes(chosen.weights.read_bytes() + b"\0")

    assert re.fullmatch(r"resnet18-[0-9a-f]{12}", first.id)
    assert first == embedder_of(random_weights("resnet18", torch_home, monkeypatch))
    assert embedder_of(other).id != first.id


def test_weights_that_are_replaced_in_place_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chosen = random_weights("resnet18", tmp_path, monkeypatch)
    before = embedder_of(chosen).id
    chosen.weights.write_bytes(chosen.weights.read_bytes() + b"\0")

    assert embedder_of(chosen).id != before


def test_missing_weights_are_named_with_their_place_and_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    message = (
        f"backbone resnet50: got no weights file {tmp_path}/hub/checkpoints/resnet50-0676ba61.pth; copy it there "
        f"from https://download.pytorch.org/models/resnet50-0676ba61.pth, let --download fetch it, or use "
        f"--backbone efficientnet_lite0"
    )
    for call in (backbone("resnet50").weights_sha256, backbone("resnet50").load):
        with pytest.raises(WeightsError, match=re.escape(message)):
            call()


class Code:
    """Pickled, it runs a command when it is loaded."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("loaded",)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture
def resnet18(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretrained:
    monkeypatch.chdir(tmp_path)
    return random_weights("resnet18", tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EOFError"),
        (b"<html>404 not found</html>", "it is damaged, or holds other things than tensors"),
        (saved([1, 2]), "Expected state_dict to be dict-like, got <class 'list'>"),
        (saved({"conv1.weight": torch.zeros(64, 3, 7, 7)}), "Error(s) in loading state_dict for ResNet: Missing key"),
        (saved({"model": Code()}), "it is damaged, or holds other things than tensors"),
        (pickle.dumps(Code(), protocol=2), "it is damaged, or holds other things than tensors"),
    ],
    ids=["empty", "page", "list", "other-network", "code-in-zip", "code-in-pickle"],
)
def test_file_that_holds_no_weights_for_the_network_is_refused(resnet18: Pretrained, content: bytes, reason: str):
    resnet18.weights.write_bytes(content)

    message = f"backbone resnet18: weights file {resnet18.weights} does not fit: {reason}"
    with pytest.raises(WeightsError, match=re.escape(message)):
        resnet18.load()
    assert not Path("loaded").exists()


def test_weights_of_another_network_are_refused(resnet18: Pretrained):
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), resnet18.weights)

    with pytest.raises(WeightsError, match=r"does not fit: Error\(s\) in loading .* Unexpected key"):
        resnet18.load()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch looks at the damage and wonders
def test_damaged_weights_are_refused_however_they_are_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Cut short, or with wrong bytes where the structure is described: nothing but WeightsError comes out."""
    whole = random_weights("squeezenet1_1", tmp_path, monkeypatch)
    generator = random.Random(0)
    legacy = io.BytesIO()
    torch.save(whole.build()[0].state_dict(), legacy, _use_new_zipfile_serialization=False)
    refused = 0
    for number in range(30):
        content = bytearray(legacy.getvalue() if number % 2 else whole.weights.read_bytes())
        if number % 3:
            content = content[: generator.choice([3, 50, 500, 5000, 50_000])]
        for _ in range(30):
            content[generator.randrange(min(len(content), 2000))] = generator.randrange(256)
        damaged = whole.weights.with_name(f"damaged-{number}.pth")
        damaged.write_bytes(content)
        chosen = Pretrained("squeezenet1_1", whole.preprocessing, damaged, whole.build, "the web")
        with pytest.raises(WeightsError, match="does not fit"):
            chosen.load()
        damaged.unlink()
        refused += 1
    assert refused == 30
