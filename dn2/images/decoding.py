"""From a file's bytes to the pixels a network sees, and a thumbnail for people."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What files called .jpg or .png turn out to be. Never EPS, for which Pillow starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
JPEG_DRAFT = 2  # a large JPEG is decoded at a reduced scale, never below this many times the resized size


class UndecodableError(ValueError):
    """The bytes are no image that can be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to an image before the network: part of the embedder's identity.

    Attributes:
        resize: the short side is resized to this many pixels (bilinear, antialiased) ...
        crop: ... and the central square of this many pixels is kept.
        mean: per channel, on the 0 to 255 scale.
        std: per channel, on the 0 to 255 scale.
        jpeg_draft: see JPEG_DRAFT.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = (0.485 * 255, 0.456 * 255, 0.406 * 255)
    std: tuple[float, float, float] = (0.229 * 255, 0.224 * 255, 0.225 * 255)
    jpeg_draft: int = JPEG_DRAFT


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: (3, crop, crop) float32, red, green and blue from 0 to 255.
        width: of the whole picture as shown, in pixels.
        height: of the whole picture as shown, in pixels.
        thumbnail: JPEG bytes.
    """

    pixels: npt.NDArray[np.float32]
    width: int
    height: int
    thumbnail: bytes


def decode(data: bytes, preprocessing: Preprocessing, *, max_pixels: int, thumbnail_px: int) -> Decoded:
    """Return an image's network input and thumbnail.

    The EXIF orientation is applied once. Gray becomes three equal channels; 16 bits are scaled to 8; alpha is dropped.

    Args:
        data: the file's bytes.
        preprocessing: size of the network's input.
        max_pixels: larger images are refused before they are decoded.
        thumbnail_px: longest side of the thumbnail.

    Raises:
        UndecodableError: the bytes are no readable image, or have too many pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            _check_size(width, height, max_pixels)
            orientation = _orientation(image)
            if orientation == 1 or width % 8 == height % 8 == 0:  # else a turned edge is a fraction of a pixel wide
                image.draft("RGB", (preprocessing.resize * preprocessing.jpeg_draft,) * 2)
            upright = _rgb(image)
        if orientation in _TURNS:
            upright = upright.transpose(_TURNS[orientation])
        if orientation >= 5:
            width, height = height, width
        pixels = _network_input(upright, (width, height), preprocessing)
        return Decoded(pixels, width, height, _thumbnail(upright, thumbnail_px))
    except (MemoryError, UndecodableError):
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on bad bytes, and no file is touched here
        raise UndecodableError(_reason(error, data)) from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UndecodableError(f"{width} x {height} pixels, more than max_pixels = {max_pixels}")


def _reason(error: Exception, data: bytes) -> str:
    if not data:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of an unknown format"
    return f"cannot be decoded: {error}"


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF says nothing about the pixels
        return 1
    return value if value in _TURNS else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, some of them held in 32
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:  # Pillow warns when it drops alpha from a palette
        image = image.convert("RGBA")
    return image.convert("RGB")


def _network_input(image: Image.Image, size: tuple[int, int], preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Resize the short side and crop the centre, in one pass: only pixels that are kept are computed.

    Nothing is rounded to whole gray levels on the way: small images, which are enlarged, would score differently.

    Everything is measured in pixels of the whole picture: an image that was read at a half, quarter or eighth of its
    size has its sides rounded up, and would be cut elsewhere.
    """
    width, height = size
    reduced = round(width / image.width)
    resize, crop = preprocessing.resize, preprocessing.crop
    short = min(width, height)
    new_width, new_height = int(resize * width / short), int(resize * height / short)
    left, top = round((new_width - crop) / 2), round((new_height - crop) / 2)
    across, down = width / new_width / reduced, height / new_height / reduced
    box = (left * across, top * down, (left + crop) * across, (top + crop) * down)
    planes = (image.getchannel(channel).convert("F") for channel in range(3))  # one at a time: they are large
    return np.stack([np.asarray(plane.resize((crop, crop), Image.Resampling.BILINEAR, box=box)) for plane in planes])


def _thumbnail(image: Image.Image, side: int) -> bytes:
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
