"""What of a picture the network sees: the central square, all of it, or tiles."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from skimage import data

from dn2.checks import check_crop, tile_grid
from dn2.errors import ConfigError
from dn2.images.decoding import Preprocessing, decode


def pixels_of(picture: Image.Image, tiles: tuple[int, int] | None, kind: str = "PNG", **how: object) -> np.ndarray:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return decode(buffer.getvalue(), Preprocessing(tiles=tiles), max_pixels=10**8, thumbnail_px=96).pixels


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    """600 x 400 pixels."""
    return Image.fromarray(data.coffee())


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (2, 3), (4, 1), (1, 5)])
def test_tiles_are_the_parts_of_the_picture_each_resized_row_by_row(coffee: Image.Image, grid: tuple[int, int]):
    rows, columns = grid
    found = pixels_of(coffee, grid)

    assert found.shape == (rows * columns, 3, 224, 224)
    width, height = coffee.width // columns, coffee.height // rows
    for number in range(rows * columns):
        left, top = number % columns * width, number // columns * height
        part = coffee.crop((left, top, left + width, top + height)).resize((224, 224), Image.Resampling.BILINEAR)
        inner = np.s_[:, 4:-4, 4:-4]  # at its border a tile sees a little of its neighbours
        difference = np.abs(found[number] - np.asarray(part, np.float32).transpose(2, 0, 1))[inner]
        assert difference.mean() < 0.5


def test_tiles_cover_a_picture_whose_sides_do_not_divide():
    """What the tiles show, put together, is the picture: nothing is left out, nothing is there twice."""
    ramp = np.broadcast_to(np.linspace(0, 255, 101, dtype=np.uint8), (67, 101))
    found = pixels_of(Image.fromarray(np.ascontiguousarray(ramp)), (1, 3))
    line = np.concatenate([tile[0, 100] for tile in found])

    assert (np.diff(line) >= -1e-3).all()
    np.testing.assert_allclose(line, np.linspace(0, 255, 672), atol=3)


def test_tiles_follow_the_orientation(coffee: Image.Image):
    """Of a picture that is stored lying, rows are those of the picture as shown."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = coffee.transpose(Image.Transpose.ROTATE_90)
    for kind, how in (("PNG", {}), ("JPEG", {"quality": 95, "subsampling": 0})):
        turned = pixels_of(stored, (2, 3), kind, exif=exif, **how)
        assert np.abs(turned - pixels_of(coffee, (2, 3))).mean() < 2


def test_large_jpegs_are_read_as_finely_as_their_tiles_need(coffee: Image.Image):
    """Draft mode reads a reduced picture; with more tiles it must be less reduced."""
    large = coffee.resize((3600, 2400), Image.Resampling.BICUBIC)
    for grid in ((1, 1), (2, 3), (4, 4)):
        one, other = pixels_of(large, grid, "JPEG", quality=95), pixels_of(large, grid, "BMP")
        assert np.abs(one - other).mean() < 1.5


def test_bicubic_stays_in_range():
    edges = np.zeros((300, 300), np.uint8)
    edges[:, 150:] = 255
    buffer = io.BytesIO()
    Image.fromarray(edges).save(buffer, "PNG")
    found = decode(buffer.getvalue(), Preprocessing(resample="bicubic"), max_pixels=10**6, thumbnail_px=16).pixels
    plain = decode(buffer.getvalue(), Preprocessing(), max_pixels=10**6, thumbnail_px=16).pixels

    assert (found.min(), found.max()) == (0, 255)
    assert np.abs(found - plain).max() > 1


@pytest.mark.parametrize(
    ("crop", "grid"), [("center", None), ("full", (1, 1)), ("tiles-2x3", (2, 3)), ("tiles( 16 ,1)", (16, 1))]
)
def test_crops_are_grids(crop: str, grid: tuple[int, int] | None):
    assert tile_grid(crop) == grid
    assert Preprocessing(tiles=grid).crop_name == check_crop(crop)


@pytest.mark.parametrize(
    "crop", ["", "tiles", "tiles-2", "tiles-0x1", "tiles-1x17", "tiles-2x3 ", "centre", "tiles--1x2"]
)
def test_what_is_no_crop_is_refused(crop: str):
    with pytest.raises(
        ConfigError, match="expected auto, center, full, or tiles-RxC with 1 to 16 rows R and columns C"
    ):
        check_crop(crop)
