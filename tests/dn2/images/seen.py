"""Decoded pictures as people see them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dn2.images.decoding import Decoded


def as_seen(found: Decoded) -> Decoded:
    """Return a decoded picture with its (1, 3, H, W) float32 pixels as (H, W, 3) uint8, rounded."""
    assert found.pixels.dtype == np.float32
    assert found.pixels.shape == (1, 3, 224, 224)
    return replace(found, pixels=np.rint(found.pixels[0]).astype(np.uint8).transpose(1, 2, 0))
