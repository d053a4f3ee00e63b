"""A little inspection job on a real photograph: a brick wall, intact in training, damaged in places in the batch.

The photographs (brick, grass, gravel: 512 x 512 gray) ship inside scikit-image's wheel. The brick wall is cut into its
64 disjoint blocks of 64 x 64 pixels, interleaved like a chessboard: 32 blocks are the normal training images, the other
32 the normal images of the batch. Each kind of anomaly is made once from each of those 32 batch blocks, so all kinds
have the same number of images and no anomaly shows a wall that training has seen:

    scratch   one straight line, 1 to 2 px wide, 25 to 50 px long, 60 to 90 gray levels darker or brighter than the wall
    hole      a dark ellipse with half axes of 4 to 9 px and a soft rim, 80 to 110 gray levels darker
    pasted    a 20 to 32 px square of another photograph (grass or gravel in turn) pasted in
    material  the whole patch shows another material (grass or gravel in turn), from 32 of their blocks

Sizes, contrasts and places are drawn from a generator with seed 0. Nothing here was chosen by looking at scores.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage import data, draw, filters

SIDE = 64
KINDS = ("scratch", "hole", "pasted", "material")
Patch = npt.NDArray[np.uint8]


def blocks(photograph: Patch) -> dict[tuple[int, int], Patch]:
    """Return the disjoint SIDE x SIDE blocks of a (H, W) uint8 photograph by row and column."""
    rows, columns = photograph.shape[0] // SIDE, photograph.shape[1] // SIDE
    return {
        (row, column): photograph[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
        for row in range(rows)
        for column in range(columns)
    }


def write_images(folder: Path) -> tuple[Path, Path]:
    """Write the job's pictures and return its two folders: normal images, and the batch.

    A file that is there already with the same bytes is left alone, so that a second run finds nothing changed.
    """
    normal, batch = folder / "normal", folder / "batch"
    wall = blocks(data.brick())
    for (row, column), patch in wall.items():
        if (row + column) % 2 == 0:
            _write(normal / f"brick-{row}{column}.png", _png(patch))
        else:
            _write(batch / f"good-{row}{column}.png", _png(patch))
    places = [place for place in wall if sum(place) % 2]
    for name, patch in _anomalies([wall[place] for place in places]):
        _write(batch / f"{name}.png", _png(patch))
    for name, content in _broken(_png(wall[places[0]])):
        _write(batch / f"broken-{name}.png", content)
    return normal, batch


def kind_of(uri: str) -> str:
    """Return the kind of a batch image: good, broken, or one of KINDS."""
    return uri.rpartition("/")[2].partition("-")[0]


def _anomalies(patches: list[Patch]) -> Iterator[tuple[str, Patch]]:
    random = np.random.default_rng(0)
    others = [blocks(data.grass()), blocks(data.gravel())]
    for number, patch in enumerate(patches):
        other = others[number % 2]
        foreign = list(other.values())[number * len(other) // len(patches)]
        yield f"scratch-{number:02d}", _scratch(patch, random)
        yield f"hole-{number:02d}", _hole(patch, random)
        yield f"pasted-{number:02d}", _pasted(patch, foreign, random)
        yield f"material-{number:02d}", foreign


def _scratch(patch: Patch, random: np.random.Generator) -> Patch:
    length, angle = random.uniform(25, 50), random.uniform(0, np.pi)
    middle = random.uniform(20, SIDE - 20, 2)
    reach = np.array([np.sin(angle), np.cos(angle)]) * length / 2
    start, end = np.round(np.clip([middle - reach, middle + reach], 1, SIDE - 2)).astype(int)
    line = np.zeros((SIDE, SIDE))
    line[draw.line(*start, *end)] = 1
    if random.random() < 0.5:
        line = np.maximum(line, np.roll(line, 1, axis=int(abs(reach[0]) < abs(reach[1]))) * (line < 1))
    return _shifted(patch, line * random.uniform(60, 90) * random.choice([-1, 1]))


def _hole(patch: Patch, random: np.random.Generator) -> Patch:
    mask = np.zeros((SIDE, SIDE))
    centre, axes = random.uniform(14, SIDE - 14, 2), random.uniform(4, 9, 2)
    mask[draw.ellipse(centre[0], centre[1], axes[0], axes[1], shape=mask.shape, rotation=random.uniform(0, np.pi))] = 1
    return _shifted(patch, -filters.gaussian(mask, 0.8) * random.uniform(80, 110))


def _pasted(patch: Patch, foreign: Patch, random: np.random.Generator) -> Patch:
    side = int(random.integers(20, 33))
    row, column = random.integers(0, SIDE - side + 1, 2)
    pasted = patch.copy()
    pasted[row : row + side, column : column + side] = foreign[:side, :side]
    return pasted


def _shifted(patch: Patch, change: npt.NDArray[np.float64]) -> Patch:
    return np.clip(patch + change, 0, 255).astype(np.uint8)


def _broken(whole: bytes) -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "cut", whole[: len(whole) // 2]
    yield "text", b"this is not a picture\n"


def _png(patch: Patch) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(patch).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)
