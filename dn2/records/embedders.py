"""The name of an embedder: what it tells without a look at weights."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dn2.checks import check_crop, tile_grid
from dn2.errors import ConfigError

_BACKBONE = re.compile(r"\w{1,60}", re.ASCII)


@dataclass(frozen=True, slots=True)
class EmbedderName:
    """What the id of an embedder begins with, such as resnet50-tiles-2x2-0123456789ab.

    Attributes:
        backbone: name of the network.
        crop: what of an image it sees: center, full or tiles-RxC.
    """

    backbone: str
    crop: str = "center"

    @classmethod
    def parse(cls, identity: str) -> EmbedderName:
        """Return what an embedder's id tells."""
        backbone, _, crop = identity.rpartition("-")[0].partition("-")
        try:
            return cls(backbone, check_crop(crop or "center"))
        except ConfigError:
            return cls(identity.rpartition("-")[0])

    @staticmethod
    def fits(backbone: object) -> bool:
        """Return True for a name that a backbone can have."""
        return isinstance(backbone, str) and _BACKBONE.fullmatch(backbone) is not None

    def with_digits(self, digits: str) -> str:
        """Return the id that ends with some hex digits."""
        return "-".join([self.backbone, *([] if self.crop == "center" else [self.crop]), digits])

    @property
    def tiles(self) -> int:
        """How many vectors stand for an image."""
        rows, columns = tile_grid(self.crop) or (1, 1)
        return rows * columns

    @property
    def words(self) -> str:
        """Backbone and crop, for people."""
        return self.backbone if self.crop == "center" else f"{self.backbone}, {self.crop}"
