"""Merged manifest parts: the same images, embeddings and scores."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import dn2
from dn2 import layout
from dn2.errors import ConfigError, NotFoundError, SchemaError
from dn2.images.manifest import all_parts, part_names
from dn2.scoring.watermark import unscored
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import read_config, read_table, writing
from dn2.upkeep.compact import dataset_names
from tests.conftest import make_pictures
from tests.dn2.upkeep.nights import (
    CONFIG,
    RATE,
    Nights,
    embeddings,
    files,
    ingest,
    oracle,
    scores,
    union,
)


def tables(store: str, dataset: str = "inbox") -> list[list[dict[str, object]]]:
    opened = Store.open(store)
    return [
        read_table(opened, layout.manifest(dataset, part), MANIFEST).to_pylist() for part in part_names(opened, dataset)
    ]


def embedded_files(store: str) -> set[tuple[str, float | None]]:
    return {(file.path, file.modified) for file in Store.open(store).walk("embeddings")}


def test_union_embeddings_and_thumbnails_are_the_same_before_and_after(nights: Nights):
    before, vectors = union(nights.store), embeddings(nights.store)
    assert before == oracle(tables(nights.store))
    assert len(before) == 9
    done = dn2.compact(nights.store, dataset="inbox")
    assert (len(done.merged), done.images, done.shards, done.notes) == (3, 9, 2, ())
    assert part_names(Store.open(nights.store), "inbox") == (done.part,)
    assert union(nights.store) == before
    assert embeddings(nights.store) == vectors
    assert oracle(tables(nights.store)) == before


def test_size_told_is_that_of_the_new_files(nights: Nights):
    before = files(nights.store)
    done = dn2.compact(nights.store, dataset="inbox")
    new = {path: content for path, content in files(nights.store).items() if path not in before}
    marks = [path for path in new if path.startswith("watermarks/")]
    assert len(marks) == 1
    assert done.size.files == len(new) - len(marks) == 5
    assert done.size.bytes == sum(len(new[path]) for path in new if path not in marks)
    assert {path: new[path] for path in before if path in new} == {}
    assert {path: content for path, content in files(nights.store).items() if path in before} == before


def test_nothing_is_embedded_and_scores_are_the_same_byte_for_byte(nights: Nights):
    def scored() -> dict[str, tuple[object, ...]]:
        embedded = dn2.embed(ingest(nights.source, nights.store), nights.store, config=CONFIG, bank=nights.bank)
        return scores(nights.store, dn2.score(embedded, nights.store, bank=nights.bank))

    before = scored()
    dn2.compact(nights.store, dataset="inbox")
    there = embedded_files(nights.store)
    assert scored() == before
    assert embedded_files(nights.store) == there
    assert len(before) == 9


def test_bank_trained_afterwards_has_the_same_rows_vectors_and_threshold(nights: Nights):
    def trained(name: str) -> tuple[dn2.BankVersion, bytes]:
        dataset = ingest(nights.source, nights.store)
        bank = dn2.fit(dn2.embed(dataset, nights.store, config=CONFIG), nights.store, bank=name, config=RATE)
        (vectors,) = (Path(nights.store) / "banks" / name / "segments").glob("*.npy")
        return bank, vectors.read_bytes()

    before, vectors = trained("before")
    dn2.compact(nights.store, dataset="inbox")
    there = embedded_files(nights.store)
    after, same = trained("after")
    assert (after.threshold, after.rows, same) == (before.threshold, before.rows, vectors)
    assert after.version != before.version
    assert embedded_files(nights.store) == there


def test_second_run_changes_nothing(nights: Nights):
    done = dn2.compact(nights.store, dataset="inbox")
    before = files(nights.store)
    again = dn2.compact(nights.store, dataset="inbox")
    assert again == dn2.Compacted("inbox")
    assert done != again
    assert files(nights.store) == before


def test_dataset_of_one_part_is_left_as_it_is(nights: Nights):
    before = files(nights.store)
    assert dn2.compact(nights.store, dataset="normal") == dn2.Compacted("normal")
    assert files(nights.store) == before


def test_part_that_an_ingest_wrote_meanwhile_still_counts(nights: Nights):
    """It knew the parts before: its number is taken already, and its rows count after those of the merged part."""
    store = Store.open(nights.store)
    first = part_names(store, "inbox")[0]
    merged = dn2.compact(nights.store, dataset="inbox")
    late = f"{merged.part[:6]}-{'0' * 16}"
    row = {**tables(nights.store)[0][0], "uri": "file:///late.png", "image_id": "e" * 32}
    with writing(
        store, layout.manifest("inbox", late), MANIFEST, read_config(store, layout.manifest("inbox", first), MANIFEST)
    ) as file:
        file.write({name: [value] for name, value in row.items()})
    assert part_names(store, "inbox") == (merged.part, late)
    assert "file:///late.png" in union(nights.store)
    assert unscored(dn2.Dataset("inbox", "", part_names(store, "inbox"), 10), store, bank=nights.bank) == (late,)


def test_next_ingest_takes_the_next_number_and_merging_again_takes_it_in(nights: Nights, tmp_path: Path):
    source = tmp_path / "inbox"
    make_pictures(source, 3)
    for count in (4, 5):
        dn2.ingest(source, nights.store, dataset="grown")
        make_pictures(source, count)
    first = dn2.compact(nights.store, dataset="grown")
    dataset = dn2.ingest(source, nights.store, dataset="grown")
    assert dataset.parts[0] == first.part
    assert dataset.parts[1].startswith("000003-")
    (source / "000.png").unlink()
    dn2.ingest(source, nights.store, dataset="grown")
    before = union(nights.store, "grown")
    second = dn2.compact(nights.store, dataset="grown")
    assert second.merged[0] == first.part
    assert second.images == 4
    assert union(nights.store, "grown") == before
    known = all_parts(Store.open(nights.store), "grown")
    assert known.counted == (second.part,)
    assert set(known.replaced) == {*first.merged, *second.merged}
    for name in first.merged:  # it does not matter which of the old files are still there
        (Path(nights.store) / "manifests" / "grown" / f"{name}.parquet").unlink()
    assert union(nights.store, "grown") == before


def test_merge_that_knows_less_than_another_one_does_not_count(nights: Nights, tmp_path: Path):
    """Two at once in spite of the lock: an image that vanished in the part that one of them did not know stays so."""
    source = tmp_path / "inbox"
    make_pictures(source, 4)
    dn2.ingest(source, nights.store, dataset="twice")
    make_pictures(source, 5)
    dn2.ingest(source, nights.store, dataset="twice")
    shutil.copytree(nights.store, tmp_path / "copy")
    (source / "000.png").unlink()
    dn2.ingest(source, nights.store, dataset="twice")
    less = dn2.compact(tmp_path / "copy", dataset="twice")
    more = dn2.compact(nights.store, dataset="twice")
    path = f"manifests/twice/{less.part}.parquet"
    shutil.copy(tmp_path / "copy" / path, Path(nights.store) / path)
    assert part_names(Store.open(nights.store), "twice") == (more.part,)
    assert f"file://{source}/000.png" not in union(nights.store, "twice")


def test_parts_that_are_not_embedded_like_the_others_are_left_apart(nights: Nights):
    store = Store.open(nights.store)
    last = part_names(store, "inbox")[-1]
    for path in (Path(nights.store) / "embeddings" / nights.bank.embedder / "inbox").glob(f"{last}-*"):
        path.unlink()
    before = embeddings_of_first(nights, 2)
    done = dn2.compact(nights.store, dataset="inbox")
    assert len(done.merged) == 2
    (note,) = done.notes
    assert note == (
        f"the manifest parts from {last} on were not merged: embedder {nights.bank.embedder} has embedded only some "
        f"of them, or with different settings"
    )
    dn2.embed(ingest(nights.source, nights.store), nights.store, config=CONFIG)
    after = embeddings(nights.store)
    assert {name: after[name] for name in before} == before


def embeddings_of_first(nights: Nights, count: int) -> dict[str, tuple[object, ...]]:
    """The embeddings of the images that live in the first parts, made whole first in a copy."""
    copy = f"{nights.store}-copy"
    shutil.copytree(nights.store, copy)
    dn2.embed(ingest(nights.source, copy), copy, config=CONFIG)
    first = {row["image_id"] for part in tables(copy)[:count] for row in part}
    last = {row["image_id"] for part in tables(copy)[count:] for row in part}
    return {name: row for name, row in embeddings(copy).items() if name in first - last}


def test_other_settings_that_have_embedded_everything_are_copied_too_and_the_rest_is_told(nights: Nights):
    dataset = ingest(nights.source, nights.store)
    whole, thumbs = CONFIG.model_copy(update={"shard_size": 4}), CONFIG.model_copy(update={"thumbnail_px": 32})
    dn2.embed(dataset, nights.store, config=whole)
    first = dn2.Dataset(dataset.name, dataset.source, dataset.parts[:1], 6)
    dn2.embed(first, nights.store, config=thumbs)
    before = embeddings(nights.store, config=whole)
    done = dn2.compact(nights.store, dataset="inbox")
    assert len(done.merged) == 3
    assert done.shards == 2 + 3
    (note,) = done.notes
    assert note.startswith(f"4 images of 9 have embeddings of {nights.bank.embedder} with shard_size 5, which were")
    assert embeddings(nights.store, config=whole) == before


def test_dataset_that_nobody_has_embedded_is_merged_without_shards(nights: Nights, tmp_path: Path):
    make_pictures(tmp_path / "new", 2)
    dn2.ingest(tmp_path / "new", nights.store, dataset="new")
    make_pictures(tmp_path / "new", 4)
    dn2.ingest(tmp_path / "new", nights.store, dataset="new")
    done = dn2.compact(nights.store, dataset="new")
    assert (done.images, done.shards, done.size.files) == (4, 0, 1)


def test_shard_that_holds_other_images_is_refused_and_nothing_becomes_visible(nights: Nights):
    folder = Path(nights.store) / "embeddings" / nights.bank.embedder / "inbox"
    parts = part_names(Store.open(nights.store), "inbox")
    second, third = (
        next(path for path in folder.glob(f"{part}-*") if ".thumbnails." not in path.name) for part in parts[1:]
    )
    shutil.copy(third, second)
    with pytest.raises(SchemaError, match=rf"file://{second}: got other images than rows 0 to \d of .*{parts[1]}"):
        dn2.compact(nights.store, dataset="inbox")
    assert part_names(Store.open(nights.store), "inbox") == parts


def test_unknown_dataset_and_bad_name_are_refused(nights: Nights):
    with pytest.raises(NotFoundError, match=r"dataset 'nope': not in store file://.*, which has: inbox, normal"):
        dn2.compact(nights.store, dataset="nope")
    with pytest.raises(ConfigError, match=r"name '\.\./x' cannot be used"):
        dn2.compact(nights.store, dataset="../x")


def test_foreign_folders_are_passed_over_and_damaged_datasets_come_last(
    nights: Nights, caplog: pytest.LogCaptureFixture
):
    root = Path(nights.store) / "manifests"
    shutil.copytree(root / "inbox", root / "we ird")
    shutil.copytree(root / "inbox", root / "damaged")
    (root / "damaged" / f"000009-{1:016x}-all.parquet").write_bytes(b"x")
    shutil.copytree(root / "inbox", root / "empty file")
    shutil.copytree(root / "inbox", root / "a-torn-one")
    next((root / "a-torn-one").iterdir()).write_bytes(b"")
    (root / "notes.txt").write_text("mine")
    (root / "nothing").mkdir()
    assert dataset_names(nights.store) == ["inbox", "normal", "a-torn-one", "damaged"]
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(" cannot be used: ")[0] for line in told] == [
        f"store file://{nights.store}: a folder of manifests was passed over: name '{name}'"
        for name in ("empty file", "we ird")
    ]


@pytest.mark.parametrize(
    "broken",
    [{"replaces": "x"}, {"replaces": []}, {}, {"replaces": [1]}, {"replaces": ["../../x"]}, {"replaces": ["/etc/x"]}],
    ids=str,
)
def test_merged_part_that_does_not_say_what_it_stands_for_is_refused(nights: Nights, broken: dict[str, object]):
    store = Store.open(nights.store)
    with writing(store, layout.manifest("inbox", f"000009-{'a' * 16}-all"), MANIFEST, broken):
        pass
    with pytest.raises(SchemaError, match=r"-all.parquet: got replaces = .*, expected the names of manifest parts"):
        part_names(store, "inbox")
