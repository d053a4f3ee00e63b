"""The classification models of torchvision, without what classifies: their pooled features are the embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torchvision
from torch import nn

from dn2.images.decoding import Preprocessing

_HEADS = ("fc", "classifier", "head", "heads")  # what each family calls the part that makes classes of features
_GENERATIONS = ("IMAGENET1K_V1", "IMAGENET1K_SWAG_LINEAR_V1")  # of weights; the first is the paper's
_OWN_SCALE = {"init_weights": False, "transform_input": True, "aux_logits": False}
_OPTIONS = {"googlenet": _OWN_SCALE, "inception_v3": _OWN_SCALE}  # as torchvision builds them where it loads weights
_HELPERS = ("aux1", "aux2", "AuxLogits")  # what else makes classes of features while these two are trained


@dataclass(frozen=True, slots=True)
class Model:
    """A model of torchvision.

    Attributes:
        preprocessing: what its weights expect.
        url: where they can be had.
        build: makes the bare network, which returns (B, D), and names what was taken off it.
    """

    preprocessing: Preprocessing
    url: str
    build: Callable[[], tuple[nn.Module, tuple[str, ...]]]

    @property
    def file(self) -> str:
        """Name of the weights file in torch's cache."""
        return self.url.rpartition("/")[2]


@cache
def names() -> tuple[str, ...]:
    """Return the names of all classification models."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def model(name: str) -> Model:
    """Return the model of a name, with the weights of 2015 to 2020 (IMAGENET1K_V1), the paper's, where it has such.

    The newer generations of weights have less local features.
    """
    members = torchvision.models.get_model_weights(name).__members__
    weights = next((members[one] for one in _GENERATIONS if one in members), next(iter(members.values())))
    return Model(_preprocessing(weights.transforms()), weights.url, lambda: _build(name))


def _preprocessing(transforms: Any) -> Preprocessing:
    bilinear = transforms.interpolation == torchvision.transforms.InterpolationMode.BILINEAR
    return Preprocessing(
        resize=transforms.resize_size[0],
        crop=transforms.crop_size[0],
        mean=tuple(255 * value for value in transforms.mean),
        std=tuple(255 * value for value in transforms.std),
        resample="bilinear" if bilinear else "bicubic",
    )


def _build(name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a network that ends with global average pooling, and the names of its heads, which are taken off.

    What a vision transformer puts in place of pooling, its class token, stays what it is.
    """
    network = torchvision.models.get_model(name, weights=None, **_OPTIONS.get(name, {}))
    head = next(one for one in _HEADS if hasattr(network, one))
    setattr(network, head, _Pooled())
    pooling = getattr(network, "avgpool", None)
    if isinstance(pooling, nn.AdaptiveAvgPool2d):  # to 7 x 7 in some that flatten it
        network.avgpool = nn.AdaptiveAvgPool2d(1)
    return network, (head, *(_HELPERS if name in _OPTIONS else ()))


class _Pooled(nn.Module):
    """Takes the place of the head: (B, D) as it comes, (B, D, H, W) averaged over the picture."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean((2, 3)) if features.ndim == 4 else features
