"""Pictures that are drawn for doubts: masks of flaws."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("blobs", "crack", "polygon")


def mask(kind: str, size: tuple[int, int], *, seed: int, values: tuple[int, int] = (0, 255)) -> Image.Image:
    """Return a gray picture of two values: a mask of some blobs, a crack or a polygon.

    Args:
        kind: one of KINDS.
        size: width and height, in pixels.
        seed: of its random places.
        values: of the background, and of what is marked.
    """
    random = np.random.default_rng(seed)
    width, height = size
    picture = Image.new("L", size, values[0])
    draw = ImageDraw.Draw(picture)

    def place() -> tuple[int, int]:
        return int(random.integers(width // 8, width - width // 8)), int(random.integers(height // 8, height * 7 // 8))

    if kind == "blobs":
        for _ in range(2):
            (x, y), reach = place(), min(size) // 8 + 1
            draw.ellipse([x - reach, y - reach, x + reach, y + reach // 2], fill=values[1])
    elif kind == "crack":
        draw.line([place() for _ in range(4)], fill=values[1], width=max(1, width // 100))
    else:
        draw.polygon([place() for _ in range(4)], fill=values[1])
    return picture
