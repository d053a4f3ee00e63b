from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from dn2.images.decoding import Decoded, Preprocessing, decode
from tests.dn2.images.seen import as_seen

Pixels = npt.NDArray[np.uint8]


def encoded(image: Image.Image | Pixels, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content: bytes, *, max_pixels: int = 10**7, thumbnail_px: int = 96) -> Decoded:
    return as_seen(decode(content, Preprocessing(), max_pixels=max_pixels, thumbnail_px=thumbnail_px))


def plain(image: Image.Image) -> Pixels:
    """The paper's preprocessing in two passes: short side to 256 (bilinear), central 224 x 224."""
    width, height = image.size
    scale = 256 / min(width, height)
    resized = image.resize((int(width * scale + 1e-9), int(height * scale + 1e-9)), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def difference(one: Pixels, other: Pixels) -> Pixels:
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other).astype(np.uint8)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """A real one, 451 x 300 pixels."""
    return Image.fromarray(data.chelsea())


# What lies where in the file, by the EXIF standard: rows and columns of the upright picture (H, W, 3).
STORED = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.transpose(1, 0, 2),
    6: lambda up: np.rot90(up),
    7: lambda up: up[::-1, ::-1].transpose(1, 0, 2),
    8: lambda up: np.rot90(up, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied_once(photograph: Image.Image, orientation: int, kind: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = np.ascontiguousarray(STORED[orientation](np.asarray(photograph)))
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    found = decoded(encoded(turned, kind, exif=exif, **options))
    assert (found.width, found.height) == (451, 300)
    assert difference(plain(photograph), found.pixels).mean() < 1.0
    with Image.open(io.BytesIO(found.thumbnail)) as thumbnail:
        assert thumbnail.size == (96, 64)
        assert thumbnail.getexif() == {}
        small = np.asarray(photograph.resize((96, 64), Image.Resampling.BILINEAR))
        assert difference(small, np.asarray(thumbnail)).mean() < 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_does_not_exist_changes_nothing(photograph: Image.Image, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decoded(encoded(photograph)).pixels, decoded(encoded(photograph, exif=exif)).pixels)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0garbage", b"Exif\0\0II*\0"]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's own; it goes on
def test_broken_exif_does_not_cost_the_image(photograph: Image.Image, exif: bytes, kind: str):
    found = decoded(encoded(photograph, kind, exif=exif))
    assert np.array_equal(decoded(encoded(photograph, kind)).pixels, found.pixels)


@pytest.mark.parametrize("size", [(451, 300), (300, 451), (256, 256), (224, 224), (1024, 257), (64, 64), (31, 47)])
def test_pixels_agree_with_resize_and_crop_in_two_passes(photograph: Image.Image, size: tuple[int, int]):
    image = photograph.resize(size)
    found = decoded(encoded(image)).pixels
    assert found.shape == (224, 224, 3)
    assert found.dtype == np.uint8
    assert difference(plain(image), found).max() <= 2


@settings(deadline=None)
@given(width=st.integers(30, 700), height=st.integers(30, 700), seed=st.integers(0, 9))
def test_pixels_agree_for_any_size(width: int, height: int, seed: int):
    """Smooth pictures: where the two passes round sizes differently, they differ by a fraction of a pixel."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = rows * 255 // max(height - 1, 1), columns * 255 // max(width - 1, 1)
    image = Image.fromarray(np.stack([red, green, np.full_like(red, seed)], -1).astype(np.uint8))
    found = decoded(encoded(image, compress_level=1))
    assert (found.width, found.height) == (width, height)
    assert difference(plain(image), found.pixels).mean() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (3000, 2), (2, 1), (20_000, 1)])
def test_extreme_shapes_are_images_too(size: tuple[int, int]):
    found = decoded(encoded(Image.new("RGB", size, (10, 200, 30))))
    assert (found.width, found.height) == size
    assert np.array_equal(np.full((224, 224, 3), (10, 200, 30), np.uint8), found.pixels)
    with Image.open(io.BytesIO(found.thumbnail)) as thumbnail:
        assert max(thumbnail.size) == min(96, max(size))


@pytest.mark.parametrize("scale", [4, 5, 9])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_large_jpeg_read_at_reduced_scale_stays_close(photograph: Image.Image, scale: int, orientation: int):
    """Up to 4,059 pixels wide, which JPEG can decode at a half or a quarter; some sides are odd."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = photograph.resize((451 * scale, 300 * scale), Image.Resampling.BICUBIC)
    turned = np.ascontiguousarray(STORED[orientation](np.asarray(large)))
    content = encoded(turned, "JPEG", quality=92, exif=exif)
    found = decoded(content, max_pixels=2 * 10**7)
    assert (found.width, found.height) == large.size
    assert difference(plain(large), found.pixels).mean() < 1


@pytest.mark.parametrize("size", [(451, 300), (300, 451), (90, 60), (1000, 10)])
@pytest.mark.parametrize("side", [16, 96, 512])
def test_longest_side_of_the_thumbnail_is_bounded(photograph: Image.Image, size: tuple[int, int], side: int):
    content = decoded(encoded(photograph.resize(size)), thumbnail_px=side).thumbnail
    with Image.open(io.BytesIO(content)) as thumbnail:
        assert thumbnail.format == "JPEG"
        assert thumbnail.mode == "RGB"
        assert max(thumbnail.size) == min(side, max(size))


def test_threads_decode_the_same_pixels(photograph: Image.Image):
    contents = [encoded(photograph.rotate(angle), kind) for angle in range(0, 90, 10) for kind in ("PNG", "JPEG")]
    alone = [decoded(content) for content in contents]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decoded, contents * 4))
    for one, other in zip(alone * 4, together, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert one.thumbnail == other.thumbnail


def test_reduced_scale_is_the_one_that_the_embedder_names(photograph: Image.Image):
    """The setting is part of the embedder's identity: another value must give other pixels."""
    content = encoded(photograph.resize((2255, 1500)), "JPEG")
    found = [
        decode(content, Preprocessing(jpeg_draft=draft), max_pixels=10**7, thumbnail_px=96).pixels for draft in (1, 8)
    ]
    assert not np.array_equal(*found)
