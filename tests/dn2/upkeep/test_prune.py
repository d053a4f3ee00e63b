"""What is removed, what stays whatever happens, and that nothing is removed in doubt."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import dn2
from dn2.errors import ConfigError, NotFoundError, SchemaError, StoreError
from dn2.images.manifest import part_names
from dn2.records import Pruned
from dn2.scoring.watermark import mark, unscored
from dn2.store import layout
from dn2.store.storage import Store
from dn2.upkeep.limits import DAY, KINDS
from tests.conftest import make_pictures
from tests.dn2.scoring.synthetic import normal_vectors, write_shards
from tests.dn2.upkeep.nights import CONFIG, RATE, Nights, build, embeddings, files, ingest, night, union

LATER = 2 * DAY


def kinds(found: Pruned) -> dict[str, int]:
    """How many things of each kind, by the short name of the kind."""
    short = {words: kind for kind, words in KINDS.items()}
    return {short[one.kind]: one.count for one in found.kinds}


def later(days: float = 2) -> float:
    return time.time() + days * DAY


def age(store: str, days: float, *patterns: str) -> None:
    """Make files look as if they were written some days ago."""
    for pattern in patterns:
        for path in Path(store).glob(pattern):
            if path.is_file():
                os.utime(path, (time.time() - days * DAY,) * 2)


def check_banks_work(nights: Nights, scored: dict[str, bytes]) -> None:
    """A bank still scores, its pictures are there, and a report that stays can be decided anew."""
    again = dn2.score(
        dn2.embed(
            dn2.ingest(nights.source.parent / "normal", nights.store, dataset="normal"), nights.store, config=CONFIG
        ),
        nights.store,
        bank=nights.bank,
    )
    page = dn2.Store.open(nights.store).read(f"{again.uri.removeprefix(f'file://{nights.store}/')}/report.html")
    assert page.count(b"data:image/jpeg") >= again.images
    for path, content in scored.items():
        assert (Path(nights.store) / path).read_bytes() == content


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


def test_without_their_reports_the_shards_go_too(nights: Nights):
    dn2.compact(nights.store, dataset="inbox")
    vectors = embeddings(nights.store)
    before = files(nights.store)
    found = dn2.prune(nights.store, reports=0, now=later(), yes=True)
    assert kinds(found) == {"shards": 4, "parts": 3, "marks": 3, "reports": 3, "scores": 3}
    gone = before.keys() - files(nights.store).keys()
    assert sum(len(before[path]) for path in gone) == found.size.bytes
    assert len(gone) == found.size.files
    assert {path for path in gone if path.startswith("banks/")} == set()
    assert embeddings(nights.store) == vectors
    assert not list((Path(nights.store) / "reports" / "parts").iterdir())
    check_banks_work(nights, {path: before[path] for path in before if path.startswith("banks/")})


@pytest.mark.parametrize("keep", [1, 2])
def test_newest_reports_stay_with_all_that_rethreshold_needs(nights: Nights, keep: int):
    for number, report in enumerate(nights.reports):
        folder = report.uri.rpartition("/store/")[2]
        age(nights.store, 30 - number, f"{folder}/*")
    dn2.compact(nights.store, dataset="inbox")
    found = dn2.prune(nights.store, reports=keep, now=later(), yes=True)
    assert kinds(found)["reports"] == kinds(found)["scores"] == 3 - keep
    left = {path.name for path in (Path(nights.store) / "reports" / "parts").iterdir()}
    assert left == {report.uri[-16:] for report in nights.reports[3 - keep :]}
    for report in nights.reports[3 - keep :]:
        here = report.uri.rpartition("/store/")[2]
        config = dn2.ScoreConfig(threshold=dn2.ThresholdConfig(budget=1))
        again = dn2.rethreshold(f"{nights.store}/{here}", nights.store, config=config)
        page = (Path(again.uri.removeprefix("file://")) / "report.html").read_bytes()
        assert page.count(b"data:image/jpeg") >= 3 * again.images


def test_reports_older_than_so_many_days_go_and_scores_that_another_one_needs_stay(nights: Nights):
    oldest = nights.reports[0]
    uri = f"{nights.store}/reports/{oldest.uri.rpartition('/reports/')[2]}"
    other = dn2.rethreshold(uri, nights.store, config=dn2.ScoreConfig(threshold=dn2.ThresholdConfig(budget=2)))
    age(nights.store, 40, f"reports/parts/{oldest.uri[-16:]}/*", "scores/parts/*/*")
    found = dn2.prune(nights.store, age=30, yes=True)
    assert kinds(found) == {"reports": 1}
    assert found.kinds[0].examples == (f"reports/parts/{oldest.uri[-16:]}",)
    assert dn2.rethreshold(other, nights.store).images == 6


def test_old_scores_that_no_report_was_made_of_go_with_old_reports_only(nights: Nights):
    folder = f"reports/parts/{nights.reports[0].uri[-16:]}"
    shutil.rmtree(Path(nights.store) / folder)
    assert kinds(dn2.prune(nights.store, now=later())) == {}
    assert kinds(dn2.prune(nights.store, age=300)) == {}
    assert kinds(dn2.prune(nights.store, age=300, now=later())) == {"scores": 1}


def test_cleaning_goes_unless_a_bank_names_it(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    normal = write_shards(store, normal_vectors(60, seed=0))
    used, unused = (
        dn2.clean(normal, store, config=dn2.CleanConfig(rule="auto", contamination=share)) for share in (0.1, 0.05)
    )
    dn2.fit(normal, store, bank="parts", config=RATE, cleaning=used)
    assert kinds(dn2.prune(store, now=later(100))) == {}
    found = dn2.prune(store, age=30, now=later(100), yes=True)
    assert kinds(found) == {"cleanings": 1}
    assert found.kinds[0].examples == (f"cleaning/{unused.fingerprint}",)
    assert [path.name for path in (tmp_path / "store" / "cleaning").iterdir()] == [used.fingerprint]


def test_lists_of_rejects_go_with_the_reports(nights: Nights):
    folder = Path(nights.store) / "rejects" / "inbox"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number:016x}.parquet").write_bytes(b"x")
        age(nights.store, 10 - number, f"rejects/inbox/{number:016x}.parquet")
    (folder / "mine.txt").write_text("somebody's own")
    assert kinds(dn2.prune(nights.store)) == {}
    found = dn2.prune(nights.store, reports=5, age=8.5, yes=True)
    assert kinds(found)["rejects"] == 2
    assert sorted(path.name for path in folder.iterdir()) == [f"{2:016x}.parquet", "mine.txt"]


def test_embedder_that_no_version_uses_goes_and_those_of_old_versions_stay(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    for number in (1, 2, 3):
        normal = write_shards(
            store, normal_vectors(30, seed=number), name=f"n{number}", embedder=f"net{number}-{number:012x}"
        )
        if number < 3:
            dn2.fit(normal, store, bank="parts", config=RATE)
    for path in (tmp_path / "store" / "embeddings" / f"net3-{3:012x}" / "n3").iterdir():  # as embed names them
        path.rename(path.with_name(f"000001-{3:016x}-{path.stem.partition('.')[0]}-{3:08x}.parquet"))
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
        write_shards(store, normal_vectors(30, seed=number), embedder=f"net{number}-{number:012x}")
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


def test_what_somebody_else_put_there_stays_and_hostile_names_are_told_as_text(nights: Nights):
    root = Path(nights.store)
    mine = [
        root / "embeddings" / "backup" / "x.parquet",
        root / "reports" / "parts" / "notes" / "x.txt",
        root / "cleaning" / "mine" / "x.txt",
        root / "watermarks" / "parts" / "inbox" / "x.json",
        root / "manifests" / "inbox" / "x.parquet",
        root / os.fsdecode(b"\xff\xfe\n") / "x",
        root / ".tmp" / "notes.txt",
        root / ".tmp" / os.fsdecode(b"\xff[bold]\n"),
        root / ".tmp" / f"{1:032x}" / "x",
        root / "embeddings" / "backup" / "inbox" / f"000009-{1:016x}-000000000-000000005-{1:08x}.parquet",
        root / "reports" / "we ird" / f"{1:016x}" / "report.html",
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    bad = root / "embeddings" / os.fsdecode(b"\xff[bold]-0123456789ab") / "probes.parquet"
    bad.parent.mkdir()
    bad.write_bytes(b"old")
    found = dn2.prune(root, reports=0, age=0, now=later(100), yes=True)
    examples = [example for one in found.kinds for example in one.examples if "bold" in example]
    assert examples == ["embeddings/\\udcff[bold]-0123456789ab"]
    assert not bad.exists()
    assert all(path.exists() for path in mine)


@pytest.mark.parametrize(
    "link",
    [
        ".tmp",
        "embeddings/foo-0123456789ab",
        "embeddings/foo-0123456789ab/inbox",
        f"cleaning/{1:016x}",
        "cleaning",
        f"reports/parts/{1:016x}",
        "reports/other",
        f"scores/parts/{1:016x}",
        f"scores/parts/{1:016x}/found-0000-0001",
        "rejects",
        "watermarks/parts/gone",
    ],
)
def test_nothing_behind_a_link_is_removed(nights: Nights, tmp_path: Path, link: str):
    """Not even what has a name that dn2 gives."""
    names = [
        "photo.png",
        f"{1:032x}.parquet",
        "probes.parquet",
        f"000001-{1:016x}-{1:016x}.json",
        f"000001-{1:016x}-000000000-000000005-{1:08x}.parquet",
        f"inbox/000001-{1:016x}-000000000-000000005-{1:08x}.parquet",
        f"inbox/{1:016x}.parquet",
        "part-00000.parquet",
        "rows.parquet",
        "report.html",
        f"{1:016x}/part-00000.parquet",
        f"{1:016x}/rows.parquet",
    ]
    elsewhere = tmp_path / "elsewhere"
    for name in names:
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_text("mine")
    place = Path(nights.store) / link
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        place.rmdir()
    place.symlink_to(elsewhere)
    dn2.prune(nights.store, reports=0, age=0, now=later(100), yes=True)
    assert {str(path.relative_to(elsewhere)) for path in elsewhere.rglob("*") if path.is_file()} == set(names)
    assert place.is_symlink()


def test_store_that_is_a_link_itself_is_pruned(nights: Nights, tmp_path: Path):
    dn2.compact(nights.store, dataset="inbox")
    (tmp_path / "link").symlink_to(nights.store)
    expected = kinds(dn2.prune(nights.store, reports=0, now=later()))
    assert kinds(dn2.prune(tmp_path / "link", reports=0, now=later(), yes=True)) == expected
    assert expected["reports"] == 3
    assert dn2.prune(nights.store, reports=0, now=later()).kinds == ()


def test_reports_behind_a_link_stay_with_all_that_they_need(nights: Nights, tmp_path: Path):
    dn2.compact(nights.store, dataset="inbox")
    place = Path(nights.store) / "reports"
    place.rename(tmp_path / "disk")
    place.symlink_to(tmp_path / "disk")
    assert kinds(dn2.prune(nights.store, reports=0, now=later(), yes=True)) == {"parts": 3, "marks": 3}
    for report in (tmp_path / "disk" / "parts").iterdir():
        assert dn2.rethreshold(f"{nights.store}/reports/parts/{report.name}", nights.store).images


@pytest.mark.parametrize("folder", ["banks", "banks/parts", "manifests", "manifests/inbox", "reports", "reports/parts"])
def test_nothing_is_removed_while_a_link_leads_nowhere(nights: Nights, tmp_path: Path, folder: str):
    """A disk that is not mounted: what it needs cannot be known."""
    place = Path(nights.store) / folder
    place.rename(tmp_path / "disk")
    place.symlink_to(tmp_path / "gone")
    before = files(nights.store)
    with pytest.raises(
        SchemaError, match=rf"nothing was removed, .*/{folder}: got a link to {tmp_path}/gone, which is"
    ):
        dn2.prune(nights.store, reports=0, now=later(100), yes=True)
    assert files(nights.store) == before


def test_foreign_file_in_a_folder_of_ours_stays_with_the_folder(nights: Nights):
    root = Path(nights.store)
    folders = [next((root / "reports" / "parts").iterdir()), next((root / "scores" / "parts").iterdir())]
    mine = [folder / name for folder in folders for name in ("notes.txt", "copy of report.html", "more/report.html")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    before = files(nights.store)
    found = dn2.prune(nights.store, reports=0, now=later(), yes=True)
    assert kinds(found) == {"reports": 3, "scores": 3}
    gone = before.keys() - files(nights.store).keys()
    assert (len(gone), sum(len(before[path]) for path in gone)) == (found.size.files, found.size.bytes)
    for folder in folders:
        left = {path for path in folder.parent.rglob("*") if path.is_file()}
        assert left == {path for path in mine if folder in path.parents}
    assert dn2.prune(nights.store, reports=0, now=later(100)).kinds == ()


def test_foreign_file_in_the_folder_of_an_embedder_does_not_make_it_the_one_used_last(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    write_shards(store, normal_vectors(30, seed=1), embedder=f"net1-{1:012x}")
    age(str(tmp_path / "store"), 10, "embeddings/*/*", "embeddings/*/*/*")
    (tmp_path / "store" / "embeddings" / f"net2-{2:012x}").mkdir()
    (tmp_path / "store" / "embeddings" / f"net2-{2:012x}" / "notes.txt").write_text("mine")
    assert dn2.prune(store, now=later()).kinds == ()


def test_reports_and_scores_younger_than_a_day_stay_whatever_is_asked_for(nights: Nights):
    """A rethreshold may be at work on them."""
    assert dn2.prune(nights.store, reports=0, age=0, yes=True).kinds == ()
    now = max(path.stat().st_mtime for path in Path(nights.store).rglob("*") if path.is_file()) + DAY
    assert dn2.prune(nights.store, reports=0, age=0, now=now - 60, yes=True).kinds == ()
    assert kinds(dn2.prune(nights.store, reports=0, now=now + 60)) == {"reports": 3, "scores": 3}


def test_young_scores_of_an_old_report_stay_until_they_are_old(nights: Nights):
    age(nights.store, 3, "reports/parts/*/*")
    assert kinds(dn2.prune(nights.store, reports=0, yes=True)) == {"reports": 3}
    assert len(list((Path(nights.store) / "scores" / "parts").iterdir())) == 3
    assert kinds(dn2.prune(nights.store, reports=0)) == {}
    assert kinds(dn2.prune(nights.store, reports=0, now=later(), yes=True)) == {"scores": 3}


def test_cleaning_and_list_of_rejects_younger_than_a_day_stay(tmp_path: Path):
    """The bank that will name the cleaning is just being trained."""
    store = Store.open(tmp_path / "store")
    normal = write_shards(store, normal_vectors(60, seed=0))
    dn2.clean(normal, store, config=dn2.CleanConfig(rule="auto", contamination=0.1))
    store.write(f"rejects/normal/{1:016x}.parquet", b"x")
    assert dn2.prune(store, reports=0, age=0, yes=True).kinds == ()
    assert kinds(dn2.prune(store, reports=0, now=later(), yes=True)) == {"cleanings": 1, "rejects": 1}


def test_marks_of_a_run_that_ended_after_the_merge_stay_until_the_merged_part_has_its_own(nights: Nights):
    store = Store.open(nights.store)
    dataset = ingest(nights.source, nights.store)
    for part in dataset.parts:
        store.remove(layout.watermark("parts", "inbox", part, nights.bank.version))
    done = dn2.compact(store, dataset="inbox")
    mark(dataset, store, bank=nights.bank, parts=dataset.parts, report=None)
    after = ingest(nights.source, nights.store)
    for _ in range(2):  # with the parts, and without them
        dn2.prune(store, now=later(), yes=True)
        assert unscored(after, store, bank=nights.bank) == ()
        assert unscored(after, store, bank=nights.bank, rescore=True) == ()
    assert part_names(store, "inbox") == (done.part,)
    assert len(store.names("watermarks/parts/inbox")) == 3
    mark(after, store, bank=nights.bank, parts=after.parts, report=None)
    assert kinds(dn2.prune(store, now=later(), yes=True)) == {"marks": 3}
    assert unscored(after, store, bank=nights.bank) == ()


def test_marks_of_a_version_stay_only_if_they_stand_for_the_whole_merged_part(nights: Nights):
    store = Store.open(nights.store)
    dataset = ingest(nights.source, nights.store)
    done = dn2.compact(store, dataset="inbox")  # marked for the version of the nights
    whole, some = replace(nights.bank, version="a" * 16), replace(nights.bank, version="b" * 16)
    mark(dataset, store, bank=whole, parts=dataset.parts, report=None)
    mark(dataset, store, bank=some, parts=dataset.parts[:2], report=None)
    dn2.prune(store, now=later(), yes=True)
    assert store.names("watermarks/parts/inbox") == sorted(
        [
            f"{done.part}-{nights.bank.version}.json",
            *(f"{part}-{whole.version}.json" for part in dataset.parts),
        ]
    )
    assert unscored(ingest(nights.source, nights.store), store, bank=whole, rescore=True) == ()


def test_part_merged_twice_and_pruned_is_scored_by_another_bank(nights: Nights):
    """Of the first merged part nothing is left, and nobody asks it what it was made of."""
    store = Store.open(nights.store)
    first = dn2.compact(store, dataset="inbox")
    late = nights.source / "late.png"
    shutil.copy(nights.source / "a" / "000.png", late)
    night(nights.source, nights.store, nights.bank)
    second = dn2.compact(store, dataset="inbox")
    late.unlink()  # the source is shared
    assert second.merged[0] == first.part
    dn2.prune(store, now=later(), yes=True)
    dataset = dn2.Dataset("inbox", "", part_names(store, "inbox"), 10)
    assert dataset.parts == (second.part,)
    newer, other = replace(nights.bank, version="a" * 16), replace(nights.bank, name="other")
    assert unscored(dataset, store, bank=nights.bank) == unscored(dataset, store, bank=newer) == ()
    assert unscored(dataset, store, bank=newer, rescore=True) == dataset.parts
    assert unscored(dataset, store, bank=other) == dataset.parts
    mark(dataset, store, bank=other, parts=dataset.parts, report=None)
    assert dn2.compact(store, dataset="inbox") == dn2.Compacted("inbox")
    assert dn2.prune(store, now=later()).kinds == ()


@pytest.mark.parametrize("damage", ["version", "pointer", "rows", "missing rows", "report", "merged part"])
def test_nothing_is_removed_while_something_that_tells_what_is_needed_is_damaged(nights: Nights, damage: str):
    done = dn2.compact(nights.store, dataset="inbox")
    root = Path(nights.store)
    path = {
        "version": root / "banks" / "parts" / "versions" / f"{nights.bank.version}.json",
        "pointer": root / "banks" / "parts" / "current.json",
        "rows": next((root / "banks" / "parts" / "segments").glob("*.parquet")),
        "missing rows": next((root / "banks" / "parts" / "segments").glob("*.parquet")),
        "report": next((root / "reports" / "parts").glob("*/summary.json")),
        "merged part": root / "manifests" / "inbox" / f"{done.part}.parquet",
    }[damage]
    if damage == "missing rows":
        path.unlink()
    else:
        path.write_bytes(b"{}")
    before = files(nights.store)
    with pytest.raises(
        SchemaError, match=rf"nothing was removed, for it cannot be known what is needed: .*{path.name}"
    ):
        dn2.prune(nights.store, reports=1, now=later(), yes=True)
    assert files(nights.store) == before


def test_numbers_below_zero_and_places_without_a_store_are_refused(nights: Nights, tmp_path: Path):
    with pytest.raises(ConfigError, match="reports: got -1, expected 0 or more"):
        dn2.prune(nights.store, reports=-1)
    for days in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match=f"age: got {days}, expected 0 or more days"):
            dn2.prune(nights.store, age=days)
    with pytest.raises(NotFoundError, match=r"store file://.*/none: got nothing that dn2 has made"):
        dn2.prune(tmp_path / "none")


def needs_of(store: str) -> set[str]:
    """What the version files of a store name, by the book: read here once more, with nothing of dn2's own reading."""
    root = Path(store)
    found: set[str] = set()
    for version in root.glob("banks/*/versions/*.json"):
        document = json.loads(version.read_text())
        found |= {str(path.relative_to(root)) for path in (root / "banks").rglob("*") if path.is_file()}
        found.add(f"embeddings/{document['embedder']}/probes.parquet")
        for segment in [*document["segments"], *document.get("held", [])]:
            table = pq.read_table(version.parent.parent / "segments" / f"{segment}.parquet").to_pylist()
            for row in table:
                shards = row.get("example_shards") or [row["shard"]]
                found |= {one for shard in shards for one in (shard, shard.replace(".parquet", ".thumbnails.parquet"))}
        if document.get("cleaning"):
            found |= {f"{document['cleaning']}/{name}" for name in ("rows.parquet", "summary.json", "report.html")}
    return found


def test_killed_at_any_removal_no_need_is_touched_and_the_next_run_ends_it(
    made: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each time a few more files are removed, until a run gets through."""
    base = str(shutil.copytree(made.store, tmp_path / "base"))
    dn2.compact(base, dataset="inbox")
    state, vectors, needed, when = union(base), embeddings(base), needs_of(base), later()
    whole = str(shutil.copytree(base, tmp_path / "whole"))
    expected = dn2.prune(whole, reports=1, now=when, yes=True)
    remove = Store.remove
    runs = 0
    for allowed in range(0, expected.size.files + 3, 3):
        store = str(shutil.copytree(base, tmp_path / str(allowed)))
        left = [allowed]

        def limited(self: Store, path: str, left: list[int] = left) -> None:
            if not left[0]:
                raise StoreError("killed")
            left[0] -= 1
            remove(self, path)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "remove", limited)
            try:
                dn2.prune(store, reports=1, now=when, yes=True)
            except StoreError:
                runs += 1
        there = files(store)
        assert needed <= there.keys()
        assert (union(store), embeddings(store)) == (state, vectors)
        for summary in Path(store).glob("reports/*/*/summary.json"):  # what is whole is whole
            assert len(list(summary.parent.iterdir())) >= 4
            assert dn2.rethreshold(summary.parent, store).images
        for shard in Path(store).glob("embeddings/*/*/*-????????.parquet"):
            assert shard.with_name(shard.name.replace(".parquet", ".thumbnails.parquet")).exists()
        dn2.prune(store, reports=1, now=when, yes=True)
        assert files(store).keys() - files(whole).keys() <= leftovers(store)
        shutil.rmtree(store)
    assert runs == -(-expected.size.files // 3)


def leftovers(store: str) -> set[str]:
    """What the decisions of this test have written: reports made anew by rethreshold."""
    return {str(path.relative_to(store)) for path in Path(store).glob("reports/*/*/*")}


def test_file_that_another_run_removed_meanwhile_is_no_error(nights: Nights, monkeypatch: pytest.MonkeyPatch):
    dn2.compact(nights.store, dataset="inbox")
    remove: Callable[[Store, str], None] = Store.remove

    def twice(self: Store, path: str) -> None:
        remove(self, path)
        remove(self, path)

    monkeypatch.setattr(Store, "remove", twice)
    assert dn2.prune(nights.store, reports=0, now=later(), yes=True).removed


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
