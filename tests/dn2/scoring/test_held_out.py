from __future__ import annotations

import numpy as np
import pytest

import dn2
from dn2.config import FitConfig
from dn2.errors import BankError
from dn2.neighbors.bank import Bank
from dn2.neighbors.exact import search
from dn2.scoring.scores import mean_distance
from dn2.store.schemas import BANK_ROWS, CALIBRATION, EMBEDDINGS
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.neighbors.oracle import nearest_of
from tests.dn2.scoring.synthetic import normal_vectors, write_shards

COUNT = 10_500


def rows_of(store: Store, record: dn2.BankVersion) -> tuple[list[int], list[int], np.ndarray]:
    """Return the numbers of the images in the bank, those of the calibration images, and their scores."""
    names = store.names(f"banks/{record.name}/segments")
    (segment,) = (name for name in names if name.endswith(".parquet") and "-held" not in name)
    uris = read_table(store, f"banks/{record.name}/segments/{segment}", BANK_ROWS)["uri"].to_pylist()
    number_of = {image_id: int(uri.split("/")[-1][:-4]) for image_id, uri in _uris(store).items()}
    table = read_table(store, f"banks/{record.name}/versions/{record.version}.calibration.parquet", CALIBRATION)
    calibrated = [number_of[image_id] for image_id in table["image_id"].to_pylist()]
    return [int(uri.split("/")[-1][:-4]) for uri in uris], calibrated, table["score"].to_numpy()


def _uris(store: Store) -> dict[str, str]:
    found = {}
    for name in store.names("embeddings/synthetic-0123456789ab/normal"):
        path = f"embeddings/synthetic-0123456789ab/normal/{name}"
        for row in read_table(store, path, EMBEDDINGS, ["image_id", "uri"]).to_pylist():
            found[row["image_id"]] = row["uri"]
    return found


def test_above_ten_thousand_images_a_fifth_is_held_out(store: Store):
    vectors = normal_vectors(COUNT, seed=0)
    groups = [f"burst{row // 10}" if row < 2000 else None for row in range(COUNT)]
    contents = [f"picture{row // 2}" if row >= 9000 else f"picture-{row}" for row in range(COUNT)]
    embedded = write_shards(store, vectors, groups=groups, contents=contents, rejected=[5, 6])

    record = dn2.fit(embedded, store, bank="parts", config=FitConfig(index="exact"))
    bank, calibrated, scores = rows_of(store, record)

    assert (record.calibration, record.calibration_rows, record.rows) == ("held-out", len(calibrated), len(bank))
    assert sorted(bank + calibrated) == [row for row in range(COUNT) if row not in {5, 6}]
    assert len(calibrated) == pytest.approx(COUNT / 5, abs=10)
    assert {groups[row] for row in calibrated} & {groups[row] for row in bank} == {None}
    assert not {contents[row] for row in calibrated} & {contents[row] for row in bank}
    expected = mean_distance(search(vectors[calibrated], vectors[bank], 2).distances)
    np.testing.assert_array_equal(scores, expected)


def test_ten_thousand_images_are_still_left_out_one_by_one(store: Store):
    record = dn2.fit(write_shards(store, normal_vectors(10_000, seed=0)), store, bank="parts")

    assert (record.calibration, record.calibration_rows, record.rows) == ("leave-one-out", 10_000, 10_000)


@pytest.mark.parametrize("calibration", ["leave-one-out", "held-out"])
def test_fresh_normal_images_are_flagged_as_often_as_promised(store: Store, calibration: str):
    """With r of n + 1 allowed, the rate of one bank is spread like Beta(r, n + 1 - r): five deviations are allowed."""
    count, rate = 4000, 0.05
    embedded = write_shards(store, normal_vectors(count, seed=0))
    config = FitConfig(calibration=calibration, false_alarm_rate=rate)
    record = dn2.fit(embedded, store, bank="parts", config=config)
    bank = Bank.open(store, record, memory_gb=1)

    fresh = normal_vectors(5000, seed=1)
    names = [f"fresh{row}" for row in range(len(fresh))]
    flagged = mean_distance(nearest_of(bank, fresh, names).distances) > np.float32(record.threshold)

    spread = np.sqrt(rate * (1 - rate) * (1 / record.calibration_rows + 1 / len(fresh)))
    assert abs(flagged.mean() - rate) < 5 * spread


def test_small_banks_keep_their_promise_on_average(store: Store):
    """99 images and 1 %: each bank's own rate varies a lot, their mean must not be above."""
    rates = []
    for seed in range(25):
        embedded = write_shards(store, normal_vectors(99, seed=seed), name=f"n{seed}")
        record = dn2.fit(embedded, store, bank="parts")
        fresh = normal_vectors(2000, seed=1000 + seed)
        names = [f"fresh{row}" for row in range(len(fresh))]
        found = nearest_of(Bank.open(store, record, memory_gb=1), fresh, names)
        rates.append(float((mean_distance(found.distances) > np.float32(record.threshold)).mean()))

    assert 0.002 < np.mean(rates) < 0.01 + 3 * 0.01 / np.sqrt(len(rates))


def test_copies_in_two_groups_never_score_each_other(store: Store):
    """Groups go one way or the other as a whole, so copies can be parted: the search passes over them."""
    vectors = np.repeat(normal_vectors(200, seed=0), 2, axis=0)
    contents = [f"picture{row // 2}" for row in range(400)]
    embedded = write_shards(store, vectors, contents=contents, groups=[f"g{row}" for row in range(400)])

    record = dn2.fit(embedded, store, bank="parts", config=FitConfig(calibration="held-out"))
    bank, calibrated, scores = rows_of(store, record)

    assert {contents[row] for row in calibrated} & {contents[row] for row in bank}
    assert scores.min() > 0


@pytest.mark.parametrize("groups", [["a"] * 50 + ["b"] * 50, None])
def test_held_out_that_can_set_nothing_apart_is_refused(store: Store, groups: list[str] | None):
    count = 100 if groups else 4
    embedded = write_shards(store, normal_vectors(count, seed=0), groups=groups)

    message = (
        rf"calibration: got held-out with {count} normal images, too few or in too large groups to hold out a fifth, "
        r".*leave-one-out"
    )
    with pytest.raises(BankError, match=message):
        dn2.fit(embedded, store, bank="parts", config=FitConfig(calibration="held-out"))
