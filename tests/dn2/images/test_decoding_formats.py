from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from skimage import data

from dn2.images.decoding import Decoded, Preprocessing, UndecodableError, decode
from tests.dn2.images.corpus import Sample, deep, plain_cmyk_jpeg, samples, tiff, twelve_bit_tiff
from tests.dn2.images.seen import as_seen

RAMP = np.tile(np.arange(256, dtype=np.uint8), (256, 1))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content: bytes, *, max_pixels: int = 10**6) -> Decoded:
    return as_seen(decode(content, Preprocessing(), max_pixels=max_pixels, thumbnail_px=96))


def reason(content: bytes, **options: int) -> str:
    with pytest.raises(UndecodableError) as caught:
        decoded(content, **options)
    return str(caught.value)


CROP = RAMP[16:240, 16:240]  # a picture of 256 x 256 is only cropped


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_gray_becomes_three_equal_channels(mode: str):
    found = decoded(encoded(Image.fromarray(RAMP).convert(mode))).pixels
    assert np.array_equal(np.repeat(CROP[..., None], 3, 2), found)


def test_sixteen_bits_are_scaled_to_eight():
    wide = (RAMP.astype(np.uint16) << 8) + 255
    assert np.array_equal(CROP, decoded(encoded(Image.fromarray(wide))).pixels[..., 1])


def test_twelve_bits_are_scaled_to_eight():
    """As many as the file declares, not the sixteen that Pillow holds them in."""
    found = decoded(twelve_bit_tiff((RAMP.astype(np.uint16) << 4) + 15))
    assert np.array_equal(CROP, found.pixels[..., 0])


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("bits", [8, 16])
def test_white_may_be_zero_in_a_tiff(bits: int, photometric: str):
    pixels = RAMP if bits == 8 else deep(RAMP)
    stored = pixels if photometric == "minisblack" else np.iinfo(pixels.dtype).max - pixels
    found = decoded(tiff(stored, byteorder="<", photometric=photometric))
    assert np.array_equal(CROP, found.pixels[..., 0])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (np.float32, "floating-point numbers"),
        (np.int32, "integers of 32 bits or with a sign"),
        (np.uint32, "integers of 32 bits or with a sign"),
        (np.int16, "integers of 32 bits or with a sign"),
    ],
)
def test_pixels_without_an_agreed_range_are_rejected(kind: type, words: str):
    """Nobody knows whether 1.0 is white, or 4,095."""
    expected = f"pixels are {words}, which have no agreed range: save it with 8 or 16 bits per channel"
    assert reason(tiff(RAMP.astype(kind), byteorder="<")) == expected


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.uint64])
def test_tiff_of_a_kind_that_is_not_read_says_so(kind: type):
    expected = "a TIFF that is damaged, or of a kind that is not read: save it with 8 or 16 bits per channel"
    assert reason(tiff(RAMP.astype(kind))) == expected
    assert reason(tiff(np.dstack([RAMP] * 3).astype(kind), photometric="rgb")) == expected


SAMPLES = samples()
ROUNDED = {"cmyk-adobe.jpg", "cmyk-plain.jpg", "ycck.jpg", "ycbcr.tif", "lab.tif"}  # to other colours and back
EXACT = [name for name, sample in SAMPLES.items() if sample.seen is not None and name not in ROUNDED]


def whole(sample: Sample) -> np.ndarray:
    """The central square of 200 pixels: no pixel is resized."""
    return decode(sample.content, Preprocessing(resize=200, crop=200), max_pixels=10**6, thumbnail_px=96).pixels[0]


def shown(sample: Sample) -> np.ndarray:
    pixels = np.asarray(Image.fromarray(sample.seen).convert("RGB"))
    return pixels[:, 50:250].transpose(2, 0, 1)


@pytest.mark.parametrize("name", EXACT)
def test_lossless_file_shows_the_very_pixels(name: str):
    assert np.array_equal(shown(SAMPLES[name]), whole(SAMPLES[name]))


@pytest.mark.parametrize("name", sorted(ROUNDED))
def test_file_in_other_colours_shows_nearly_the_same(name: str):
    assert np.abs(whole(SAMPLES[name]) - shown(SAMPLES[name])).mean() < 1.5


def test_one_bit_is_black_and_white():
    found = decoded(encoded(Image.fromarray(RAMP > 127))).pixels
    assert np.array_equal(np.where(CROP > 127, 255, 0), found[..., 0])


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_is_dropped(alpha: int):
    image = Image.fromarray(RAMP).convert("RGB")
    image.putalpha(alpha)
    assert np.array_equal(CROP, decoded(encoded(image)).pixels[..., 2])


@pytest.mark.parametrize("transparency", [7, bytes(range(0, 256, 2))])
def test_palette_with_transparency_keeps_its_colours(transparency: int | bytes):
    """Pillow warns about the second kind."""
    image = Image.new("P", (256, 256))
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    image.putdata(RAMP.reshape(-1).tolist())
    found = decoded(encoded(image, transparency=transparency)).pixels
    assert np.array_equal(np.stack([CROP, 255 - CROP, np.full_like(CROP, 7)], -1), found)


def test_transparent_colour_is_kept_too():
    found = decoded(encoded(Image.fromarray(RAMP).convert("RGB"), transparency=(9, 9, 9))).pixels
    assert np.array_equal(CROP, found[..., 0])


def test_cmyk_jpeg_has_the_colours_of_its_rgb():
    """As printers deliver them, inverted by Adobe's habit."""
    photograph = Image.fromarray(data.chelsea())
    found = decoded(encoded(photograph.convert("CMYK"), "JPEG", quality=95)).pixels.astype(int)
    assert np.abs(found - decoded(encoded(photograph)).pixels).mean() < 2


def test_cmyk_jpeg_that_is_not_adobes_is_not_inverted():
    """Pillow takes every one for Adobe's."""
    photograph = Image.fromarray(data.chelsea())
    found = decoded(plain_cmyk_jpeg(photograph)).pixels.astype(int)
    assert np.abs(found - decoded(encoded(photograph)).pixels).mean() < 2
    wrong = Image.open(io.BytesIO(plain_cmyk_jpeg(photograph))).convert("RGB")
    assert np.abs(np.asarray(wrong).astype(int) - np.asarray(photograph)).mean() > 50


def test_gray_jpeg_is_gray():
    found = decoded(encoded(Image.fromarray(RAMP), "JPEG", quality=98)).pixels.astype(int)
    assert np.abs(found - CROP[..., None]).max() <= 4


def test_progressive_jpeg_is_read():
    found = decoded(encoded(Image.fromarray(RAMP), "JPEG", quality=98, progressive=True)).pixels.astype(int)
    assert np.abs(found - CROP[..., None]).max() <= 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_content_decides_not_the_name(kind: str):
    """A file called .png may be anything that a camera or browser saved under that name."""
    found = decoded(encoded(Image.new("RGB", (30, 20), (250, 10, 10)), kind))
    assert (found.width, found.height) == (30, 20)
    assert np.abs(found.pixels.astype(int) - (250, 10, 10)).max() <= 3


def test_postscript_is_no_image():
    """Pillow would start Ghostscript to draw it."""
    content = encoded(Image.new("RGB", (30, 20)), "EPS")
    assert content.startswith(b"%!PS")
    assert reason(content) == "not an image, or of an unknown format"


def test_empty_file_is_said_to_be_empty():
    assert reason(b"") == "the file is empty"


@pytest.mark.parametrize("content", [b"hello\n", bytes(1000), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"<svg/>"])
def test_what_is_no_image_is_said_to_be_none(content: bytes):
    assert reason(content) == "not an image, or of an unknown format"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_image_is_rejected_wherever_it_ends(kind: str):
    """Never half a picture, gray below."""
    whole = encoded(Image.fromarray(data.chelsea()).resize((90, 60)), kind)
    for share in range(0, 100, 5):
        message = reason(whole[: len(whole) * share // 100])
        assert message.startswith(("cannot be decoded: ", "not an image", "the file is empty"))


def test_damaged_image_is_rejected_or_read_but_never_another_error():
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG"):
        whole = np.frombuffer(encoded(Image.fromarray(data.chelsea()).resize((90, 60)), kind), np.uint8)
        for _ in range(150):
            damaged = whole.copy()
            at = random.integers(0, len(whole) - 4)
            damaged[at : at + 4] = random.integers(0, 256, 4)
            try:
                assert decoded(damaged.tobytes()).pixels.shape == (224, 224, 3)
            except UndecodableError as error:
                message = str(error)
                assert message


def test_too_many_pixels_are_refused_before_they_are_decoded():
    """A bomb: 25 megapixels in 25 kB."""
    bomb = encoded(Image.new("L", (5000, 5000)))
    assert len(bomb) < 50_000
    assert reason(bomb, max_pixels=24_999_999) == "5000 x 5000 pixels, more than max_pixels = 24999999"
    assert decoded(bomb, max_pixels=25_000_000).width == 5000


def test_reason_is_one_line():
    for content in (b"", b"x", encoded(Image.new("RGB", (90, 60)))[:-30]):
        assert "\n" not in reason(content)
