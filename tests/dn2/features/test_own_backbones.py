from __future__ import annotations

import logging
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dn2
from dn2.errors import ConfigError, EmbedderError, WeightsError
from dn2.features.backbones import Backbone, backbone, embedder_of
from dn2.features.engines import load_engine
from tests.conftest import make_pictures
from tests.dn2.features.materials import rows_of

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


def test_what_openvino_cannot_convert_torch_runs_and_warnings_are_still_heard(caplog: pytest.LogCaptureFixture):
    """OpenVINO's converter sets the level of the root logger, and a failure would leave it so."""
    root = logging.getLogger()
    before = root.level, root.filters[:], root.handlers[:]
    engine = load_engine(backbone("tests.dn2.features.own:Bessel"), device="cpu")

    assert engine.name.startswith("torch ")
    assert engine.start(np.zeros((2, 3, 32, 32), np.float32))().shape == (2, 48)
    (message,) = caplog.messages
    assert re.fullmatch(r"OpenVINO cannot run backbone grid \(.+\): torch runs it", message)
    assert (root.level, root.filters, root.handlers) == before


def test_classes_and_objects_are_backbones():
    assert isinstance(backbone("tests.dn2.features.own:Grid"), Backbone)
    assert embedder_of(backbone("tests.dn2.features.own:Grid"), "tiles-2x3").id.startswith("grid-tiles-2x3-")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tests.dn2.features.own:Nothing", "AttributeError: module"),
        ("no_such_module:Grid", "ModuleNotFoundError: No module"),
        ("tests.dn2.features.own:Nameless", "a Nameless, expected an object with a name"),
        ("tests.dn2.features.own:Dashed", "a Dashed, expected an object with a name"),
        ("tests.dn2.features.own:Lite", "a Lite, expected an object with a name"),
        ("tests.dn2.features.own:Ending", "SystemExit: 3"),
        ("os:getcwd", "expected an object with a name"),
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

    with pytest.raises(ConfigError, match="bank 'own' was made with a backbone of your own, 'grid': give it as"):
        dn2.embed(dataset, store, bank=bank)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_backbone_that_does_not_pool_is_refused(folder: Path, tmp_path: Path, engine: str):
    config = dn2.EmbedConfig(backbone="tests.dn2.features.own:Maps", engine=engine)
    with pytest.raises(EmbedderError, match=r"got an array of shape \(1, 4, 30, 30\) for 1 pictures"):
        dn2.embed(dn2.ingest(folder, tmp_path / "store"), tmp_path / "store", config=config)
    assert list((tmp_path / "store/embeddings").rglob("*")) == []


def test_weights_with_an_own_backbone_are_refused():
    with pytest.raises(ConfigError, match=r"weights: got w.pth with backbone 'tests.dn2.features.own:Grid', expected"):
        backbone("tests.dn2.features.own:Grid", weights="w.pth")


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_backbone_that_forgets_pictures_is_refused(folder: Path, tmp_path: Path, engine: str):
    """Its one vector would be taken for that of every picture."""
    config = dn2.EmbedConfig(backbone="tests.dn2.features.own:Few", engine=engine)
    with pytest.raises(EmbedderError, match=r"got an array of shape \(1, 48\) for \d+ pictures, expected"):
        dn2.embed(dn2.ingest(folder, tmp_path / "store"), tmp_path / "store", config=config)
    assert [path.name for path in (tmp_path / "store/embeddings").rglob("*.parquet")] == ["probes.parquet"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Raising", "backbone grid: load() failed: RuntimeError: boom"),
        ("NoNetwork", "backbone grid: load() failed: TypeError: got a builtin_function_or_method, expected a torch.nn"),
        ("NoDigits", "backbone grid: weights_sha256() failed: ConfigError: got '../x', expected a sha256"),
    ],
)
def test_what_a_backbone_raises_names_it(folder: Path, tmp_path: Path, name: str, reason: str):
    config = dn2.EmbedConfig(backbone=f"tests.dn2.features.own:{name}")
    with pytest.raises(WeightsError, match=re.escape(reason)):
        dn2.embed(dn2.ingest(folder, tmp_path / "store"), tmp_path / "store", config=config)


def test_network_that_fails_on_a_picture_is_named(folder: Path, tmp_path: Path):
    config = dn2.EmbedConfig(backbone="tests.dn2.features.own:Doubles", engine="torch")
    with pytest.raises(EmbedderError, match=r"^backbone grid, run by torch .*: failed on a picture: RuntimeError"):
        dn2.embed(dn2.ingest(folder, tmp_path / "store"), tmp_path / "store", config=config)


@pytest.mark.parametrize("embedder", ["tests.dn2.features.hostile:Trap-0123456789ab", "../../x-0123456789ab", "-"])
def test_store_does_not_decide_what_is_imported(folder: Path, tmp_path: Path, embedder: str):
    """A version file that names code: nothing of it is imported, and the error is the same."""
    store = tmp_path / "store"
    dataset = dn2.ingest(folder, store)
    bank = dn2.fit(dn2.embed(dataset, store, config=GRID), store, bank="own")
    hostile = replace(bank, embedder=embedder)

    with pytest.raises(ConfigError, match="was made with a backbone of your own"):
        dn2.embed(dataset, store, bank=hostile)
    assert "tests.dn2.features.hostile" not in sys.modules


def test_store_does_not_decide_what_is_fetched(folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    dataset = dn2.ingest(folder, store)
    bank = dn2.fit(dn2.embed(dataset, store), store, bank="lite")
    for weights, why in (
        ("http://127.0.0.1:9/w.pth", "are not on this machine"),
        ("/nowhere/w.pth", "are no longer there"),
    ):
        with pytest.raises(WeightsError, match=f"bank 'lite' was trained with the weights {weights}, which {why}"):
            dn2.embed(dataset, store, bank=replace(bank, weights=weights))


@pytest.mark.parametrize("how", [{"resize": 10}, {"crop": 0}, {"resample": "lanczos"}])
def test_preprocessing_that_cannot_be_is_refused(how: dict):
    with pytest.raises(ConfigError, match=r"^preprocessing: got resize .*, expected 1 <= crop <= resize"):
        dn2.Preprocessing(**how)
