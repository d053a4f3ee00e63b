"""A backbone of one's own, as the documentation describes one: named `tests.dn2.features.own:Grid`, and fast."""

from __future__ import annotations

import torch
from torch import nn

from dn2.images.decoding import Preprocessing


class _Means(nn.Module):
    """Mean of each colour in each of 4 x 4 fields."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(pixels / 16, 4).flatten(1)


class Grid:
    """Embeds a picture as 48 mean colours."""

    name = "grid"
    preprocessing = Preprocessing(resize=40, crop=32)

    def weights_sha256(self) -> str:
        return "0" * 64

    def load(self) -> nn.Module:
        return _Means()


class Maps(Grid):
    """Forgets to pool."""

    def load(self) -> nn.Module:
        return nn.Conv2d(3, 4, 3)


class Few(Grid):
    """Forgets all pictures of a batch but one."""

    def load(self) -> nn.Module:
        return nn.Sequential(_Means(), _First())


class _First(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features[:1]


class Raising(Grid):
    """Raises where it is loaded."""

    def load(self) -> nn.Module:
        raise RuntimeError("boom")


class NoNetwork(Grid):
    """Loads a function."""

    def load(self) -> nn.Module:
        return len  # type: ignore[return-value]


class Doubles(Grid):
    """Calculates in float64, which it is not given."""

    def load(self) -> nn.Module:
        return nn.Sequential(_Means(), nn.Linear(48, 4).double())


class NoDigits(Grid):
    """Gives no sha256."""

    def weights_sha256(self) -> str:
        return "../x"


class Ending(Grid):
    """Ends the process."""

    def __init__(self) -> None:
        raise SystemExit(3)


class Lite(Grid):
    """Has the name of a backbone that comes with dn2."""

    name = "efficientnet_lite0"


class Nameless:
    """Lacks what a backbone has."""


class Dashed(Grid):
    """Has a name that would be read as a crop."""

    name = "a-full"


class Bessel(Grid):
    """Calculates what OpenVINO cannot."""

    def load(self) -> nn.Module:
        return nn.Sequential(_Means(), _Bessel())


class _Bessel(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(features)
