"""Parts, shards, embedders and unfinished files: what is removed, and what stays whatever happens."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import dn2
from dn2.images.manifest import part_names
from dn2.scoring.watermark import unscored
from dn2.store.storage import Store
from tests.conftest import make_pictures
from tests.dn2.scoring.synthetic import normal_vectors, write_shards
from tests.dn2.upkeep.nights import CONFIG, RATE, Nights, build, embeddings, files, ingest, night, union
from tests.dn2.upkeep.pruning import age, kinds, later, write_manifest


def test_store_in_use_loses_nothing_when_it_is_young(nights: Nights):
    dn2.compact(nights.store, dataset="inbox")
    before = files(nights.store)
    found = dn2.prune(nights.store, yes=True)
    assert (found.kinds, found.removed, found.size.files) == ((), True, 0)
    assert files(nights.store) == before


def test_replaced_parts_their_marks_and_shards_that_nothing_needs_go_after_a_day(nights: Nights):
    """The shards of the three nights stay while their reports do: a report's pictures come from them."""
    store = Store.open(nights.store)
    parts = part_names(store, "inbox")
    done = dn2.compact(store, dataset="inbox")
    state, vectors = union(nights.store), embeddings(nights.store)
    before = files(nights.store)
    found = dn2.prune(store, now=later())
    assert (kinds(found), found.removed) == ({"parts": 3, "marks": 3}, False)
    assert files(nights.store) == before
    removed = dn2.prune(store, now=later(), yes=True)
    assert (removed.kinds, removed.removed) == (found.kinds, True)
    gone = before.keys() - files(nights.store).keys()
    assert gone == {
        *(f"manifests/inbox/{part}.parquet" for part in parts),
        *(f"watermarks/parts/inbox/{part}-{nights.bank.version}.json" for part in parts),
    }
    assert removed.size.bytes == sum(len(before[path]) for path in gone)
    assert removed.size.files == len(gone)
    assert part_names(store, "inbox") == (done.part,)
    assert (union(nights.store), embeddings(nights.store)) == (state, vectors)
    assert unscored(ingest(nights.source, nights.store), store, bank=nights.bank) == ()
    assert dn2.prune(store, now=later(), yes=True).kinds == ()


def test_embedder_that_no_version_uses_goes_and_those_of_old_versions_stay(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    for number in (1, 2, 3):
        normal = write_shards(
            store, normal_vectors(30, seed=number), name=f"n{number}", embedder=f"net{number}-{number:012x}"
        )
        if number < 3:
            dn2.fit(normal, store, bank="parts", config=RATE)
    before = files(str(tmp_path / "store"))
    assert kinds(dn2.prune(store)) == {}  # it may just be being filled
    found = dn2.prune(store, now=later(), yes=True)
    assert [one.examples for one in found.kinds] == [(f"embeddings/net3-{3:012x}",)]
    after = files(str(tmp_path / "store"))
    assert {path.split("/")[1] for path in before.keys() - after.keys()} == {f"net3-{3:012x}"}
    assert {path: before[path] for path in after} == after
    assert not (tmp_path / "store" / "embeddings" / f"net3-{3:012x}").exists()


def test_without_any_bank_the_embedder_that_was_used_last_stays(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    for number in (1, 2):
        images = write_shards(store, normal_vectors(30, seed=number), embedder=f"net{number}-{number:012x}")
        write_manifest(store, images)
        age(str(tmp_path / "store"), 10 * number, f"embeddings/net{number}-*/*", f"embeddings/net{number}-*/*/*")
    found = dn2.prune(store)
    assert [one.examples for one in found.kinds] == [(f"embeddings/net2-{2:012x}",)]


def test_shards_whose_images_have_all_vanished_go_and_vanished_rows_are_counted(nights: Nights, tmp_path: Path):
    source = tmp_path / "gone"
    make_pictures(source, 7)
    dn2.embed(dn2.ingest(source, nights.store, dataset="gone"), nights.store, config=CONFIG)
    for number in (0, 5, 6):
        (source / f"{number:03d}.png").unlink()
    dn2.ingest(source, nights.store, dataset="gone")
    assert dn2.prune(nights.store).vanished_rows == 0  # a day has not passed
    found = dn2.prune(nights.store, now=later(), yes=True)
    assert kinds(found) == {"vanished": 1}
    assert found.vanished_rows == 1 + 3  # of inbox: one vanished, its tombstone, and one changed
    assert 0 < found.vanished_bytes < 100_000
    folder = Path(nights.store) / "embeddings" / nights.bank.embedder / "gone"
    assert ["-000000000-000000005-" in path.name for path in folder.iterdir()] == [True, True]
    assert dn2.prune(nights.store, now=later()).kinds == ()


def test_thumbnail_of_a_vanished_image_is_gone_for_good_after_compact_and_prune(nights: Nights, tmp_path: Path):
    source = tmp_path / "secret"
    make_pictures(source, 4)
    dn2.embed(dn2.ingest(source, nights.store, dataset="secret"), nights.store, config=CONFIG)
    (thumbnails,) = (Path(nights.store) / "embeddings" / nights.bank.embedder / "secret").glob("*.thumbnails.parquet")
    (source / "001.png").unlink()
    dn2.ingest(source, nights.store, dataset="secret")
    dn2.compact(nights.store, dataset="secret")
    dn2.prune(nights.store, now=later(), yes=True)
    assert not thumbnails.exists()
    assert len(embeddings(nights.store, "secret")) == 3
    (part,) = (Path(nights.store) / "manifests" / "secret").iterdir()
    assert "001.png" not in str(pq.read_table(part).to_pylist())


def test_unfinished_files_go_after_a_day(nights: Nights):
    temporary = Path(nights.store) / ".tmp" / f"{123:032x}.parquet"
    temporary.parent.mkdir(exist_ok=True)
    temporary.write_bytes(b"half")
    report = Path(nights.store) / "reports" / "parts" / ("0" * 16) / "part-00000.parquet"
    report.parent.mkdir()
    report.write_bytes(b"half")
    shard = min((Path(nights.store) / "embeddings").rglob("inbox/*.thumbnails.parquet"))
    orphan = shard.with_name(shard.name.replace("-000000000-", "-000000900-").replace("-000000005-", "-000000905-"))
    shutil.copy(shard, orphan)
    assert kinds(dn2.prune(nights.store)) == {}
    assert kinds(dn2.prune(nights.store, now=later(), yes=True)) == {"unfinished": 3}
    assert [temporary.exists(), report.parent.exists(), orphan.exists(), shard.exists()] == [False, False, False, True]


@pytest.mark.s3
def test_in_a_bucket_the_same_goes_and_the_same_stays(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")  # rclone sums whole objects only
    nights = build(tmp_path, f"{s3_bucket}/{uuid.uuid4().hex}")
    state, vectors = union(nights.store), embeddings(nights.store)
    done = dn2.compact(nights.store, dataset="inbox")
    assert (len(done.merged), done.images, done.shards, done.size.files) == (3, 9, 2, 5)
    assert (union(nights.store), embeddings(nights.store)) == (state, vectors)
    before = {file.path for file in Store.open(nights.store).walk()}
    assert dn2.prune(nights.store, reports=1, yes=True).kinds == ()  # a day has not passed
    found = dn2.prune(nights.store, reports=1, now=later(), yes=True)
    assert kinds(found) == {"shards": 3, "parts": 3, "marks": 3, "reports": 2, "scores": 2}
    after = {file.path for file in Store.open(nights.store).walk()}
    assert len(before - after) == found.size.files
    assert after < before
    assert (union(nights.store), embeddings(nights.store)) == (state, vectors)
    assert night(nights.source, nights.store, nights.bank) is None
