"""From a file's bytes to the pixels a network sees, and a thumbnail for people."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from dn2.checks import check_crop
from dn2.errors import ConfigError

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
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how they begin, in both byte orders; the last two for large ones
_TIFF_HEADER = 8  # bytes
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags of a TIFF; Pillow inverts 8 bits itself, but not 16
_RANGELESS = {"I": "integers of 32 bits or with a sign", "F": "floating-point numbers"}
# What files called .jpg or .png turn out to be. Never EPS, for which Pillow starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
JPEG_DRAFT = 2  # a large JPEG is decoded at a reduced scale, never below this many times the resized size


class UndecodableError(ValueError):
    """The bytes are no image that can be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to an image before the network: part of the embedder's identity.

    Attributes:
        resize: the short side is resized to this many pixels (antialiased) ...
        crop: ... and the central square of this many pixels is kept: the side of the network's input.
        mean: per channel, on the 0 to 255 scale.
        std: per channel, on the 0 to 255 scale.
        jpeg_draft: see JPEG_DRAFT.
        resample: bilinear or bicubic.
        tiles: rows and columns of tiles that the image is cut into, each resized to a square, in place of the central
            square; None for that.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = (0.485 * 255, 0.456 * 255, 0.406 * 255)
    std: tuple[float, float, float] = (0.229 * 255, 0.224 * 255, 0.225 * 255)
    jpeg_draft: int = JPEG_DRAFT
    resample: str = field(default="bilinear", metadata={"neutral": "bilinear"})
    tiles: tuple[int, int] | None = field(default=None, metadata={"neutral": None})

    def __post_init__(self) -> None:
        """Refuse what no picture can be brought to.

        Raises:
            ConfigError: the crop is no side of a square, or larger than what is resized; or there is no such filter.
        """
        if not 1 <= self.crop <= self.resize or self.resample not in ("bilinear", "bicubic"):
            raise ConfigError(
                f"preprocessing: got resize {self.resize}, crop {self.crop} and resample {self.resample!r}, expected "
                f"1 <= crop <= resize, in pixels, and bilinear or bicubic"
            )

    def identity(self) -> dict[str, Any]:
        """Return what an embedder's id is made of: a field that came later only where it is not neutral."""
        neutral = {one.name: one.metadata["neutral"] for one in fields(self) if one.metadata}
        return {name: value for name, value in asdict(self).items() if name not in neutral or value != neutral[name]}

    @property
    def crop_name(self) -> str:
        """What of an image is seen, as the settings call it."""
        return "center" if self.tiles is None else check_crop(f"tiles-{self.tiles[0]}x{self.tiles[1]}")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: (T, 3, crop, crop) float32, red, green and blue from 0 to 255: T tiles, row by row, or one picture.
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
                image.draft("RGB", _draft_size(preprocessing, turned=orientation >= 5))
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
        if data.startswith(_TIFF) and len(data) > _TIFF_HEADER:
            return "a TIFF that is damaged, or of a kind that is not read: save it with 8 or 16 bits per channel"
        return "not an image, or of an unknown format"
    return f"cannot be decoded: {error}"


def _orientation(image: Image.Image) -> int:
    """Return how the pixels have to be turned, as EXIF numbers it."""
    if image.format == "TIFF":  # Pillow turns it when it reads the pixels, and has turned its size already
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF says nothing about the pixels
        return 1
    return value if value in _TURNS else 1


def _rgb(image: Image.Image) -> Image.Image:
    """Return the first picture of a file in red, green and blue; what a colour profile says is not applied.

    Raises:
        UndecodableError: nobody knows which of its values are black and white.
    """
    if image.mode in _RANGELESS:
        raise UndecodableError(
            f"pixels are {_RANGELESS[image.mode]}, which have no agreed range: save it with 8 or 16 bits per channel"
        )
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every such JPEG for one of Adobe's, which are inverted
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
    if image.mode == "P" and "transparency" in image.info:  # Pillow warns when it drops alpha from a palette
        image = image.convert("RGBA")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a gray picture of 9 to 16 bits, as many as its file declares, with its upper 8."""
    bits, inverted = 16, False
    if isinstance(image, TiffImageFile):
        bits, inverted = image.tag_v2.get(_BITS, (16,))[0], image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    gray = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(255 - gray if inverted else gray)


def _draft_size(preprocessing: Preprocessing, *, turned: bool) -> tuple[int, int]:
    """Return the least width and height in pixels that a JPEG may be decoded at."""
    if preprocessing.tiles is None:
        return (preprocessing.resize * preprocessing.jpeg_draft,) * 2
    rows, columns = preprocessing.tiles
    side = preprocessing.crop * preprocessing.jpeg_draft
    return (rows * side, columns * side) if turned else (columns * side, rows * side)


def _network_input(image: Image.Image, size: tuple[int, int], preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Resize what is seen of an image, in one pass: only pixels that are kept are computed.

    Nothing is rounded to whole gray levels on the way: small images, which are enlarged, would score differently.

    Everything is measured in pixels of the whole picture: an image that was read at a half, quarter or eighth of its
    size has its sides rounded up, and would be cut elsewhere.

    Args:
        image: upright, perhaps reduced.
        size: width and height of the whole picture.
        preprocessing: what is seen.
    """
    reduced = round(size[0] / image.width)
    boxes = [
        (left / reduced, top / reduced, right / reduced, bottom / reduced)
        for left, top, right, bottom in _boxes(*size, preprocessing)
    ]
    side, resample = preprocessing.crop, Image.Resampling[preprocessing.resample.upper()]
    pixels = np.empty((len(boxes), 3, side, side), np.float32)
    for channel in range(3):
        plane = image.getchannel(channel).convert("F")  # one at a time: they are large
        for number, box in enumerate(boxes):
            pixels[number, channel] = np.asarray(plane.resize((side, side), resample, box=box))
    return pixels.clip(0, 255, out=pixels)  # bicubic overshoots


def _boxes(width: int, height: int, preprocessing: Preprocessing) -> list[tuple[float, float, float, float]]:
    """Return left, top, right and bottom of what is seen of a picture, in its pixels: of each tile, row by row."""
    if preprocessing.tiles is not None:
        rows, columns = preprocessing.tiles
        return [
            (width * j / columns, height * i / rows, width * (j + 1) / columns, height * (i + 1) / rows)
            for i in range(rows)
            for j in range(columns)
        ]
    resize, crop = preprocessing.resize, preprocessing.crop
    short = min(width, height)
    new_width, new_height = int(resize * width / short), int(resize * height / short)
    left, top = round((new_width - crop) / 2), round((new_height - crop) / 2)
    across, down = width / new_width, height / new_height
    return [(left * across, top * down, (left + crop) * across, (top + crop) * down)]


def _thumbnail(image: Image.Image, side: int) -> bytes:
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
