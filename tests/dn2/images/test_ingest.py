from __future__ import annotations

import os
from pathlib import Path

import pytest

import dn2
from dn2.errors import ConfigError, EmptySourceError, NotFoundError, StoreError
from dn2.images.manifest import image_id
from dn2.progress import Advance, listening
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import read_config
from tests.dn2.images.listing import live_uris, names, part_rows, touch
from tests.dn2.sources.packing import write_tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source with a.png, b.png and sub/c.jpg."""
    touch(tmp_path / "source", "a.png", "b.png", "sub/c.jpg", content=b"first")
    return tmp_path / "source"


def counts(dataset: dn2.Dataset) -> dict[str, int]:
    return {name: getattr(dataset, name) for name in ("images", "added", "changed", "vanished")}


def test_first_ingest_writes_every_image(folder: Path, store: Store):
    found = dn2.ingest(folder, store)
    assert counts(found) == {"images": 3, "added": 3, "changed": 0, "vanished": 0}
    rows = part_rows(store, found)
    assert names(found, [row["uri"] for row in rows]) == ["a.png", "b.png", "sub/c.jpg"]
    status = (folder / "a.png").stat()
    version = f"5-{status.st_mtime_ns}"
    uri = f"file://{folder}/a.png"
    assert rows[0] == {
        "image_id": image_id(uri, version),
        "uri": uri,
        "version": version,
        "size": 5,
        "present": True,
        "group_id": None,
        "label": None,
    }


def test_part_says_which_dataset_and_source_it_describes(folder: Path, store: Store):
    found = dn2.ingest(folder, store, dataset="mine")
    config = read_config(store, f"manifests/mine/{found.parts[0]}.parquet", MANIFEST)
    assert config == {"dataset": "mine", "source": f"file://{folder}", "images": 3}


def test_each_part_says_how_many_images_there_were_when_it_was_written(folder: Path, store: Store):
    dn2.ingest(folder, store, dataset="mine")
    next(folder.rglob("*.png")).unlink()
    found = dn2.ingest(folder, store, dataset="mine")
    counts = [read_config(store, f"manifests/mine/{part}.parquet", MANIFEST)["images"] for part in found.parts]
    assert counts == [3, 2]


def test_unchanged_source_writes_nothing_and_says_so(
    folder: Path, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    first = dn2.ingest(folder, store)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    with caplog.at_level("INFO", "dn2"):
        second = dn2.ingest(folder, store)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    assert first.parts == second.parts
    assert first.fingerprint == second.fingerprint
    assert counts(second) == {"images": 3, "added": 0, "changed": 0, "vanished": 0}
    assert "nothing changed, nothing written" in caplog.text


def test_new_images_are_all_that_the_next_part_holds(folder: Path, store: Store):
    first = dn2.ingest(folder, store)
    touch(folder, "d.png", "sub/e.png")
    second = dn2.ingest(folder, store)
    assert counts(second) == {"images": 5, "added": 2, "changed": 0, "vanished": 0}
    assert first.parts == second.parts[:-1]
    assert names(second, [row["uri"] for row in part_rows(store, second)]) == ["d.png", "sub/e.png"]
    assert names(second, live_uris(store, second)) == ["a.png", "b.png", "d.png", "sub/c.jpg", "sub/e.png"]


def test_changed_image_is_written_again_with_another_id(folder: Path, store: Store):
    first = dn2.ingest(folder, store)
    touch(folder, "b.png", content=b"second")
    second = dn2.ingest(folder, store)
    assert counts(second) == {"images": 3, "added": 0, "changed": 1, "vanished": 0}
    (row,) = part_rows(store, second)
    assert names(second, [row["uri"]]) == ["b.png"]
    assert row["size"] == 6
    assert row["image_id"] != part_rows(store, first)[1]["image_id"]
    assert names(second, live_uris(store, second)) == ["a.png", "b.png", "sub/c.jpg"]


def test_same_size_but_other_time_is_a_change(folder: Path, store: Store):
    dn2.ingest(folder, store)
    os.utime(folder / "a.png", ns=(1, 1))
    assert counts(dn2.ingest(folder, store)) == {"images": 3, "added": 0, "changed": 1, "vanished": 0}


def test_vanished_image_leaves_a_tombstone(folder: Path, store: Store):
    first = dn2.ingest(folder, store)
    (folder / "b.png").unlink()
    second = dn2.ingest(folder, store)
    assert counts(second) == {"images": 2, "added": 0, "changed": 0, "vanished": 1}
    (tombstone,) = part_rows(store, second)
    gone = part_rows(store, first)[1]
    assert tombstone == {**gone, "version": "", "size": 0, "present": False}
    assert names(second, live_uris(store, second)) == ["a.png", "sub/c.jpg"]
    assert counts(dn2.ingest(folder, store)) == {"images": 2, "added": 0, "changed": 0, "vanished": 0}


def test_image_that_comes_back_unchanged_is_added_under_its_old_id(folder: Path, store: Store, tmp_path: Path):
    first = dn2.ingest(folder, store)
    (folder / "b.png").rename(tmp_path / "aside")
    dn2.ingest(folder, store)
    (tmp_path / "aside").rename(folder / "b.png")
    third = dn2.ingest(folder, store)
    assert counts(third) == {"images": 3, "added": 1, "changed": 0, "vanished": 0}
    assert part_rows(store, third) == [part_rows(store, first)[1]]
    assert names(third, live_uris(store, third)) == ["a.png", "b.png", "sub/c.jpg"]


def test_name_of_a_part_depends_only_on_what_it_says(folder: Path, tmp_path: Path):
    """Another store, another order of events: the same changes get the same name."""
    first = dn2.ingest(folder, tmp_path / "one", dataset="x")
    assert first.parts == dn2.ingest(folder, tmp_path / "two", dataset="y").parts
    assert first.parts[0].startswith("000001-")
    touch(folder, "d.png")
    second = dn2.ingest(folder, tmp_path / "one", dataset="x")
    assert second.parts == dn2.ingest(folder, tmp_path / "two", dataset="y").parts
    assert second.parts[1].startswith("000002-")
    (folder / "d.png").unlink()
    assert dn2.ingest(folder, tmp_path / "one", dataset="x").parts[2] != second.parts[1].replace("000002", "000003")


def test_every_file_is_told_to_the_listener(folder: Path, store: Store):
    steps: list[Advance] = []
    with listening(steps.append):
        dn2.ingest(folder, store)
    assert steps == [Advance("ingest", 1)] * 3


def test_emptied_source_is_an_error_not_a_mass_vanishing(folder: Path, store: Store):
    """A network drive that is not mounted looks like an empty folder."""
    first = dn2.ingest(folder, store, dataset="x")
    for path in ("a.png", "b.png", "sub/c.jpg"):
        (folder / path).unlink()
    with pytest.raises(EmptySourceError, match=r"got no image \(0 other files\), expected files named \*\.jpg"):
        dn2.ingest(folder, store, dataset="x")
    assert tuple(name.removesuffix(".parquet") for name in store.names("manifests/x")) == first.parts


def test_folder_without_images_is_an_error_that_writes_nothing(tmp_path: Path, store: Store):
    touch(tmp_path / "source", "notes.txt", "scan.heic", ".hidden.png")
    expected = rf"source file://{tmp_path}/source: got no image \(3 other files\)"
    with pytest.raises(EmptySourceError, match=expected):
        dn2.ingest(tmp_path / "source", store)
    assert not (tmp_path / "store").exists()


def test_folder_of_packed_images_is_an_error_that_says_how_to_give_them(tmp_path: Path, store: Store):
    folder = tmp_path / "a[1]"
    touch(folder, "deep/train.tar", "x.PARQUET")
    with pytest.raises(EmptySourceError) as caught:
        dn2.ingest(folder, store)
    assert str(caught.value).endswith(
        "in it or below it; images in .parquet and .tar files are given as "
        f"'file://{tmp_path}/a[[]1]/**/*.parquet' or 'file://{tmp_path}/a[[]1]/**/*.tar'"
    )
    write_tar(folder / "deep" / "train.tar", ("a.png", b"x"))
    assert dn2.ingest(str(caught.value).rpartition(" or ")[2].strip("'"), store).images == 1


def test_empty_folder_is_an_error_that_writes_nothing(tmp_path: Path, store: Store):
    (tmp_path / "source").mkdir()
    with pytest.raises(EmptySourceError, match=rf"source file://{tmp_path}/source: got no image \(0 other files\)"):
        dn2.ingest(tmp_path / "source", store)
    assert not (tmp_path / "store").exists()


def test_missing_folder_is_an_error_that_writes_nothing(tmp_path: Path, store: Store):
    with pytest.raises(NotFoundError, match=rf"source file://{tmp_path}/source: nothing is there: expected a folder"):
        dn2.ingest(tmp_path / "source", store)
    assert not (tmp_path / "store").exists()


def test_dataset_of_another_source_is_refused(folder: Path, tmp_path: Path, store: Store):
    first = dn2.ingest(folder, store, dataset="x")
    touch(tmp_path / "other", "a.png")
    expected = f"dataset 'x' in {store.uri}: got source file://{tmp_path}/other, expected file://{folder}; choose"
    with pytest.raises(ConfigError, match=expected):
        dn2.ingest(tmp_path / "other", store, dataset="x")
    assert store.names("manifests/x") == [f"{first.parts[0]}.parquet"]


@pytest.mark.parametrize("name", ["../x", ".x", "a/b", "x\n", "ä", "x" * 101])
def test_name_that_is_no_folder_name_is_refused(name: str, folder: Path, tmp_path: Path, store: Store):
    with pytest.raises(ConfigError, match="cannot be used: expected 1 to 100 letters"):
        dn2.ingest(folder, store, dataset=name)
    assert not (tmp_path / "store").exists()


def test_unwritable_store_is_a_store_error(folder: Path, tmp_path: Path):
    touch(tmp_path, "file")
    with pytest.raises(StoreError, match=f"store file://{tmp_path}/file/store: cannot"):
        dn2.ingest(folder, tmp_path / "file" / "store")


def test_foreign_files_among_the_parts_are_not_read(folder: Path, store: Store):
    first = dn2.ingest(folder, store, dataset="x")
    store.write("manifests/x/backup.parquet", b"")
    store.write("manifests/x/notes.txt", b"")
    assert first.parts == dn2.ingest(folder, store, dataset="x").parts


def test_sources_of_the_same_name_get_different_datasets(tmp_path: Path, store: Store):
    touch(tmp_path / "one" / "images", "a.png")
    touch(tmp_path / "two" / "images", "a.png")
    found = [dn2.ingest(tmp_path / parent / "images", store) for parent in ("one", "two")]
    assert found[0].name != found[1].name
    assert [dataset.name.startswith("images-") for dataset in found] == [True, True]


def test_relative_and_absolute_path_are_the_same_dataset(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    assert dn2.ingest("source", store).parts == dn2.ingest(f"{folder}/", store).parts == dn2.ingest(folder, store).parts


def test_two_names_with_one_uri_are_refused(tmp_path: Path):
    """A name that is not UTF-8 is written as \\xNN, which may be the name of another image."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/a\xff.png")).write_bytes(b"1")
    (folder / "a\\xff.png").write_bytes(b"2")
    with pytest.raises(dn2.SourceError, match=r"got two images with the URI .*a\\xff\.png: names that"):
        dn2.ingest(folder, tmp_path / "store")
