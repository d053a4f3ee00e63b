"""What somebody else put into a store, and what lies behind links, is never touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import dn2
from dn2.errors import SchemaError
from dn2.store.storage import Store
from tests.dn2.scoring.synthetic import normal_vectors, write_shards
from tests.dn2.upkeep.nights import Nights, files
from tests.dn2.upkeep.pruning import age, kinds, later, write_manifest


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
        SchemaError, match=rf"nothing was deleted: .*/{folder}: got a link to {tmp_path}/gone, expected a folder"
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
    write_manifest(store, write_shards(store, normal_vectors(30, seed=1), embedder=f"net1-{1:012x}"))
    age(str(tmp_path / "store"), 10, "embeddings/*/*", "embeddings/*/*/*")
    (tmp_path / "store" / "embeddings" / f"net2-{2:012x}").mkdir()
    (tmp_path / "store" / "embeddings" / f"net2-{2:012x}" / "notes.txt").write_text("mine")
    assert dn2.prune(store, now=later()).kinds == ()
