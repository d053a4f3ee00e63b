from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

import dn2
from dn2.errors import ConfigError, NotFoundError, WeightsError
from dn2.features import torch_hub
from dn2.features.backbones import Pretrained, backbone, embedder_of
from dn2.store.cache import cache_dir
from dn2.store.storage import Store
from tests.conftest import make_pictures


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return torchvision.models.resnet18(weights=None).state_dict()


@pytest.fixture
def file(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save(state, tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def outputs(chosen: Pretrained) -> torch.Tensor:
    with torch.inference_mode():
        return chosen.load()(torch.arange(3 * 64 * 64.0).reshape(1, 3, 64, 64) % 256)


def test_weights_of_ones_own_are_part_of_the_identity(file: Path):
    chosen = backbone("resnet18", weights=str(file), weights_sha256=sha256(file))

    assert isinstance(chosen, Pretrained)
    assert chosen.weights == file
    assert embedder_of(chosen).weights_sha256 == sha256(file)


@pytest.mark.parametrize(
    ("wrapped", "prefix"), [("state_dict", "module."), ("model_state_dict", "model."), ("model", "")]
)
def test_checkpoints_of_a_training_will_do(file: Path, state: dict[str, torch.Tensor], wrapped: str, prefix: str):
    """Whatever they are wrapped in, and with the prefix that several GPUs leave; the optimizer's state is passed by."""
    plain = outputs(backbone("resnet18", weights=str(file)))
    torch.save({wrapped: {f"{prefix}{name}": value for name, value in state.items()}, "epoch": 3}, file)

    torch.testing.assert_close(outputs(backbone("resnet18", weights=str(file))), plain)


@pytest.mark.parametrize("content", [{1: torch.zeros(2)}, 3, "text", {}], ids=["numbers", "number", "text", "empty"])
def test_what_is_no_state_dict_is_refused_in_one_line(file: Path, content: object):
    torch.save(content, file)
    with pytest.raises(
        WeightsError, match=r"^backbone resnet18: weights file .* does not fit: .* of the same network$"
    ):
        backbone("resnet18", weights=str(file)).load()


def test_capital_digits_will_do(file: Path):
    assert dn2.EmbedConfig(weights_sha256=sha256(file).upper()).weights_sha256 == sha256(file)


def test_number_of_classes_does_not_matter(file: Path, state: dict[str, torch.Tensor]):
    plain = outputs(backbone("resnet18", weights=str(file)))
    torch.save({**state, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}, file)

    torch.testing.assert_close(outputs(backbone("resnet18", weights=str(file))), plain)


def test_weights_of_another_network_are_refused_with_what_differs(file: Path):
    with pytest.raises(WeightsError, match=r"backbone resnet34: weights file .*mine.pth does not fit: .*Missing key"):
        backbone("resnet34", weights=str(file)).load()


def test_other_weights_than_expected_are_refused(file: Path):
    message = f"backbone resnet18: got weights with sha256 {sha256(file)}, expected {'0' * 64}; use that file"
    with pytest.raises(WeightsError, match=message):
        backbone("resnet18", weights=str(file), weights_sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"backbone efficientnet_lite0: got weights with sha256 .*, expected 000"):
        backbone("efficientnet_lite0", weights_sha256="0" * 64)


def test_missing_weights_are_named(tmp_path: Path):
    with pytest.raises(NotFoundError, match=f"weights {tmp_path}/none.pth: no file is there"):
        backbone("resnet18", weights=f"{tmp_path}/none.pth")


def test_weights_without_a_backbone_are_refused(file: Path):
    with pytest.raises(ConfigError, match=r"weights: got .*mine.pth with backbone 'auto', expected the name of a"):
        backbone("auto", weights=str(file))


def test_bank_remembers_where_its_weights_lie(file: Path, tmp_path: Path):
    """To score, nobody has to say again what it was trained with."""
    make_pictures(tmp_path / "pictures", 5)
    store = tmp_path / "store"
    dataset = dn2.ingest(tmp_path / "pictures", store)
    config = dn2.EmbedConfig(backbone="resnet18", weights=str(file), weights_sha256=sha256(file))
    bank = dn2.fit(dn2.embed(dataset, store, config=config), store, bank="mine")

    assert bank.weights == f"file://{file}"
    assert dn2.embed(dataset, store, bank=dn2.open_bank(store, "mine")).embedder == bank.embedder
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(dn2.EmbedderError, match=r"bank 'mine' was made by embedder resnet18-.*, got resnet18-"):
        dn2.embed(dataset, store, bank=bank)


@pytest.mark.s3
def test_weights_in_a_bucket_are_fetched_once_and_again_when_they_change(
    file: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("DN2_CACHE_DIR", str(tmp_path / "cache"))
    bucket, url = Store.open(f"{s3_bucket}/weights"), f"{s3_bucket}/weights/mine.pth"
    bucket.write("mine.pth", file.read_bytes())
    chosen = backbone("resnet18", weights=url)
    first = embedder_of(chosen).id
    fetched = chosen.weights.stat().st_mtime_ns

    assert chosen.weights.is_relative_to(cache_dir() / "weights")
    assert backbone("resnet18", weights=url).weights.stat().st_mtime_ns == fetched
    file.write_bytes(file.read_bytes() + b"\0")
    bucket.write("mine.pth", file.read_bytes())
    assert embedder_of(backbone("resnet18", weights=url)).id != first


@pytest.mark.parametrize(("name", "engine"), [("efficientnet_lite1", "openvino"), ("efficientnet_lite2", "torch")])
def test_larger_lite_networks_embed_with_their_real_weights(name: str, engine: str, pictures: Path, tmp_path: Path):
    """By one engine each: another network is converted as these are."""
    chosen = backbone(name)
    dataset = dn2.ingest(pictures, tmp_path / "store")
    embedded = dn2.embed(dataset, tmp_path / "store", config=dn2.EmbedConfig(backbone=name, engine=engine))

    assert chosen.preprocessing.crop == {"efficientnet_lite1": 240, "efficientnet_lite2": 260}[name]
    assert dn2.fit(embedded, tmp_path / "store", bank=name).dim == 1280


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real web server that serves a folder."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_download_keeps_what_its_name_promises(web: tuple[str, Path], file: Path, tmp_path: Path):
    address, folder = web
    name = f"resnet18-{sha256(file)[:8]}.pth"
    (folder / name).write_bytes(file.read_bytes())

    torch_hub.fetch(f"{address}/{name}", tmp_path / "hub" / name, "backbone resnet18")

    assert (tmp_path / "hub" / name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("served", [b"<html>moved</html>", None], ids=["something-else", "nothing"])
def test_failed_download_leaves_nothing(web: tuple[str, Path], tmp_path: Path, served: bytes | None):
    address, folder = web
    if served is not None:
        (folder / "resnet18-f37072fd.pth").write_bytes(served)

    with pytest.raises(WeightsError, match=r"backbone resnet18: weights could not be fetched from http://127.0.0.1"):
        torch_hub.fetch(f"{address}/resnet18-f37072fd.pth", tmp_path / "hub/resnet18-f37072fd.pth", "backbone resnet18")
    assert list((tmp_path / "hub").iterdir()) == []


def test_nothing_is_downloaded_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without --download the way to the network is not even loaded; with it, only what is missing is fetched."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked: list[str] = []
    monkeypatch.setattr(torch_hub, "fetch", lambda url, _path, _what: asked.append(url))
    with pytest.raises(WeightsError, match="let --download fetch it"):
        embedder_of(backbone("resnet18"))
    assert asked == []
    backbone("auto", download=True)
    backbone("efficientnet_lite0", download=True)
    assert asked == ["https://download.pytorch.org/models/resnet101-63fe2227.pth"]
