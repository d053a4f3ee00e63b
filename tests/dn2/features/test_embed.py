from __future__ import annotations

import hashlib
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dn2
from dn2 import layout
from dn2.config import EmbedConfig
from dn2.errors import ConfigError, EmbedderError
from dn2.features.backbones import backbone
from dn2.features.engines import load_engine
from dn2.neighbors.exact import search
from dn2.scoring.scores import mean_distance
from dn2.store.schemas import EMBEDDINGS, MANIFEST, PROBES, THUMBNAILS
from dn2.store.storage import Store
from dn2.store.tables import column_vectors, read_config, read_table, vector_column, writing
from tests.conftest import Bricks, make_pictures
from tests.dn2.features.materials import network_input, rows_of, write_patches


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Nine pictures and three files that are none, in name order: 000 to 008, b-empty, c-text, d-cut."""
    folder = tmp_path / "mixed"
    make_pictures(folder, 9)
    (folder / "b-empty.png").touch()
    (folder / "c-text.jpg").write_text("no picture")
    whole = (folder / "000.png").read_bytes()
    (folder / "d-cut.png").write_bytes(whole[: len(whole) // 2])
    return folder


def test_every_manifest_row_has_one_row_in_order(mixed: Path, tmp_path: Path):
    store = tmp_path / "store"
    dataset = dn2.ingest(mixed, store)
    embedded = dn2.embed(dataset, store, config=EmbedConfig(shard_size=5, batch_size=4))

    listed = read_table(Store.open(store), layout.manifest(dataset.name, dataset.parts[0]), MANIFEST).to_pylist()
    rows = rows_of(store, embedded)
    assert [(row["image_id"], row["uri"]) for row in rows] == [(row["image_id"], row["uri"]) for row in listed]
    assert [row["uri"].rpartition("/")[2] for row in rows] == sorted(path.name for path in mixed.iterdir())
    assert (embedded.embedded, embedded.rejected) == (9, 3)
    assert [(shard.embedded, shard.rejected) for shard in embedded.shards] == [(5, 0), (4, 1), (0, 2)]


def test_rows_hold_an_embedding_or_a_reason(mixed: Path, tmp_path: Path):
    store = tmp_path / "store"
    rows = rows_of(store, dn2.embed(dn2.ingest(mixed, store), store))

    for row in rows:
        content = (mixed / row["uri"].rpartition("/")[2]).read_bytes()
        assert row["content_sha256"] == hashlib.sha256(content).hexdigest()
        assert row["size"] == len(content)
        assert (row["embedding"] is None) == (row["reject_reason"] is not None)
    assert {(row["width"], row["height"]) for row in rows[:9]} == {(48, 40)}
    assert {(row["width"], row["height"]) for row in rows[9:]} == {(None, None)}
    assert [row["reject_reason"] for row in rows[9:11]] == [
        "the file is empty",
        "not an image, or of an unknown format",
    ]
    assert rows[11]["reject_reason"].startswith("cannot be decoded: ")


def test_embeddings_are_those_of_the_pictures_beside_them(mixed: Path, tmp_path: Path):
    """Another engine, one picture at a time, finds the same vector in the same row."""
    store = tmp_path / "store"
    rows = rows_of(store, dn2.embed(dn2.ingest(mixed, store), store, config=EmbedConfig(batch_size=4)))

    lite0 = backbone("efficientnet_lite0")
    engine = load_engine(lite0, engine="torch", device="cpu")
    pictures = [np.asarray(Image.open(mixed / f"{number:03d}.png")) for number in range(9)]
    expected = np.concatenate([engine.start(network_input(lite0, [picture]))() for picture in pictures])
    found = np.array([row["embedding"] for row in rows[:9]], np.float64)
    distances = ((found[:, None] - expected[None]) ** 2).sum(2)
    assert distances.argmin(1).tolist() == list(range(9))
    assert np.diagonal(distances).max() < 1e-3 * np.median(distances)


def test_thumbnails_are_kept_of_exactly_the_embedded_images(mixed: Path, tmp_path: Path):
    store = tmp_path / "store"
    config = EmbedConfig(shard_size=5, thumbnail_px=16)
    embedded = dn2.embed(dn2.ingest(mixed, store), store, config=config)

    for shard in embedded.shards:
        rows = read_table(Store.open(store), shard.path, EMBEDDINGS).to_pylist()
        thumbnails = read_table(Store.open(store), layout.thumbnails(shard.path), THUMBNAILS).to_pylist()
        assert [row["image_id"] for row in thumbnails] == [
            row["image_id"] for row in rows if row["reject_reason"] is None
        ]
        for row in thumbnails:
            with Image.open(io.BytesIO(row["thumbnail"])) as image:
                assert (image.format, image.size) == ("JPEG", (16, 13))


def test_shard_tells_how_it_was_made(mixed: Path, tmp_path: Path):
    store = tmp_path / "store"
    (shard,) = dn2.embed(dn2.ingest(mixed, store), store, config=EmbedConfig(engine="torch", device="cpu")).shards

    for path, schema in ((shard.path, EMBEDDINGS), (layout.thumbnails(shard.path), THUMBNAILS)):
        config = read_config(Store.open(store), path, schema)
        assert config["embedder"]["backbone"] == config["config"]["backbone"] == "efficientnet_lite0"
        assert config["engine"].startswith("torch ")
        assert config["decoder"].startswith("pillow ")
        assert config["shard"]["stop"] == 12


def test_group_and_label_of_the_manifest_come_along(tmp_path: Path):
    """Ingest does not know them yet; a manifest that does is followed."""
    store = Store.open(tmp_path / "store")
    make_pictures(tmp_path / "pictures", 2)
    dataset = dn2.ingest(tmp_path / "pictures", store)
    path = layout.manifest(dataset.name, dataset.parts[0])
    rows = read_table(store, path, MANIFEST).to_pydict()
    with writing(store, path, MANIFEST, read_config(store, path, MANIFEST)) as file:
        file.write({**rows, "group_id": ["a", None], "label": [None, "ok"]})

    embedded = dn2.embed(dataset, store)

    assert rows_of(tmp_path / "store", embedded, ["group_id", "label"]) == [
        {"group_id": "a", "label": None},
        {"group_id": None, "label": "ok"},
    ]


def test_finished_shards_are_not_touched_again(mixed: Path, tmp_path: Path):
    store = tmp_path / "store"
    config = EmbedConfig(shard_size=5)
    dataset = dn2.ingest(mixed, store)
    first = dn2.embed(dataset, store, config=config)
    modified = {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")}
    shutil.rmtree(mixed)

    assert dn2.embed(dataset, store, config=config) == first
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")} == modified


def test_only_new_images_are_embedded(tmp_path: Path):
    folder, store = tmp_path / "pictures", tmp_path / "store"
    make_pictures(folder, 3)
    dn2.embed(dn2.ingest(folder, store), store)
    modified = {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")}
    shutil.copy(folder / "000.png", folder / "new.png")

    embedded = dn2.embed(dn2.ingest(folder, store), store)

    assert [shard.embedded for shard in embedded.shards] == [3, 1]
    assert {path: path.stat().st_mtime_ns for path in modified} == modified


def test_superseded_rows_are_not_counted(tmp_path: Path):
    folder, store = tmp_path / "pictures", tmp_path / "store"
    make_pictures(folder, 4)
    (folder / "bad.png").touch()
    dn2.embed(dn2.ingest(folder, store), store)
    (folder / "bad.png").unlink()
    (folder / "003.png").unlink()

    embedded = dn2.embed(dn2.ingest(folder, store), store)

    assert (embedded.embedded, embedded.rejected, embedded.dataset.images) == (3, 0, 3)


def test_images_over_the_pixel_limit_are_rejected(tmp_path: Path):
    make_pictures(tmp_path / "pictures", 1)
    store = tmp_path / "store"

    embedded = dn2.embed(dn2.ingest(tmp_path / "pictures", store), store, config=EmbedConfig(max_pixels=1000))

    (row,) = rows_of(store, embedded, ["reject_reason"])
    assert row["reject_reason"] == "48 x 40 pixels, more than max_pixels = 1000"


def test_bank_decides_the_backbone(own_bricks: Bricks):
    config = EmbedConfig(backbone="resnet18")
    dataset = dn2.ingest(own_bricks.normal, own_bricks.store)

    assert dn2.embed(dataset, own_bricks.store, bank=own_bricks.bank).embedder == own_bricks.bank.embedder
    with pytest.raises(FileNotFoundError, match="backbone resnet18: got no weights file"):
        dn2.embed(dataset, own_bricks.store, config=config)


def test_bank_of_other_weights_is_refused_naming_both(own_bricks: Bricks):
    bank = replace(own_bricks.bank, embedder="efficientnet_lite0-000000000000")
    message = (
        rf"bank 'bricks' was made by embedder efficientnet_lite0-000000000000, got {own_bricks.bank.embedder}: "
        r"use its backbone, weights and crop"
    )
    with pytest.raises(EmbedderError, match=message):
        dn2.embed(dn2.ingest(own_bricks.batch, own_bricks.store), own_bricks.store, bank=bank)


def test_unknown_backbone_writes_nothing(tmp_path: Path):
    make_pictures(tmp_path / "pictures", 1)
    dataset = dn2.ingest(tmp_path / "pictures", tmp_path / "store")

    with pytest.raises(ConfigError, match="backbone: got 'resnet9', expected auto, efficientnet_lite0,"):
        dn2.embed(dataset, tmp_path / "store", config=EmbedConfig(backbone="resnet9"))
    assert not (tmp_path / "store/embeddings").exists()


def test_machine_that_embeds_otherwise_is_refused(tmp_path: Path):
    """The store's probe pictures came out differently when its first shard was made."""
    store = Store.open(tmp_path / "store")
    make_pictures(tmp_path / "pictures", 2)
    dataset = dn2.ingest(tmp_path / "pictures", store)
    path = layout.probes(dn2.embed(dataset, store).embedder)
    probes = read_table(store, path, PROBES)
    vectors, valid = column_vectors(probes["embedding"])
    with writing(store, path, PROBES.with_dim(1280), {}) as file:
        file.write({"picture": probes["picture"].to_pylist(), "embedding": vector_column(vectors[::-1], valid)})
    make_pictures(tmp_path / "other", 2, seed=1)

    with pytest.raises(EmbedderError, match=r"run here by openvino .*: got probe embeddings with cosine 0\.\d+ to the"):
        dn2.embed(dn2.ingest(tmp_path / "other", store), store)


def test_scores_do_not_depend_on_batch_or_shard_size(tmp_path: Path):
    """120 real patches, half of them a bank: every way of cutting them gives the same scores within 1e-3."""
    write_patches(tmp_path / "patches", 120)
    scores = []
    for number, (batch_size, shard_size) in enumerate([(1, 500), (7, 50), (64, 500), (64, 50)]):
        store = tmp_path / f"store-{number}"
        config = EmbedConfig(batch_size=batch_size, shard_size=shard_size)
        embedded = dn2.embed(dn2.ingest(tmp_path / "patches", store), store, config=config)
        assert [shard.shard.images for shard in embedded.shards] == ([50, 50, 20] if shard_size == 50 else [120])
        vectors = np.array([row["embedding"] for row in rows_of(store, embedded, ["embedding"])], np.float16)
        scores.append(mean_distance(search(vectors[60:], vectors[:60], 2).distances))

    assert scores[0].min() > 0
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], rtol=1e-3)
