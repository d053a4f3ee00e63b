"""Images that are cut into tiles: the bank holds tiles, and an image counts as its worst one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dn2
from dn2 import layout
from dn2.errors import EmbedderError
from dn2.neighbors.bank import prepared
from dn2.neighbors.choice import needed_gb
from dn2.records import BankVersion, Embedded
from dn2.scoring.calibration import Calibration
from dn2.scoring.rows import image_vectors
from dn2.store.schemas import BANK_ROWS, EMBEDDINGS, REPORT
from dn2.store.storage import Store
from dn2.store.tables import read_table

CONFIG = dn2.EmbedConfig(backbone="tests.dn2.features.own:Grid", crop="tiles-2x3", shard_size=7)
TILES = 6


def write_pictures(folder: Path, count: int, *, seed: int) -> Path:
    """Write pictures of 2 x 3 fields, each of one colour and a little noise; one in four has a white field."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        colours = np.array([[40, 80, 120], [80, 120, 40]])[:, :, None] + random.normal(0, 8, (2, 3, 3))
        if folder.name == "batch" and number % 4 == 3:
            colours[number % 2, number % 3] = 250
        pixels = colours.repeat(16, 0).repeat(16, 1) + random.normal(0, 3, (32, 48, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03d}.png")
    return folder


def embedded_in(folder: Path, store: Path, bank: BankVersion | None = None) -> Embedded:
    return dn2.embed(dn2.ingest(folder, store), store, config=CONFIG, bank=bank)


def tiles_of(embedded: Embedded, store: Path) -> tuple[list[str], np.ndarray]:
    """Return image ids, and (N, T, D) float64 straight from the shards."""
    ids, vectors = [], []
    for shard in embedded.shards:
        table = read_table(Store.open(store), shard.path, EMBEDDINGS)
        ids += table["image_id"].to_pylist()
        vectors += [np.array(one, np.float64).reshape(TILES, 48) for one in table["embedding"].to_pylist()]
    return ids, np.stack(vectors)


def oracle(
    queries: np.ndarray, ids: list[str], bank: np.ndarray, bank_ids: list[str], k: int
) -> tuple[np.ndarray, ...]:
    """Return scores, worst tiles and (N, k) numbers of the nearest bank tiles of the worst one, by brute force."""
    owner = np.repeat(bank_ids, TILES)
    rows = bank.reshape(-1, bank.shape[2])
    scores, worst, nearest = [], [], []
    for tiles, name in zip(queries, ids, strict=True):
        distances = ((tiles[:, None] - rows) ** 2).sum(2)
        distances[:, owner == name] = np.inf
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        means = np.take_along_axis(distances, order, 1).mean(1)
        scores.append(means.max())
        worst.append(int(means.argmax()))
        nearest.append(order[worst[-1]])
    return np.array(scores), np.array(worst), np.array(nearest)


def as_in_the_bank(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1, rounded as they are stored."""
    return prepared(vectors.reshape(-1, 48).astype(np.float16), "cosine").reshape(vectors.shape).astype(np.float64)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    write_pictures(folder / "normal", 30, seed=0)
    write_pictures(folder / "batch", 12, seed=1)
    write_pictures(folder / "more", 8, seed=2)
    return folder / "store"


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("index", [{}, {"segment_rows": 11}, {"index": "ivf", "nlist": 4, "nprobe": 4}])
def test_image_counts_as_its_worst_tile(store: Path, index: dict, metric: str):
    """Scores, tiles, neighbours and calibration are those of brute force, however the bank's rows lie."""
    config = dn2.FitConfig(metric=metric, units="images", **index)  # in a few dimensions some look like near copies
    normal = embedded_in(store.parent / "normal", store)
    bank = dn2.fit(normal, store, bank=f"worst-{metric}-{'-'.join(index)}", config=config)
    batch = embedded_in(store.parent / "batch", store, bank)
    report = dn2.score(batch, store, bank=bank)

    known, normals = tiles_of(normal, store)
    ids, queries = tiles_of(batch, store)
    if metric == "cosine":
        normals, queries = (as_in_the_bank(of) for of in (normals, queries))
    scores, worst, nearest = oracle(queries, ids, normals, known, bank.k)
    folder = report.uri.removeprefix(f"{Store.open(store).uri}/")
    rows = [
        row
        for part in range(2)
        for row in read_table(Store.open(store), f"{folder}/{layout.part(part)}", REPORT).to_pylist()
    ]
    assert [row["image_id"] for row in rows] == ids
    np.testing.assert_allclose([row["score"] for row in rows], scores, rtol=2e-3)
    assert [row["tile"] for row in rows] == worst.tolist()
    assert [row["neighbor_ids"] for row in rows] == [[known[one // TILES] for one in of] for of in nearest]
    assert [row["neighbor_tiles"] for row in rows] == [[one % TILES for one in of] for of in nearest.tolist()]
    alone, _, _ = oracle(normals, known, normals, known, bank.k)
    known_scores = Calibration.read(Store.open(store), bank.name, bank.version).scores
    np.testing.assert_allclose(known_scores, np.sort(alone), rtol=2e-3)
    assert (bank.rows, bank.images, bank.tiles, bank.calibration_rows) == (180, 30, TILES, 30)


def test_white_field_is_found_in_its_tile(store: Path):
    bank = dn2.fit(embedded_in(store.parent / "normal", store), store, bank="white")
    report = dn2.score(embedded_in(store.parent / "batch", store, bank), store, bank=bank)

    folder = report.uri.removeprefix(f"{Store.open(store).uri}/")
    parts = [read_table(Store.open(store), f"{folder}/{layout.part(part)}", REPORT) for part in range(2)]
    rows = [row for part in parts for row in part.to_pylist()]
    assert {number: row["tile"] for number, row in enumerate(rows) if row["is_anomaly"]} == {3: 3, 7: 4, 11: 5}


def test_rows_of_the_bank_say_which_tile_they_are(store: Path):
    normal = embedded_in(store.parent / "normal", store)
    bank = dn2.fit(normal, store, bank="rows", config=dn2.FitConfig(index="ivf", nlist=5, nprobe=5))
    (path,) = (store / "banks/rows/segments").glob("*[0-9a-f].parquet")
    table = read_table(Store.open(store), str(path.relative_to(store)), BANK_ROWS)
    known, normals = tiles_of(normal, store)
    vectors = np.load(path.with_suffix(".npy")).astype(np.float64)

    for vector, name, tile in zip(vectors, table["image_id"].to_pylist(), table["tile"].to_pylist(), strict=True):
        np.testing.assert_array_equal(vector, normals[known.index(name), tile])
    assert bank.fidelity is not None
    assert bank.fidelity.images == 15  # half of the 30 choose, half measure: images, not tiles


def test_bank_of_tiles_grows_and_shrinks_by_images(store: Path):
    normal = embedded_in(store.parent / "normal", store)
    bank = dn2.fit(normal, store, bank="growing")
    more = embedded_in(store.parent / "more", store, bank)
    grown = dn2.add(more, store, bank="growing").bank
    removed = dn2.remove(store, [tiles_of(more, store)[0][0], tiles_of(normal, store)[0][3]], bank="growing").bank

    assert (grown.images, grown.rows, removed.images, removed.rows) == (38, 228, 36, 216)
    known = [name for of in (normal, more) for name in tiles_of(of, store)[0]]
    everything = np.concatenate([tiles_of(of, store)[1] for of in (normal, more)])
    alone, _, _ = oracle(everything, known, everything, known, 2)
    calibration = Calibration.read(Store.open(store), grown.name, grown.version).scores
    np.testing.assert_allclose(calibration, np.sort(alone), rtol=2e-3)


def test_segments_too_large_for_the_memory_give_the_same_scores(store: Path):
    normal = embedded_in(store.parent / "normal", store)
    whole = dn2.fit(normal, store, bank="whole")
    parts = dn2.fit(normal, store, bank="parts", config=dn2.FitConfig(segment_rows=10))
    batch = embedded_in(store.parent / "batch", store, whole)
    tight = dn2.ScoreConfig(bank_memory_gb=1.5 * needed_gb(60, parts.dim))

    one, other = dn2.score(batch, store, bank=whole), dn2.score(batch, store, bank=parts, config=tight)

    assert parts.segment_count == 3
    assert [worst.score for worst in one.worst] == [worst.score for worst in other.worst]


def test_cleaning_and_groups_take_the_mean_of_the_tiles(store: Path):
    normal = embedded_in(store.parent / "normal", store)
    means = np.concatenate(list(image_vectors(normal, Store.open(store))))

    np.testing.assert_allclose(means, tiles_of(normal, store)[1].mean(1), rtol=1e-2, atol=1e-2)
    assert dn2.clean(normal, store, config=dn2.CleanConfig(rule="auto")).images == 30


def test_another_crop_than_the_banks_is_refused_and_auto_takes_the_banks(store: Path):
    bank = dn2.fit(embedded_in(store.parent / "normal", store), store, bank="crops")
    dataset = dn2.ingest(store.parent / "batch", store)
    auto = CONFIG.model_copy(update={"crop": "auto"})

    assert dn2.embed(dataset, store, config=auto, bank=bank).embedder == bank.embedder
    assert len(dn2.embed(dataset, store, config=auto).embedder) == len("grid-0123456789ab")  # center has no name
    with pytest.raises(
        EmbedderError, match=r"was made by embedder grid-tiles-2x3-.*, got grid-full-.*weights and crop"
    ):
        dn2.embed(dataset, store, config=CONFIG.model_copy(update={"crop": "full"}), bank=bank)


def test_rejected_images_have_no_tile(store: Path, tmp_path: Path):
    bank = dn2.fit(embedded_in(store.parent / "normal", store), store, bank="rejects")
    write_pictures(tmp_path / "some", 2, seed=5)
    (tmp_path / "some/broken.png").write_bytes(b"nothing")
    report = dn2.score(embedded_in(tmp_path / "some", store, bank), store, bank=bank)

    folder = report.uri.removeprefix(f"{Store.open(store).uri}/")
    table = read_table(Store.open(store), f"{folder}/{layout.part(0)}", REPORT)
    assert [tile is None for tile in table["tile"].to_pylist()] == [False, False, True]
    assert (report.scored, report.rejected) == (2, 1)


def test_page_frames_the_tile(store: Path):
    """The picture is 48 x 32 and shown 96 pixels wide: tile 3 of 2 x 3 begins in the middle of its height."""
    bank = dn2.fit(embedded_in(store.parent / "normal", store), store, bank="framed")
    report = dn2.score(embedded_in(store.parent / "batch", store, bank), store, bank=bank)
    page = Path(report.html.removeprefix("file://")).read_text()

    assert page.count('class="frame"') == 12 * 3
    assert 'style="left:0.00px;top:48.00px;width:32.00px;height:32.00px"' in page
    assert "counts as its worst one" in page
