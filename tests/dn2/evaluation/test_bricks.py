from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

import dn2
from dn2.evaluation.bricks import KINDS, SIDE, blocks, kind_of, write_images
from dn2.evaluation.demo import evaluate
from dn2.evaluation.metrics import roc_auc
from tests.conftest import Bricks


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    assert write_images(folder) == (folder / "normal", folder / "batch")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_pictures_are_the_same_in_every_run(images: Path, tmp_path: Path):
    write_images(tmp_path)

    assert len(hashes(images)) == 32 + 5 * 32 + 3
    assert hashes(tmp_path) == hashes(images)


def test_second_call_rewrites_nothing(images: Path):
    modified = {path: path.stat().st_mtime_ns for path in images.rglob("*.png")}

    write_images(images)

    assert {path: path.stat().st_mtime_ns for path in images.rglob("*.png")} == modified


def test_damaged_picture_is_written_again(images: Path):
    before = hashes(images)
    (images / "batch/good-01.png").write_bytes(b"damaged")

    write_images(images)

    assert hashes(images) == before


def test_kinds_have_equal_counts(images: Path):
    kinds = [kind_of(path.as_uri()) for path in (images / "batch").iterdir()]

    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "good": 32,
        **dict.fromkeys(KINDS, 32),
        "broken": 3,
    }
    assert [kind_of(path.as_uri()) for path in (images / "normal").iterdir()] == ["brick"] * 32


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_training_and_batch_share_no_block(images: Path):
    """The blocks of the wall go to one side each, and all of them are used."""
    wall = {content.tobytes(): place for place, content in blocks(data.brick()).items()}
    assert len(wall) == 64
    training = {wall[np.asarray(Image.open(path)).tobytes()] for path in (images / "normal").iterdir()}
    batch = {wall[np.asarray(Image.open(path)).tobytes()] for path in (images / "batch").glob("good-*")}

    assert training | batch == set(wall.values())
    assert not training & batch
    assert {sum(place) % 2 for place in training} == {0}


@pytest.mark.parametrize("kind", ["scratch", "hole", "pasted"])
def test_anomaly_is_a_batch_block_with_a_change_in_one_place(images: Path, kind: str):
    """Made from its own batch block, never from a training block, and changed visibly but not all over."""
    good = {path.name[5:7]: picture(path) for path in (images / "batch").glob("good-*")}
    training = [picture(path) for path in (images / "normal").iterdir()]
    origins = []
    for path in sorted((images / "batch").glob(f"{kind}-*")):
        patch = picture(path)
        changed = {place: (patch != block).mean() for place, block in good.items()}
        place = min(changed, key=lambda name: changed[name])
        origins.append(place)
        assert 0.002 < changed[place] < 0.3
        assert np.abs(patch - good[place]).max() > 30
        assert min((patch != block).mean() for block in training) > 0.5
    assert sorted(origins) == sorted(good)


def test_material_is_grass_and_gravel_in_turn(images: Path):
    others = [
        {content.tobytes() for content in blocks(photograph).values()} for photograph in (data.grass(), data.gravel())
    ]
    patches = [np.asarray(Image.open(path)).tobytes() for path in sorted((images / "batch").glob("material-*"))]

    assert [[patch in material for material in others] for patch in patches] == [[True, False], [False, True]] * 16
    assert len(set(patches)) == 32


def test_pictures_are_gray_and_of_one_size(images: Path):
    sizes = set()
    for path in images.rglob("*.png"):
        if kind_of(path.as_uri()) != "broken":
            with Image.open(path) as image:
                sizes.add((image.mode, image.size))

    assert sizes == {("L", (SIDE, SIDE))}


def test_blocks_do_not_overlap_and_leave_a_rest_out():
    photograph = np.arange(130 * 200, dtype=np.uint32).reshape(130, 200)

    cut = blocks(photograph)

    assert sorted(cut) == [(row, column) for row in range(2) for column in range(3)]
    assert len(np.unique(np.concatenate([block.reshape(-1) for block in cut.values()]))) == 6 * SIDE * SIDE


def test_figures_of_the_demo_come_from_its_report(own_bricks: Bricks):
    """The little job reaches what it promises, and every picture is counted."""
    store = own_bricks.store
    embedded = dn2.embed(dn2.ingest(own_bricks.batch, store), store, bank=own_bricks.bank)
    figures = evaluate(dn2.score(embedded, store, bank=own_bricks.bank), store)

    assert figures.counts == {"good": 32, **dict.fromkeys(KINDS, 32), "broken": 3}
    assert figures.roc_auc >= 0.95
    assert figures.roc_auc == pytest.approx(np.mean(list(figures.roc_auc_by_kind.values())))
    assert figures.false_alarm_rate <= 0.05
    assert figures.recall_by_kind["material"] == 1.0
    assert all(0 < rate <= 1 for rate in figures.recall_by_kind.values())


def test_roc_auc_is_how_often_an_anomaly_scores_above_a_normal_image():
    scores, truth = np.array([1.0, 2, 2, 3]), np.array([False, True, False, True])

    pairs = [(1.0, 2), (1.0, 3), (2, 2), (2, 3)]
    assert roc_auc(scores, truth) == sum(1.0 if bad > good else 0.5 for good, bad in pairs) / 4
