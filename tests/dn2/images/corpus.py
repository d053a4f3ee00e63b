"""One real photograph as a file of every format and kind of pixels."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageChops, ImageCms
from skimage import data

ORIENTATION = 0x0112  # EXIF tag
Pixels = npt.NDArray[np.uint8]
PHOTOGRAPH = Image.fromarray(data.chelsea()[40:240, 80:380])  # the face of a cat, 300 x 200
RGB = np.asarray(PHOTOGRAPH)
GRAY = np.asarray(PHOTOGRAPH.convert("L"))
ALPHA = np.tile(np.linspace(0, 255, 300).astype(np.uint8), (200, 1))
OTHER = Image.fromarray(data.coffee()[:200, :300])  # what further frames and pages show


@dataclass(frozen=True)
class Sample:
    """A file.

    Attributes:
        content: its bytes.
        seen: (H, W) or (H, W, 3) uint8, what it shows; None where Pillow alone shows that.
    """

    content: bytes
    seen: Pixels | None = None


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as Pillow writes it."""
    buffer = io.BytesIO()
    image.copy().save(buffer, kind, **options)  # an image keeps what its last format was told
    return buffer.getvalue()


def samples() -> dict[str, Sample]:
    """Return files by their names."""
    return {**_jpegs(), **_pngs(), **_of_the_web(), **_tiffs(), **_scientific_tiffs()}


def turned(kind: str, **options: object) -> bytes:
    """Return the photograph lying on its side, with an EXIF orientation that sets it upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encoded(PHOTOGRAPH.transpose(Image.Transpose.ROTATE_90), kind, exif=exif, **options)


def plain_cmyk_jpeg(image: Image.Image) -> bytes:
    """Return a JPEG of four inks that is not Adobe's: no marker, and no value inverted."""
    content = encoded(
        ImageChops.invert(image.convert("CMYK")), "JPEG", quality=100, subsampling=0
    )  # Pillow inverts once more
    marker = content.index(b"\xff\xee")
    (length,) = struct.unpack_from(">H", content, marker + 2)
    return content[:marker] + content[marker + 2 + length :]


def ycck_jpeg(image: Image.Image) -> bytes:
    """Return a JPEG of Adobe's whose inks stand as luma, two chroma and black."""
    cyan, magenta, yellow, black = image.convert("CMYK").split()
    bands = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr").split()
    content = encoded(Image.merge("CMYK", (*map(ImageChops.invert, bands), black)), "JPEG", quality=100, subsampling=0)
    transform = content.index(b"Adobe") + 11
    assert content[transform] == 0
    return content[:transform] + b"\2" + content[transform + 1 :]


def deep_png(pixels: npt.NDArray[np.uint16], colour: int) -> bytes:
    """Return a PNG with 16 bits per channel, of which Pillow writes only gray: (H, W, C), and PNG's type of colour."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def twelve_bit_tiff(gray: npt.NDArray[np.uint16]) -> bytes:
    """Return an uncompressed TIFF of gray values up to 4,095, two of them in three bytes: (H, W), W even."""
    height, width = gray.shape
    first, second = gray[:, ::2], gray[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8).tobytes()
    long, short = 4, 3
    tags = [(256, long, width), (257, long, height), (258, short, 12), (259, short, 1), (262, short, 1)]
    tags += [(273, long, 8), (277, short, 1), (278, long, height), (279, long, len(packed))]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + directory + bytes(4)


def tiff(pixels: npt.NDArray[np.generic], **options: object) -> bytes:
    """Return a TIFF as scientific programs write it."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def deep(pixels: Pixels) -> npt.NDArray[np.uint16]:
    """Return values up to 65,535 whose upper 8 bits are those given; the lower ones are not zero."""
    return (pixels.astype(np.uint16) << 8) + 77


def lab(image: Image.Image) -> Image.Image:
    """Return a picture in CIE L*a*b*."""
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(*profiles, "RGB", "LAB").apply(image)


def _jpegs() -> dict[str, Sample]:
    return {
        "rgb.jpg": Sample(encoded(PHOTOGRAPH, "JPEG", quality=90)),
        "rgb-444.jpg": Sample(encoded(PHOTOGRAPH, "JPEG", quality=90, subsampling=0)),
        "gray.jpg": Sample(encoded(Image.fromarray(GRAY), "JPEG")),
        "progressive.jpg": Sample(encoded(PHOTOGRAPH, "JPEG", progressive=True)),
        "turned.jpg": Sample(turned("JPEG", quality=90)),
        "cmyk-adobe.jpg": Sample(encoded(PHOTOGRAPH.convert("CMYK"), "JPEG", quality=100, subsampling=0), RGB),
        "cmyk-plain.jpg": Sample(plain_cmyk_jpeg(PHOTOGRAPH), RGB),
        "ycck.jpg": Sample(ycck_jpeg(PHOTOGRAPH), RGB),
        "two-views.jpg": Sample(encoded(PHOTOGRAPH, "MPO", save_all=True, append_images=[OTHER.copy()])),
    }


def _pngs() -> dict[str, Sample]:
    palette = PHOTOGRAPH.quantize(64)
    both = Image.fromarray(RGB)
    both.putalpha(Image.fromarray(ALPHA))
    colours = np.asarray(palette.convert("RGB"))
    return {
        "rgb.png": Sample(encoded(PHOTOGRAPH, "PNG"), RGB),
        "gray.png": Sample(encoded(Image.fromarray(GRAY), "PNG"), GRAY),
        "bits.png": Sample(encoded(PHOTOGRAPH.convert("1"), "PNG")),
        "palette.png": Sample(encoded(palette, "PNG")),
        "palette-4-bits.png": Sample(encoded(PHOTOGRAPH.quantize(16), "PNG")),
        "palette-one-clear.png": Sample(encoded(palette, "PNG", transparency=3), colours),
        "palette-alpha.png": Sample(encoded(palette, "PNG", transparency=bytes(range(0, 256, 4))), colours),
        "gray-alpha.png": Sample(encoded(both.convert("LA"), "PNG"), GRAY),
        "rgb-alpha.png": Sample(encoded(both, "PNG"), RGB),
        "rgb-one-clear.png": Sample(encoded(PHOTOGRAPH, "PNG", transparency=(143, 120, 104)), RGB),
        "gray-16.png": Sample(encoded(Image.fromarray(deep(GRAY)), "PNG"), GRAY),
        "gray-alpha-16.png": Sample(deep_png(deep(np.dstack([GRAY, ALPHA])), 4), GRAY),
        "rgb-16.png": Sample(deep_png(deep(RGB), 2), RGB),
        "rgb-alpha-16.png": Sample(deep_png(deep(np.dstack([RGB, ALPHA])), 6), RGB),
        "turned.png": Sample(turned("PNG"), RGB),
        "animated.png": Sample(encoded(PHOTOGRAPH, "PNG", save_all=True, append_images=[OTHER.copy()]), RGB),
    }


def _of_the_web() -> dict[str, Sample]:
    """WebP, GIF and BMP."""
    both = Image.fromarray(np.dstack([RGB, np.maximum(ALPHA, 1)]))
    palette = PHOTOGRAPH.quantize(128)
    return {
        "lossy.webp": Sample(encoded(PHOTOGRAPH, "WEBP", quality=90)),
        "lossless.webp": Sample(encoded(PHOTOGRAPH, "WEBP", lossless=True), RGB),
        "alpha.webp": Sample(encoded(both, "WEBP", lossless=True), RGB),
        "animated.webp": Sample(
            encoded(PHOTOGRAPH, "WEBP", save_all=True, append_images=[OTHER.copy()], lossless=True), RGB
        ),
        "turned.webp": Sample(turned("WEBP", lossless=True), RGB),
        "palette.gif": Sample(encoded(palette, "GIF")),
        "clear.gif": Sample(encoded(palette, "GIF", transparency=3), np.asarray(palette.convert("RGB"))),
        "gray.gif": Sample(encoded(Image.fromarray(GRAY), "GIF"), GRAY),
        "animated.gif": Sample(encoded(palette, "GIF", save_all=True, append_images=[OTHER.quantize(128)])),
        "rgb.bmp": Sample(encoded(PHOTOGRAPH, "BMP"), RGB),
        "rgb-32.bmp": Sample(encoded(both, "BMP"), RGB),
        "gray.bmp": Sample(encoded(Image.fromarray(GRAY), "BMP"), GRAY),
        "palette.bmp": Sample(encoded(palette, "BMP")),
        "bits.bmp": Sample(encoded(PHOTOGRAPH.convert("1"), "BMP")),
    }


def _tiffs() -> dict[str, Sample]:
    """TIFF as Pillow writes it."""
    lossless = ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"]
    made = {f"{name}.tif": Sample(encoded(PHOTOGRAPH, "TIFF", compression=name), RGB) for name in lossless}
    fax = {
        f"{name}.tif": Sample(encoded(PHOTOGRAPH.convert("1"), "TIFF", compression=name))
        for name in ("group3", "group4")
    }
    palette = PHOTOGRAPH.quantize(64)
    both = Image.fromarray(np.dstack([RGB, ALPHA]))
    return {
        **made,
        **fax,
        "jpeg.tif": Sample(encoded(PHOTOGRAPH, "TIFF", compression="jpeg", quality=90)),
        "bits.tif": Sample(encoded(PHOTOGRAPH.convert("1"), "TIFF")),
        "gray.tif": Sample(encoded(Image.fromarray(GRAY), "TIFF"), GRAY),
        "gray-alpha.tif": Sample(encoded(both.convert("LA"), "TIFF"), GRAY),
        "rgb-alpha.tif": Sample(encoded(both, "TIFF"), RGB),
        "palette.tif": Sample(encoded(palette, "TIFF")),
        "palette-alpha.tif": Sample(encoded(palette.convert("PA"), "TIFF"), np.asarray(palette.convert("RGB"))),
        "cmyk.tif": Sample(encoded(PHOTOGRAPH.convert("CMYK"), "TIFF"), RGB),
        "lab.tif": Sample(encoded(lab(PHOTOGRAPH), "TIFF"), RGB),
        "ycbcr.tif": Sample(encoded(PHOTOGRAPH.convert("YCbCr"), "TIFF"), RGB),
        "turned.tif": Sample(turned("TIFF"), RGB),
        "turned-lzw.tif": Sample(turned("TIFF", compression="tiff_lzw"), RGB),
        "pages.tiff": Sample(encoded(PHOTOGRAPH, "TIFF", save_all=True, append_images=[OTHER.copy()]), RGB),
    }


def _scientific_tiffs() -> dict[str, Sample]:
    """TIFF as microscopes and scanners write it."""
    twelve = (GRAY.astype(np.uint16) << 4) + 5
    made = {"gray-12.tif": Sample(twelve_bit_tiff(twelve), GRAY)}
    made["white-is-zero-16.tif"] = Sample(tiff(65535 - deep(GRAY), byteorder="<", photometric="miniswhite"), GRAY)
    for order, name in (("<", "little"), (">", "big")):
        clear = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
        packed = {"compression": "zlib"}
        made |= {
            f"gray-16-{name}.tif": Sample(tiff(deep(GRAY), byteorder=order), GRAY),
            f"gray-16-{name}-packed.tif": Sample(tiff(deep(GRAY), byteorder=order, **packed), GRAY),
            f"rgb-{name}.tif": Sample(tiff(RGB, byteorder=order, photometric="rgb"), RGB),
            f"rgb-16-{name}.tif": Sample(tiff(deep(RGB), byteorder=order, photometric="rgb"), RGB),
            f"rgb-16-{name}-packed.tif": Sample(tiff(deep(RGB), byteorder=order, photometric="rgb", **packed), RGB),
            f"rgb-alpha-16-{name}.tif": Sample(tiff(deep(np.dstack([RGB, ALPHA])), byteorder=order, **clear), RGB),
            f"tiles-{name}.tif": Sample(tiff(RGB, byteorder=order, photometric="rgb", tile=(64, 64)), RGB),
        }
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    made["planes.tif"] = Sample(tiff(planes, photometric="rgb", planarconfig="separate"), RGB)
    made["large.tif"] = Sample(tiff(RGB, photometric="rgb", bigtiff=True), RGB)
    return made
