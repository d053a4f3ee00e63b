from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from skimage import data

from dn2.evaluation.bricks import blocks
from dn2.evaluation.fashion import Fashion
from dn2.images.decoding import Preprocessing, decode
from dn2.scoring.doubts.looks import Look, look
from tests.dn2.scoring.doubts.drawn import KINDS, mask


def looked_at(picture: Image.Image) -> Look:
    """Return what is made of the thumbnail that embedding the picture leaves in the store."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    thumbnail = decode(buffer.getvalue(), Preprocessing(), max_pixels=10**7, thumbnail_px=96).thumbnail
    return look(thumbnail, side=max(picture.size))


@pytest.mark.parametrize("values", [(0, 255), (255, 0), (0, 1)], ids=str)
@pytest.mark.parametrize("size", [(64, 64), (300, 200), (900, 700)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_have_two_values(kind: str, size: tuple[int, int], values: tuple[int, int]):
    """Also where a thumbnail is much smaller, so that their rims are gray."""
    found = [looked_at(mask(kind, size, seed=seed, values=values)) for seed in range(6)]
    assert [one.two_valued for one in found] == [True] * 6
    assert not any(one.many_valued for one in found)


def test_coloured_mask_has_two_values():
    gray = np.asarray(mask("blobs", (300, 200), seed=0))
    red = np.stack([gray, np.zeros_like(gray), np.zeros_like(gray)], axis=2)
    assert looked_at(Image.fromarray(red)).two_valued


@pytest.mark.parametrize("texture", ["brick", "grass", "gravel"])
def test_textures_have_many_values(texture: str):
    found = [looked_at(Image.fromarray(block)) for block in blocks(getattr(data, texture)()).values()]
    assert {(one.even, one.two_valued, one.many_valued) for one in found} == {(False, False, True)}


def test_garments_before_black_have_more_than_two_values(fashion: Fashion):
    found = [looked_at(Image.fromarray(image)) for image in fashion.train_images[:1500]]
    assert sum(one.two_valued or one.even for one in found) == 0
    assert sum(one.many_valued for one in found) > 1480


@pytest.mark.parametrize("level", [0, 17, 255])
def test_picture_of_one_level_with_a_sensors_noise_is_even(level: int):
    noise = np.random.default_rng(0).normal(level, 3, (480, 640))
    found = looked_at(Image.fromarray(noise.clip(0, 255).astype(np.uint8)))
    assert found.even
    assert found.two_valued


def test_flaw_on_an_even_surface_is_not_even():
    surface = np.full((400, 400), 90, np.uint8)
    surface[180:220, 150:260] = 140
    assert not looked_at(Image.fromarray(surface)).even
