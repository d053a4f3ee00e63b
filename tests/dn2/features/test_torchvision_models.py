from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from dn2.features import torchvision_models
from dn2.features.backbones import Pretrained, backbone, embedder_of
from dn2.features.engines import load_engine
from dn2.images.decoding import Preprocessing
from tests.dn2.features.materials import network_input, photographs, random_weights

LENGTHS = {  # one of each family, and how many features its last stage has
    "alexnet": 256,
    "convnext_tiny": 768,
    "densenet121": 1024,
    "efficientnet_b0": 1280,
    "efficientnet_v2_s": 1280,
    "googlenet": 1024,
    "inception_v3": 2048,
    "maxvit_t": 512,
    "mnasnet0_5": 1280,
    "mobilenet_v2": 1280,
    "mobilenet_v3_small": 576,
    "resnet18": 512,
    "resnext50_32x4d": 2048,
    "shufflenet_v2_x0_5": 1024,
    "squeezenet1_1": 512,
    "swin_t": 768,
    "swin_v2_t": 768,
    "vgg11": 512,
    "vit_b_32": 768,
    "wide_resnet50_2": 2048,
}


@pytest.mark.parametrize("name", [name for name in torchvision_models.names() if "regnet" not in name])
def test_every_model_gives_one_vector_for_a_picture(name: str):
    """Built without memory for its weights: shapes are computed all the same."""
    model = torchvision_models.model(name)
    side = model.preprocessing.crop
    with torch.device("meta"):
        network, heads = model.build()
        shape = network.eval()(torch.zeros(2, 3, side, side)).shape

    assert (len(shape), shape[0]) == (2, 2)
    assert shape[1] == LENGTHS.get(name, shape[1])
    assert not any(name.partition(".")[0] in heads for name in network.state_dict())
    assert model.url.startswith("https://download.pytorch.org/models/")


def test_regnets_give_one_vector_for_a_picture():
    """They cannot be built without memory."""
    assert sum("regnet" in name for name in torchvision_models.names()) == 15
    network, _ = torchvision_models.model("regnet_x_400mf").build()
    with torch.inference_mode():
        assert network.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 400)


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "densenet121", "mnasnet0_5"]
)
def test_features_are_the_last_stage_averaged_over_the_picture(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The stage is found by looking: the last four-dimensional output before the head sees anything."""
    chosen = random_weights(name, tmp_path, monkeypatch)
    pixels = torch.from_numpy(network_input(chosen, photographs()[:2]))
    network = torchvision.models.get_model(name, weights=None).eval()
    network.load_state_dict(torch.load(chosen.weights, weights_only=True))
    head = next(child for kind, child in network.named_children() if kind in ("fc", "classifier"))
    maps: list[torch.Tensor] = []
    for part in network.modules():
        if part is not network and part not in set(head.modules()) and not isinstance(part, nn.AdaptiveAvgPool2d):
            part.register_forward_hook(lambda _part, _inputs, output: maps.append(output))
    member = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].transforms()

    with torch.inference_mode():
        network(torchvision.transforms.functional.normalize(pixels / 255, member.mean, member.std))
        ours = chosen.load()(pixels)

    last = [one for one in maps if one.ndim == 4][-1]
    expected = (last.relu() if name == "densenet121" else last).mean((2, 3))  # it calls that as a function
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_input_is_what_the_weights_expect():
    """Sides, mean and filter of the weights, not of the paper's network."""
    expected = {
        "efficientnet_b3": (320, 300, "bicubic"),
        "vit_h_14": (224, 224, "bicubic"),
        "vgg16": (256, 224, "bilinear"),
    }
    for name, of in expected.items():
        found = torchvision_models.model(name).preprocessing
        assert (found.resize, found.crop, found.resample) == of
    assert torchvision_models.model("efficientnet_v2_l").preprocessing.mean == (127.5, 127.5, 127.5)
    assert torchvision_models.model("resnet50").preprocessing == Preprocessing()


def test_identity_of_embedders_that_were_there_before_has_not_changed():
    """What was embedded once stays known."""
    assert embedder_of(backbone("efficientnet_lite0")).id == "efficientnet_lite0-fba097d3bbae"


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_engines_agree_on_other_families(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DN2_CACHE_DIR", str(tmp_path / "cache"))
    chosen = random_weights(name, tmp_path, monkeypatch)
    pixels = network_input(chosen, photographs()[:2])

    first, second = (
        load_engine(chosen, engine=engine, device="cpu").start(pixels)() for engine in ("torch", "openvino")
    )

    assert first.shape == (2, LENGTHS[name])
    assert (abs(first - second) <= 1e-3 * abs(first).max()).all()


@pytest.mark.parametrize("helped", [True, False])
def test_networks_with_helpers_load_with_and_without_them(helped: bool, tmp_path: Path):
    """For another number of classes, too; and they scale their input as torchvision does where it loads weights."""
    trained = torchvision.models.googlenet(weights=None, init_weights=False, num_classes=7, aux_logits=helped)
    torch.save(trained.state_dict(), tmp_path / "mine.pth")
    chosen = backbone("googlenet", weights=str(tmp_path / "mine.pth"))

    assert isinstance(chosen, Pretrained)
    assert chosen.load().network.transform_input is True
