"""What a stored thumbnail shows: whether a picture is all of one colour, or has two values only, as masks have."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

_EVEN = 2.0  # gray levels: no real picture that we looked at (Fashion-MNIST, textures, cells, boards) is below 15
_PEAK, _EDGE = 12, 20  # gray levels around the two values: thumbnails are JPEGs, which ring
_TRIMMED = 0.002  # share of the pixels beyond the second value
_TWO, _TWO_WHOLE, _MANY = 0.94, 0.97, 0.90  # see `Look`
_LEVELS = np.arange(256)


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture looks like.

    Masks that were made smaller have 94 % of their pixels at two values or more, as they are 97 %; of 9,000 real
    pictures all had less, but for scans of circuit boards, which are nearly black and white.

    Attributes:
        even: all of one colour, or nearly: the standard deviation of no channel is above 2 of 255 gray levels.
        two_valued: nearly every pixel has one of two values; so has a picture of one colour.
        many_valued: clearly not.
    """

    even: bool
    two_valued: bool
    many_valued: bool


def look(thumbnail: bytes, *, side: int) -> Look:
    """Return what a picture looks like.

    Args:
        thumbnail: its JPEG.
        side: the longer one of the picture itself, in pixels.
    """
    with Image.open(io.BytesIO(thumbnail), formats=["JPEG"]) as opened:
        reduced = max(opened.size) < side
        counts = np.array(opened.convert("RGB").histogram(), np.float64).reshape(3, 256)
    shares = counts / counts.sum(1, keepdims=True)
    means = shares @ _LEVELS
    spread = float(np.sqrt((shares * (_LEVELS - means[:, None]) ** 2).sum(1)).max())
    two = min(_at_two_values(channel) for channel in shares)
    return Look(spread <= _EVEN, two >= (_TWO if reduced else _TWO_WHOLE), two <= _MANY)


def _at_two_values(shares: npt.NDArray[np.float64]) -> float:
    """Return which share of the pixels lies near the commonest value, or near the end that is farther from it."""
    within = np.cumsum(shares)
    first = int(np.convolve(shares, np.ones(9), "same").argmax())
    low, high = (int(np.searchsorted(within, share)) for share in (_TRIMMED, 1 - _TRIMMED))
    second = high if high - first > first - low else low
    near = (np.abs(_LEVELS - first) <= _PEAK) | (np.abs(_LEVELS - second) <= _EDGE)
    return float(shares[near].sum())
