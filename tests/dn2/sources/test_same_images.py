"""The same images give the same scores, whatever kind of source they come from; and no source is ever written to."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import dn2
from dn2.store.files import locate
from dn2.store.schemas import EMBEDDINGS, REPORT
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.sources.packing import Member, write_parquet, write_tar

COUNT = 500
CONFIG = dn2.EmbedConfig(backbone="tests.dn2.features.own:Grid")  # fast, and exact to the bit


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same 500 images as a folder, two tars, a webdataset and Parquet files."""
    root = tmp_path_factory.mktemp("same")
    (root / "folder").mkdir()
    random = np.random.default_rng(7)
    for number in range(COUNT):
        small = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        small.resize((48, 40)).save(root / "folder" / f"{number:03d}.{'jpg' if number % 3 else 'png'}")
    images: list[Member] = [(path.name, path.read_bytes()) for path in sorted((root / "folder").iterdir())]
    write_tar(root / "tars" / "0.tar", *((f"./{name}", content) for name, content in images[:25]))
    write_tar(root / "tars" / "1.tar", *images[25:])
    samples = [[(name, content), (f"{name[:3]}.cls", b"x")] for name, content in images]
    write_tar(root / "web.tar", *(member for sample in samples for member in sample))
    rows = [{"bytes": content, "path": name} for name, content in images]
    write_parquet(root / "struct.parquet", {"image": rows, "label": ["x"] * COUNT}, rows_of_group=17)
    write_parquet(root / "binary.parquet", {"image": pa.array([content for _, content in images])}, rows_of_group=17)
    return root


def scores(source: str, store: Path) -> dict[str, float]:
    """Train on a source and score it: the score of each image by its content."""
    embedded = dn2.embed(dn2.ingest(source, store), store, config=CONFIG)
    assert (embedded.embedded, embedded.rejected) == (COUNT, 0)
    report = dn2.score(embedded, store, bank=dn2.fit(embedded, store, bank="parts"))
    opened = Store.open(store)
    path = report.uri.removeprefix(f"{opened.uri}/") + "/part-00000.parquet"
    score_of = {row["image_id"]: row["score"] for row in read_table(opened, path, REPORT).to_pylist()}
    content_of: dict[str, str] = {}
    for shard in embedded.shards:
        rows = read_table(opened, shard.path, EMBEDDINGS, ["image_id", "content_sha256"]).to_pylist()
        content_of |= {row["image_id"]: row["content_sha256"] for row in rows}
    assert len(set(content_of.values())) == len(score_of) == COUNT
    return {content_of[identity]: score for identity, score in score_of.items()}


@pytest.fixture(scope="module")
def expected(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return scores(str(packed / "folder"), tmp_path_factory.mktemp("expected"))


@pytest.mark.parametrize("kind", ["fold*/*", "tars/?.tar", "web.tar", "struct.parquet", "b*.parquet"])
def test_every_kind_of_source_gives_the_same_scores(
    kind: str, packed: Path, expected: dict[str, float], tmp_path: Path
):
    assert scores(f"{packed}/{kind}", tmp_path) == expected


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["folder", "folder/**", "tars/?.tar", "web.tar", "struct.parquet"])
def test_so_does_every_kind_in_a_bucket(
    kind: str,
    packed: Path,
    expected: dict[str, float],
    s3_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The server sends the whole file's checksum with a part of it, unlike S3 itself."""
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    place = locate(f"{s3_bucket}/{uuid.uuid4().hex}")
    wanted = [path for path in packed.rglob("*") if path.is_file() and str(path).startswith(f"{packed}/{kind[:3]}")]
    place.fs.pipe({f"{place.path}/{path.relative_to(packed)}": path.read_bytes() for path in wanted})
    assert scores(f"{place.uri}/{kind}", tmp_path) == expected


def test_so_do_images_in_memory(packed: Path, expected: dict[str, float], tmp_path: Path):
    root = f"memory://{uuid.uuid4().hex}"
    locate(root).fs.pipe({f"{root}/{path.name}": path.read_bytes() for path in (packed / "folder").iterdir()})
    assert scores(root, tmp_path) == expected


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Size, times of change and mode of everything below a folder, itself included."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode
    return found


def test_source_is_never_written_to(packed: Path, tmp_path: Path):
    """Not even a file that is removed again: that would change the time of its folder."""
    paths = sorted(packed.rglob("*"), reverse=True)
    for path in (*paths, packed):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = snapshot(packed)
    try:
        for kind in ("folder", "fold*/*", "tars/*.tar", "web.tar", "struct.parquet", "binary.parquet"):
            dn2.embed(dn2.ingest(f"{packed}/{kind}", tmp_path / "store"), tmp_path / "store", config=CONFIG)
        assert snapshot(packed) == before
        assert len(before) == 1 + COUNT + 7
    finally:
        for path in (packed, *paths):
            os.chmod(path, 0o755)  # noqa: PTH101


def test_sources_of_every_kind_have_names_of_their_own(packed: Path, tmp_path: Path):
    kinds = ("folder", "fold*/*", "tars/*.tar", "web.tar", "struct.parquet", "b*.parquet")
    assert {dn2.ingest(f"{packed}/{kind}", tmp_path / "store").name[:-9] for kind in kinds} == {
        "folder",
        f"{packed.name}-fold",
        "tars-tar",
        "web-tar",
        "struct-parquet",
        f"{packed.name}-b-parquet",
    }
