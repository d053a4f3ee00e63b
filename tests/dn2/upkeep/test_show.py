"""What a look at a store tells: of all kinds of things, of damaged ones, and without writing anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import dn2
from dn2.errors import ConfigError, NotFoundError, StoreError
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import writing
from dn2.upkeep.overview import Overview
from tests.dn2.images.listing import touch
from tests.dn2.upkeep.full import Full

opened: list[str] = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def check_all(found: Overview, full: Full) -> None:
    """Assert that all that was made is told, as it was made."""
    assert found.errors == ()
    assert found.store == full.store.uri
    (dataset,) = found.datasets
    assert (dataset.name, dataset.source, dataset.split) == ("photos", full.photos, None)
    assert (dataset.images, dataset.parts) == (3, 1)
    lots, parts = found.banks
    assert (lots.name, lots.kind, lots.current) == ("lots", "groups", full.groups.version)
    assert [version.made for version in lots.versions] == [full.groups]
    assert (parts.name, parts.kind, parts.current) == ("parts", "images", full.second.version)
    told = {version.version: version for version in parts.versions}
    assert {version.version: version.made for version in parts.versions} == {
        full.first.version: full.first,
        full.second.version: full.second,
    }
    assert [told[one.version].current for one in (full.first, full.second)] == [False, True]
    assert [told[one.version].parent for one in (full.first, full.second)] == [None, full.first.version]
    of_lots, of_parts = found.reports
    assert (of_lots.bank, of_lots.count) == ("lots", 1)
    assert (of_parts.bank, of_parts.count) == ("parts", 2)
    for reports, expected in ((of_lots.newest, [full.odd]), (of_parts.newest, full.reports)):
        assert {report.uri: report.made for report in reports} == {
            report.uri: type(report)(**{name: getattr(report, name) for name in report.__slots__} | {"worst": ()})
            for report in expected
        }
    assert found.cleanings.count == 1
    assert [(one.uri, one.made) for one in found.cleanings.newest] == [(full.cleaning.uri, full.cleaning)]


def test_everything_in_a_store_is_told_as_it_was_made(made_full: Full):
    found = dn2.show(made_full.store)
    check_all(found, made_full)
    assert dn2.show(made_full.store.uri) == found


def test_versions_and_reports_come_the_last_one_first_with_the_time_they_were_written(made_full: Full):
    found = dn2.show(made_full.store)
    times = [datetime.fromtimestamp(10**9 - age, UTC) for age in range(4)]
    parts = found.banks[1].versions
    assert [one.version for one in parts] == [made_full.second.version, made_full.first.version]
    assert [one.written for one in parts] == times[:2]
    newest = found.reports[1].newest
    assert [one.uri for one in newest] == [made_full.reports[1].uri, made_full.reports[0].uri]
    assert [one.written for one in newest] == times[2:]


def test_overview_comes_back_from_its_json(made_full: Full):
    adapter, found = TypeAdapter(Overview), dn2.show(made_full.store)
    assert adapter.validate_json(adapter.dump_json(found)) == found


@pytest.mark.parametrize("newest", [0, 1, 2, 5])
def test_only_the_newest_reports_are_read_and_all_are_counted(made_full: Full, newest: int):
    opened.clear()
    found = dn2.show(made_full.store, newest=newest)
    read = [path for path in opened if path.startswith(f"{made_full.store.uri.removeprefix('file://')}/reports/parts")]
    assert (found.reports[1].count, found.cleanings.count) == (2, 1)
    assert [one.uri for one in found.reports[1].newest] == [one.uri for one in reversed(made_full.reports)][:newest]
    assert len(found.cleanings.newest) == min(newest, 1)
    assert {Path(path).parent.name for path in read} == {one.uri[-16:] for one in found.reports[1].newest}
    assert {Path(path).name for path in read} <= {"summary.json"}


def test_negative_number_of_reports_is_refused(made_full: Full):
    with pytest.raises(ConfigError, match="newest: got -1, expected 0 or more"):
        dn2.show(made_full.store, newest=-1)


def test_of_parquet_files_only_the_last_manifest_part_and_the_history_are_opened(made_full: Full, full: Path):
    for path in full.rglob("*.parquet"):
        if not {"manifests", "history"} & set(path.parts):
            path.write_bytes(b"damaged")
    history = {str(path) for path in (full / "history").rglob("*.parquet")}
    assert history
    opened.clear()
    found = dn2.show(full)
    assert found.errors == ()
    assert {path for path in opened if path.endswith((".parquet", ".npy"))} == {
        str(full / "manifests" / "photos" / f"{made_full.dataset.parts[0]}.parquet"),
        *history,
    }


def test_store_that_may_only_be_read_is_told_and_not_a_byte_changes(made_full: Full, full: Path):
    before = files(full)
    for path in [full, *full.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    opened.clear()
    try:
        found = dn2.show(full)
    finally:
        for path in [full, *full.rglob("*")]:
            path.chmod(0o700 if path.is_dir() else 0o600)
    assert (found.errors, len(found.banks)) == ((), 2)
    assert files(full) == before


@pytest.mark.s3
def test_store_in_a_bucket_is_told_with_the_times_that_it_knows(s3_bucket: str, tmp_path: Path):
    full = Full(f"{s3_bucket}/{uuid.uuid4().hex}", tmp_path / "photos")
    found = dn2.show(full.store.uri)
    check_all(found, full)
    versions = [one.written for bank in found.banks for one in bank.versions]
    reports = [one.written for bank in found.reports for one in bank.newest]
    for written in (found.datasets[0].changed, *versions, *reports, found.cleanings.newest[0].written):
        assert written is not None
        assert written.tzinfo is not None
        assert written.year >= 2020


@pytest.mark.parametrize("place", ["missing", "empty", "else"])
def test_place_without_a_store_is_not_found_and_nothing_is_made(tmp_path: Path, place: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "photo.jpg").touch()
    before = files(tmp_path)
    with pytest.raises(NotFoundError, match=rf"store file://.*/{place}: got nothing that dn2 has made, expected data"):
        dn2.show(tmp_path / place)
    assert files(tmp_path) == before


def test_store_that_is_a_file_cannot_be_listed(tmp_path: Path):
    (tmp_path / "store").touch()
    with pytest.raises(StoreError, match=r"store file://.*/store: cannot list 'manifests'"):
        dn2.show(tmp_path / "store")


@pytest.mark.s3
def test_bucket_or_prefix_that_is_not_there_is_not_found(s3_bucket: str):
    for url in (f"{s3_bucket}/{uuid.uuid4().hex}", f"s3://{uuid.uuid4().hex}/store"):
        with pytest.raises(NotFoundError, match=f"store {url}: got nothing that dn2 has made"):
            dn2.show(url)


def test_bank_whose_first_training_has_not_ended_has_no_version(full: Path):
    (full / "banks" / "begun" / "segments").mkdir(parents=True)
    begun = dn2.show(full).banks[0]
    assert (begun.name, begun.kind, begun.current, begun.versions, begun.error) == ("begun", None, None, (), None)


def test_dataset_whose_first_listing_has_not_ended_has_no_part(full: Path):
    (full / "manifests" / "begun").mkdir()
    begun = dn2.show(full).datasets[0]
    assert (begun.name, begun.source, begun.images, begun.parts, begun.error) == ("begun", None, None, 0, None)


def test_reports_and_cleanings_that_are_not_finished_do_not_count(made_full: Full, full: Path):
    (full / made_full.path(made_full.reports[1].uri) / "summary.json").unlink()
    (full / made_full.path(made_full.odd.uri) / "summary.json").unlink()
    (full / made_full.path(made_full.cleaning.uri) / "summary.json").unlink()
    (full / "reports" / "parts" / "notes.txt").touch()
    found = dn2.show(full)
    assert [(reports.bank, reports.count) for reports in found.reports] == [("parts", 1)]
    assert (found.cleanings.count, found.errors) == (0, ())


def test_reports_of_a_bank_that_was_deleted_are_told(full: Path):
    shutil.rmtree(full / "banks" / "parts")
    found = dn2.show(full)
    assert [bank.name for bank in found.banks] == ["lots"]
    assert [(reports.bank, reports.count) for reports in found.reports] == [("lots", 1), ("parts", 2)]


def test_images_of_a_dataset_are_those_of_its_last_listing(tmp_path: Path):
    """Added, vanished and changed ones; of a table, only its split."""
    touch(tmp_path / "photos", *(f"{number}.png" for number in range(5)))
    dn2.ingest(tmp_path / "photos", tmp_path / "store", dataset="grown")
    (tmp_path / "photos" / "0.png").unlink()
    (tmp_path / "photos" / "1.png").write_text("changed")
    dn2.ingest(tmp_path / "photos", tmp_path / "store", dataset="grown")
    touch(tmp_path / "photos", "x.png", "y.png")
    last = dn2.ingest(tmp_path / "photos", tmp_path / "store", dataset="grown")
    (tmp_path / "list.csv").write_text("uri,split\nphotos/x.png,new\nphotos/y.png,old\nphotos/2.png,new\n")
    dn2.ingest(tmp_path / "list.csv", tmp_path / "store", dataset="listed", split="new")

    grown, listed = dn2.show(tmp_path / "store").datasets
    assert (grown.images, grown.parts, grown.split) == (last.images, 3, None) == (6, 3, None)
    assert (listed.images, listed.parts, listed.split) == (2, 1, "new")
    assert (grown.source, listed.source) == (f"file://{tmp_path}/photos", f"file://{tmp_path}/list.csv")
    (newest,) = (tmp_path / "store" / "manifests" / "grown").glob("000003-*")
    assert grown.changed == datetime.fromtimestamp(newest.stat().st_mtime, UTC)


def test_number_of_images_is_unknown_where_no_listing_has_written_it_down(tmp_path: Path):
    """Stores of older versions; and two listings at once that saw different images."""
    store = Store.open(tmp_path / "store")
    for path in ("old/000001-0000000000000000", "old/000002-0000000000000000"):
        with writing(store, f"manifests/{path}.parquet", MANIFEST, {"source": "file:///old"}):
            pass
    for path in ("two/000001-0000000000000000", "two/000001-1111111111111111"):
        with writing(store, f"manifests/{path}.parquet", MANIFEST, {"source": "file:///two", "images": 7}):
            pass
    assert [(one.name, one.images, one.error) for one in dn2.show(store).datasets] == [
        ("old", None, None),
        ("two", None, None),
    ]


def test_rolled_back_bank_points_at_the_older_version(made_full: Full, full: Path):
    dn2.use_version(full, "parts", made_full.first.version)
    bank = dn2.show(full).banks[1]
    assert bank.current == made_full.first.version
    assert [one.version for one in bank.versions if one.current] == [made_full.first.version]


def test_look_loads_neither_torch_nor_prefect(made_full: Full):
    heavy = ["torch", "openvino", "prefect", "sklearn", "scipy", "matplotlib"]
    code = f"import sys, dn2; dn2.show(sys.argv[1]); print([m for m in {heavy} if m in sys.modules])"
    command = [sys.executable, "-c", code, made_full.store.uri]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
