"""Doubts about real pictures, as training and scoring tell them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dn2
from dn2.evaluation.fashion import Fashion, write_pictures
from dn2.records import BankVersion, Doubt, Report
from dn2.store.storage import Store
from tests.conftest import Bricks
from tests.dn2.scoring.doubts.drawn import KINDS, mask


@pytest.fixture
def walls(bricks: Bricks, tmp_path: Path) -> Path:
    """24 patches of a wall, 64 x 64 pixels."""
    folder = tmp_path / "walls" / "good"
    folder.mkdir(parents=True)
    for picture in sorted(bricks.normal.iterdir())[:24]:
        shutil.copy(picture, folder)
    return folder.parent


def trained(folder: Path, store: Store, **embed: str) -> BankVersion:
    config = dn2.EmbedConfig.model_validate(embed)
    embedded = dn2.embed(dn2.ingest(folder, store), store, config=config)
    return dn2.fit(embedded, store, bank="walls", config=dn2.FitConfig(false_alarm_rate=0.1))


def scored(folder: Path, store: Store, bank: BankVersion) -> Report:
    return dn2.score(dn2.embed(dn2.ingest(folder, store), store, bank=bank), store, bank=bank)


def doubt(made: BankVersion | Report, code: str) -> Doubt:
    (found,) = (one for one in made.doubts if one.code == code)
    return found


def test_pictures_of_a_wall_are_beyond_doubt(walls: Path, store: Store):
    assert trained(walls, store).doubts == ()


def test_masks_beside_pictures_of_the_same_name_and_size(walls: Path, store: Store):
    """Also the empty ones of pictures without a flaw, and in another format, with another ending of the name."""
    (walls / "truth").mkdir()
    names = [path.stem for path in sorted((walls / "good").iterdir())]
    for number, name in enumerate(names[:6]):
        drawn = mask(KINDS[number % 3], (64, 64), seed=number)
        (Image.new("L", (64, 64)) if number == 5 else drawn).save(walls / "truth" / f"{name}_mask.bmp")
    found = doubt(trained(walls, store), "masks")
    assert found.numbers == {"masks": 6, "looked_at": 30}
    assert {uri.rpartition("/")[2] for uri in found.uris} == {f"{name}_mask.bmp" for name in names[:6]}
    assert found.message.startswith("6 pictures have two values only, and lie beside others of the same size and name")


def test_masks_of_another_size_or_name_are_pictures_of_their_own(walls: Path, store: Store):
    (walls / "drawings").mkdir()
    names = [path.stem for path in sorted((walls / "good").iterdir())]
    for number in range(4):
        mask("polygon", (64, 64), seed=number).save(walls / "drawings" / f"{number}.png")
        mask("polygon", (80, 64), seed=number).save(walls / "drawings" / f"{names[number]}.png")
    assert "masks" not in [one.code for one in trained(walls, store).doubts]


def test_same_names_in_several_folders_are_no_masks(fashion: Fashion, store: Store, tmp_path: Path):
    for label in (0, 1):
        write_pictures(tmp_path / "images" / str(label), fashion.train_images[fashion.train_labels == label][:60])
    assert [one.code for one in trained(tmp_path / "images", store).doubts] == []


def test_pictures_of_one_colour_are_told_of_in_training_and_in_a_batch(walls: Path, store: Store):
    bank = trained(walls, store)
    random = np.random.default_rng(0)
    (walls / "new").mkdir()
    for number, level in enumerate((4, 128)):
        noise = random.normal(level, 2, (64, 64)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).save(walls / "new" / f"lost-{number}.png")
    batch = doubt(scored(walls / "new", store, bank), "constant")
    assert batch.numbers == {"constant": 2, "looked_at": 2}
    again = doubt(trained(walls, store), "constant")
    assert again.numbers == {"constant": 2, "looked_at": 26}
    assert again.message.startswith("2 of 26 pictures are all of one colour, or nearly")
    assert "new/lost-0.png, new/lost-1.png" in again.message


def test_same_name_does_not_make_a_lost_exposure_a_mask(walls: Path, store: Store):
    (walls / "second-day").mkdir()
    first = min((walls / "good").iterdir())
    Image.new("L", (64, 64), 30).save(walls / "second-day" / first.name)
    assert [one.code for one in trained(walls, store).doubts] == ["constant"]


def long(folder: Path, width: int, count: int) -> None:
    """Replace some pictures of a folder by ones that are so wide, and 64 pixels high."""
    for path in sorted(folder.iterdir())[:count]:
        Image.open(path).resize((width, 64)).save(path)


def test_central_square_of_long_images(walls: Path, store: Store):
    long(walls / "good", 160, 9)
    found = doubt(trained(walls, store), "cropped")
    assert found.numbers == {"long": 9, "images": 24, "largest_share": 0.6}
    assert len(found.uris) == 9
    assert found.message.startswith("the central square leaves out over a quarter of 9 of 24 images, up to 60%: flaws")


@pytest.mark.parametrize("crop", ["full", "tiles-1x2"])
def test_where_all_of_an_image_is_seen_nothing_is_cropped(walls: Path, store: Store, crop: str):
    long(walls / "good", 160, 24)
    assert [one.code for one in trained(walls, store, crop=crop).doubts] == []


def test_image_of_four_to_three_loses_no_more_than_a_quarter(walls: Path, store: Store):
    long(walls / "good", 85, 24)
    assert [one.code for one in trained(walls, store).doubts] == []


def test_batch_does_not_repeat_what_its_bank_says_of_the_crop(
    walls: Path, bricks: Bricks, store: Store, tmp_path: Path
):
    (tmp_path / "new").mkdir()
    for path in sorted(bricks.batch.glob("good-*"))[:8]:
        Image.open(path).resize((160, 64)).save(tmp_path / "new" / path.name)
    square = scored(tmp_path / "new", store, trained(walls, store))
    assert doubt(square, "cropped").numbers["long"] == 8
    long(walls / "good", 160, 24)
    assert "cropped" not in [one.code for one in scored(tmp_path / "new", store, trained(walls, store)).doubts]


def test_without_thumbnails_nothing_is_said_of_what_they_would_show(walls: Path, store: Store):
    """A store that was copied in part, or whose thumbnails were deleted."""
    Image.new("L", (64, 64), 30).save(walls / "good" / "lost.png")
    embedded = dn2.embed(dn2.ingest(walls, store), store)
    for path in Path(store.uri.removeprefix("file://")).rglob("*.thumbnails.parquet"):
        path.unlink()
    assert dn2.fit(embedded, store, bank="walls", config=dn2.FitConfig(false_alarm_rate=0.1)).doubts == ()
