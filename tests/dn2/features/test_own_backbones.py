from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dn2
from dn2.errors import ConfigError, EmbedderError
from dn2.features.backbones import Backbone, backbone, embedder_of
from tests.conftest import make_pictures
from tests.dn2.features.test_embed import rows_of

GRID = dn2.EmbedConfig(backbone="tests.dn2.features.own:Grid")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "pictures", 12)
    return tmp_path / "pictures"


def test_own_backbone_goes_the_whole_way(folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    embedded = dn2.embed(dn2.ingest(folder, store), store, config=GRID)
    bank = dn2.fit(embedded, store, bank="own")
    report = dn2.score(dn2.embed(dn2.ingest(folder, store), store, config=GRID, bank=bank), store, bank=bank)

    assert embedded.embedder.startswith("grid-")
    assert (bank.dim, report.scored) == (48, 12)
    picture = np.asarray(Image.open(folder / "003.png"))[4:36, 8:40]  # 48 x 40: nothing is resized
    expected = picture.reshape(4, 8, 4, 8, 3).mean((1, 3)).transpose(2, 0, 1).reshape(-1) / 16
    (row,) = (row for row in rows_of(store, embedded) if row["uri"].endswith("003.png"))
    np.testing.assert_allclose(np.array(row["embedding"], np.float32), expected, atol=0.05)


def test_classes_and_objects_are_backbones():
    assert isinstance(backbone("tests.dn2.features.own:Grid"), Backbone)
    assert embedder_of(backbone("tests.dn2.features.own:Grid"), "tiles-2x3").id.startswith("grid-tiles-2x3-")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tests.dn2.features.own:Nothing", "AttributeError: module"),
        ("no_such_module:Grid", "ModuleNotFoundError: No module"),
        ("tests.dn2.features.own:Nameless", "a Nameless, expected an object with name"),
        ("tests.dn2.features.own:Dashed", "a Dashed, expected an object with name"),
        ("os:getcwd", "expected an object with name"),
        (":", "ValueError: Empty module name"),
    ],
)
def test_what_is_no_backbone_is_refused(name: str, reason: str):
    with pytest.raises(ConfigError, match=f"^backbone: got '{name}', .*{reason}"):
        backbone(name)


def test_bank_of_an_own_backbone_never_names_code_to_be_run(folder: Path, tmp_path: Path):
    """A store may come from anybody: only the user names a module."""
    store = tmp_path / "store"
    dataset = dn2.ingest(folder, store)
    bank = dn2.fit(dn2.embed(dataset, store, config=GRID), store, bank="own")

    with pytest.raises(ConfigError, match="bank 'own' was made with a backbone of somebody's own, grid: give it as"):
        dn2.embed(dataset, store, bank=bank)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_backbone_that_does_not_pool_is_refused(folder: Path, tmp_path: Path, engine: str):
    config = dn2.EmbedConfig(backbone="tests.dn2.features.own:Maps", engine=engine)
    with pytest.raises(EmbedderError, match=r"got an array of shape \(1, 4, 30, 30\), expected \(B, D\): the backbone"):
        dn2.embed(dn2.ingest(folder, tmp_path / "store"), tmp_path / "store", config=config)
    assert list((tmp_path / "store/embeddings").rglob("*")) == []


def test_weights_with_an_own_backbone_are_refused():
    with pytest.raises(ConfigError, match=r"weights: got w.pth with backbone 'tests.dn2.features.own:Grid', expected"):
        backbone("tests.dn2.features.own:Grid", weights="w.pth")
