"""A bank that grows and shrinks gives what one gives that is trained on the same images."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest

import dn2
from dn2.config import FitConfig
from dn2.errors import BankError, EmbedderError, NotFoundError, RejectedError
from dn2.neighbors.bank import Bank
from dn2.neighbors.versions import open_bank, read_version, use_version
from dn2.scoring.scores import mean_distance
from dn2.store.schemas import CALIBRATION
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.neighbors.oracle import brute_force, nearest_of, rows_of, vectors_of
from tests.dn2.scoring.synthetic import normal_vectors, write_shards

EXACT = FitConfig(index="exact", false_alarm_rate=0.1)
HELD = EXACT.model_copy(update={"calibration": "held-out"})


def image_id(name: str, row: int) -> str:
    return hashlib.sha256(f"{name}-{row}".encode()).hexdigest()[:32]


def calibration(store: Store, record: dn2.BankVersion) -> dict[str, float]:
    table = read_table(store, f"banks/parts/versions/{record.version}.calibration.parquet", CALIBRATION)
    return dict(zip(table["image_id"].to_pylist(), table["score"].to_pylist(), strict=True))


def train(store: Store, count: int = 40, config: FitConfig = EXACT, **how: object) -> dn2.BankVersion:
    return dn2.fit(write_shards(store, normal_vectors(count, seed=0), **how), store, bank="parts", config=config)


def test_added_images_are_neighbours_and_calibrate_as_if_trained_with_them(store: Store):
    before = train(store)
    growth = dn2.add(write_shards(store, normal_vectors(25, seed=1), name="more"), store, bank="parts")

    record = open_bank(store, "parts")
    assert growth.bank == record
    assert (growth.added, growth.held_out, growth.known, growth.copies) == (25, 0, 0, 0)
    assert (record.rows, record.segment_count, record.calibration_rows) == (65, 2, 65)
    assert read_version(store, "parts", record.version, dn2.BankVersion)[1].parent == before.version

    both = np.concatenate([normal_vectors(40, seed=0), normal_vectors(25, seed=1)])
    names = [image_id("normal", row) for row in range(40)] + [image_id("more", row) for row in range(25)]
    own = np.arange(65)[None]
    expected = mean_distance(brute_force(both, both, 2, own, own)[1])
    assert calibration(store, record) == dict(zip(names, expected.tolist(), strict=True))
    assert record.threshold == np.sort(expected)[-6]
    queries = normal_vectors(20, seed=2)
    found = nearest_of(Bank.open(store, record, memory_gb=1), queries, ["q"] * 20)
    np.testing.assert_array_equal(found.rows, brute_force(queries, both, 2)[0])


def test_old_version_stays_as_it_was_and_can_be_used_again(store: Store):
    before = train(store)
    scores = calibration(store, before)
    dn2.add(write_shards(store, normal_vectors(9, seed=1), name="more"), store, bank="parts")

    assert open_bank(store, "parts", version=before.version) == before
    assert calibration(store, before) == scores
    assert use_version(store, "parts", before.version) == before
    again = dn2.add(write_shards(store, normal_vectors(5, seed=3), name="other"), store, bank="parts")
    parent = read_version(store, "parts", again.bank.version, dn2.BankVersion)[1].parent
    assert (again.bank.rows, parent) == (45, before.version)


def test_a_fifth_of_the_added_images_is_held_out_where_the_trained_ones_were(store: Store):
    before = train(store, 100, HELD)
    growth = dn2.add(write_shards(store, normal_vectors(50, seed=1), name="more"), store, bank="parts")

    record = growth.bank
    assert (growth.added, growth.held_out) == (40, 10)
    assert (record.rows, record.calibration_rows) == (before.rows + 40, before.calibration_rows + 10)
    bank = Bank.open(store, record, memory_gb=1)
    scores = calibration(store, record)
    for segment in bank.held:
        expected = mean_distance(brute_force(np.array(segment.vectors), vectors_of(bank), 2)[1])
        assert [scores[name] for name in segment.table["image_id"].to_pylist()] == expected.tolist()


@pytest.mark.parametrize("config", [EXACT, HELD])
def test_nothing_changes_when_nothing_is_new(store: Store, config: FitConfig):
    train(store, 100, config)
    more = write_shards(store, normal_vectors(25, seed=1), name="more")
    first = dn2.add(more, store, bank="parts")

    second = dn2.add(more, store, bank="parts")

    assert (second.bank, second.known, second.added, second.copies) == (first.bank, 25, 0, 0)
    assert open_bank(store, "parts") == first.bank


def test_copies_are_told_and_not_added(store: Store):
    """Copies of a bank image, of a held-out one, and of each other."""
    train(store, 100, HELD, contents=[f"picture{row}" for row in range(100)])
    contents = [f"picture{row}" for row in range(100)] + ["new", "new", "newer"]
    vectors = np.concatenate([normal_vectors(100, seed=0), normal_vectors(3, seed=1)])

    growth = dn2.add(write_shards(store, vectors, name="more", contents=contents), store, bank="parts")

    assert (growth.added, growth.held_out, growth.copies) == (2, 0, 101)
    assert growth.copy_uris == tuple(f"file:///more/{row}.png" for row in range(10))


def test_two_adds_at_once_lose_nothing(store: Store):
    train(store)
    more = [write_shards(store, normal_vectors(7, seed=number), name=f"more{number}") for number in range(1, 5)]
    threads = [threading.Thread(target=dn2.add, args=(one, store), kwargs={"bank": "parts"}) for one in more]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    record = open_bank(store, "parts")
    assert (record.rows, record.segment_count, record.calibration_rows) == (68, 5, 68)
    names = set(rows_of(Bank.open(store, record, memory_gb=1))["image_id"].to_pylist())
    assert {image_id(f"more{number}", row) for number in range(1, 5) for row in range(7)} <= names


def test_removed_images_are_neither_neighbours_nor_calibrate(store: Store):
    train(store)
    wanted = [image_id("normal", row) for row in (3, 17)]

    growth = dn2.remove(store, wanted, bank="parts")

    record, left = open_bank(store, "parts"), np.delete(np.arange(40), [3, 17])
    assert (growth.bank, growth.removed, record.rows, record.removed) == (record, 2, 38, 2)
    vectors = normal_vectors(40, seed=0)
    own = np.arange(38)[None]
    expected = mean_distance(brute_force(vectors[left], vectors[left], 2, own, own)[1])
    assert list(calibration(store, record).values()) == expected.tolist()
    found = nearest_of(Bank.open(store, record, memory_gb=1), vectors, ["q"] * 40)
    np.testing.assert_array_equal(found.rows, left[brute_force(vectors, vectors[left], 2)[0]])


def test_removed_image_comes_back_when_it_is_added(store: Store):
    before = train(store)
    dn2.remove(store, [image_id("normal", 3)], bank="parts")

    growth = dn2.add(write_shards(store, normal_vectors(40, seed=0)), store, bank="parts")

    assert (growth.added, growth.known, growth.bank.rows, growth.bank.removed) == (1, 39, 40, 0)
    assert (growth.bank.threshold, growth.bank.calibration_rows) == (before.threshold, 40)
    assert calibration(store, growth.bank) == calibration(store, before)


def test_held_out_image_can_be_removed_too(store: Store):
    before = train(store, 100, HELD)
    name = next(iter(calibration(store, before)))

    after = dn2.remove(store, [name], bank="parts").bank

    assert (after.rows, after.calibration_rows) == (before.rows, before.calibration_rows - 1)
    assert name not in calibration(store, after)


def test_unknown_image_is_named_and_nothing_is_removed(store: Store):
    before = train(store)

    with pytest.raises(
        BankError, match="image ids: got nonsense, expected ids of images in bank 'parts'; reports list"
    ):
        dn2.remove(store, [image_id("normal", 3), "nonsense"], bank="parts")
    with pytest.raises(BankError, match="image ids: got none"):
        dn2.remove(store, [], bank="parts")
    assert open_bank(store, "parts") == before


def test_bank_keeps_enough_images_to_score_with(store: Store):
    before = train(store, 4)

    with pytest.raises(BankError, match="k: got 2, expected at most the bank rows that are no copies of the query"):
        dn2.remove(store, [image_id("normal", row) for row in range(2)], bank="parts")
    assert open_bank(store, "parts") == before


def test_bank_of_centres_grows_by_images_and_keeps_its_centres(store: Store):
    config = FitConfig(index="centroids", centroids=5, false_alarm_rate=0.1)
    before = train(store, 100, config)
    growth = dn2.add(write_shards(store, normal_vectors(20, seed=1), name="more"), store, bank="parts")

    assert (growth.added, growth.held_out, growth.bank.rows) == (20, 0, before.rows + 20)
    centre = rows_of(Bank.open(store, before, memory_gb=1))["image_id"].to_pylist()[0]
    with pytest.raises(BankError, match="its first images are centres, which cannot be removed"):
        dn2.remove(store, [centre], bank="parts")


def test_bank_of_cells_grows_by_cells(store: Store):
    random = np.random.default_rng(0)
    places = random.normal(0, 3, (40, 16))
    first, second = (
        (places[random.integers(40, size=count)] + random.normal(size=(count, 16))).astype(np.float16)
        for count in (3000, 5000)
    )
    config = FitConfig(index="ivf", nlist=30, recall=0.9, calibration="held-out")
    before = dn2.fit(write_shards(store, first), store, bank="parts", config=config)
    record = dn2.add(write_shards(store, second, name="more"), store, bank="parts").bank

    bank = Bank.open(store, record, memory_gb=1)
    assert [segment.divided for segment in bank.segments] == [True, before.nprobe < 4000 // 200]
    assert record.fidelity.recall > 0.85
    assert record.fidelity != before.fidelity


def test_images_of_another_embedder_are_refused(store: Store):
    train(store)
    other = write_shards(store, normal_vectors(9, seed=1), name="more", embedder="another-0123456789ab")

    with pytest.raises(EmbedderError, match="got embeddings of another-0123456789ab, expected those of synthetic"):
        dn2.add(other, store, bank="parts")


def test_too_many_unreadable_images_are_refused(store: Store):
    before = train(store)
    with pytest.raises(RejectedError, match="got 30 of 40 that cannot be read"):
        dn2.add(write_shards(store, normal_vectors(40, seed=1), name="more", rejected=range(30)), store, bank="parts")
    assert open_bank(store, "parts") == before


def test_bank_that_is_not_there_is_named(store: Store):
    with pytest.raises(NotFoundError, match="bank 'parts': not in store"):
        dn2.add(write_shards(store, normal_vectors(9, seed=1)), store, bank="parts")
    with pytest.raises(NotFoundError, match="bank 'parts': not in store"):
        dn2.remove(store, ["x"], bank="parts")


def test_groups_stay_apart_in_a_bank_that_grows(store: Store):
    """An added image of a trained image's group does not calibrate with it as its neighbour."""
    vectors = normal_vectors(40, seed=0)
    own = EXACT.model_copy(update={"units": "images"})  # groups only
    train(store, config=own, groups=[f"part{row // 2}" for row in range(40)])
    near = (vectors.astype(np.float32) + 0.01).astype(np.float16)
    record = dn2.add(
        write_shards(store, near, name="more", groups=[f"part{row // 2}" for row in range(40)]), store, bank="parts"
    ).bank

    both, group = np.concatenate([vectors, near]), np.tile(np.arange(40) // 2, 2)[None]
    expected = mean_distance(brute_force(both, both, 2, group, group)[1])
    assert list(calibration(store, record).values()) == expected.tolist()


def test_training_again_tells_that_what_was_added_is_not_in_it(store: Store, caplog: pytest.LogCaptureFixture):
    trained = train(store)
    added = dn2.add(write_shards(store, normal_vectors(9, seed=1), name="more"), store, bank="parts").bank
    removed = dn2.remove(store, [image_id("more", 3)], bank="parts").bank
    caplog.clear()

    assert train(store) == trained

    told = [record.getMessage() for record in caplog.records if "without what was added" in record.getMessage()]
    assert told == [
        f"bank parts: version {trained.version} is the current one again, without what was added or removed since; "
        f"dn2 bank use {removed.version} brings that back"
    ]
    assert added.version != removed.version
    caplog.clear()
    train(store)
    train(store, 30, name="others")
    assert "without what was added" not in caplog.text


def test_removed_held_out_image_comes_back(store: Store):
    before = train(store, 100, HELD)
    name = next(iter(calibration(store, before)))
    dn2.remove(store, [name], bank="parts")

    growth = dn2.add(write_shards(store, normal_vectors(100, seed=0)), store, bank="parts")

    assert (growth.known, growth.added + growth.held_out) == (99, 1)
    assert growth.bank.rows + growth.bank.calibration_rows == 100


def test_same_bytes_as_a_removed_image_are_no_copy(store: Store):
    train(store)
    dn2.remove(store, [image_id("normal", 3)], bank="parts")
    renamed = write_shards(
        store, normal_vectors(4, seed=0), name="more", contents=[f"normal-{row}" for row in range(4)]
    )

    growth = dn2.add(renamed, store, bank="parts")

    assert (growth.added, growth.copies, growth.bank.rows) == (1, 3, 40)


@pytest.mark.parametrize("config", [EXACT, HELD])
def test_image_that_cleaning_dropped_can_be_added(store: Store, config: FitConfig):
    embedded = write_shards(store, normal_vectors(100, seed=0))
    cleaning = dn2.clean(embedded, store, config=dn2.CleanConfig(rule="paper"))
    before = dn2.fit(embedded, store, bank="parts", config=config, cleaning=cleaning)

    growth = dn2.add(embedded, store, bank="parts")

    assert growth.added > 0
    assert growth.known + growth.added + growth.held_out == 100
    record = growth.bank
    assert record.rows == before.rows + growth.added
    assert len(calibration(store, record)) == record.calibration_rows
    rows = rows_of(Bank.open(store, record, memory_gb=1))["image_id"].to_pylist()
    assert len(set(rows)) == len(rows)
    if config is EXACT:
        both = normal_vectors(100, seed=0)
        own = np.arange(100)[None]
        expected = mean_distance(brute_force(both, both, 2, own, own)[1])
        scores = calibration(store, record)
        assert [scores[image_id("normal", row)] for row in range(100)] == expected.tolist()


def test_version_whose_cells_are_gone_is_not_used_again(store: Store, tmp_path: Path):
    record = train(store, 200, FitConfig(index="ivf", nlist=5))
    train(store, 30, name="others")
    (cells,) = tmp_path.glob("store/banks/parts/segments/*.cells.parquet")
    cells.unlink()

    with pytest.raises(NotFoundError, match=r"its file .*cells\.parquet is missing"):
        use_version(store, "parts", record.version)


def test_versions_with_another_threshold_share_their_segments(store: Store, tmp_path: Path):
    embedded = write_shards(store, normal_vectors(100, seed=0))
    for rate, k in ((0.1, 2), (0.2, 2), (0.1, 3)):
        config = FitConfig(index="ivf", nlist=4, false_alarm_rate=rate, k=k)
        dn2.fit(embedded, store, bank="parts", config=config)

    assert len(list(tmp_path.glob("store/banks/parts/segments/*.npy"))) == 1
    assert len(list(tmp_path.glob("store/banks/parts/versions/*.json"))) == 3
