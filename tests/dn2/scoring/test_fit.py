from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import dn2
from dn2.config import FitConfig
from dn2.errors import BankError, ConfigError, RejectedError
from dn2.neighbors.bank import Bank
from dn2.store.schemas import REJECTS
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.dn2.neighbors.oracle import rows_of, vectors_of
from tests.dn2.scoring.synthetic import calibration, modified, normal_vectors, write_shards


@pytest.mark.parametrize(("count", "attainable"), [(10, 1 / 11), (50, 1 / 51)])
def test_small_bank_takes_the_largest_score_and_says_what_it_can_promise(
    store: Store, count: int, attainable: float, caplog: pytest.LogCaptureFixture
):
    embedded = write_shards(store, normal_vectors(count, seed=0))

    with caplog.at_level(logging.WARNING):
        record = dn2.fit(embedded, store, bank="parts")

    assert record.attainable_rate == pytest.approx(attainable)
    assert record.threshold == max(calibration(store, record).values())
    assert caplog.messages[0] == (
        f"bank parts: {count} calibration images cannot promise a false-alarm rate of 1.00%, only {attainable:.2%}; "
        f"99 images would do [rate-not-kept]"
    )
    assert [doubt.code for doubt in record.doubts] == ["rate-not-kept", *(["few-units"] if count < 20 else [])]


def test_99_images_promise_one_percent_without_a_warning(store: Store, caplog: pytest.LogCaptureFixture):
    record = dn2.fit(write_shards(store, normal_vectors(99, seed=0)), store, bank="parts")

    assert (record.attainable_rate, record.calibration, record.calibration_rows) == (0.01, "leave-one-out", 99)
    assert record.threshold == max(calibration(store, record).values())
    assert caplog.messages == []


@pytest.mark.parametrize(("rate", "enough"), [(0.03, 33), (0.07, 14), (0.25, 3), (0.3, 3)])
def test_number_of_images_that_would_do_really_does(
    store: Store, rate: float, enough: int, caplog: pytest.LogCaptureFixture
):
    config = FitConfig(false_alarm_rate=rate, k=1)
    dn2.fit(write_shards(store, normal_vectors(2, seed=0), name="few"), store, bank="few", config=config)
    assert caplog.messages[0].endswith(f"; {enough} images would do [rate-not-kept]")
    caplog.clear()

    record = dn2.fit(write_shards(store, normal_vectors(enough, seed=0)), store, bank="enough", config=config)

    assert record.attainable_rate == rate
    assert "rate-not-kept" not in [doubt.code for doubt in record.doubts]


def test_fit_again_gives_the_same_version_and_rewrites_nothing(store: Store, tmp_path: Path):
    embedded = write_shards(store, normal_vectors(40, seed=0), shard_rows=11)
    first, files = dn2.fit(embedded, store, bank="parts"), modified(tmp_path)

    assert dn2.fit(embedded, store, bank="parts") == first
    assert modified(tmp_path) == files


def test_fit_of_an_older_version_makes_it_current_again(store: Store):
    one, two = (write_shards(store, normal_vectors(30, seed=seed), name=f"n{seed}") for seed in (0, 1))
    first = dn2.fit(one, store, bank="parts")
    second = dn2.fit(two, store, bank="parts")
    assert dn2.open_bank(store, "parts") == second != first

    dn2.fit(one, store, bank="parts")

    assert dn2.open_bank(store, "parts") == first


def test_settings_that_change_scores_change_the_version(store: Store):
    embedded = write_shards(store, normal_vectors(30, seed=0))
    configs = [
        FitConfig(),
        FitConfig(k=3),
        FitConfig(metric="cosine"),
        FitConfig(false_alarm_rate=0.05),
        FitConfig(calibration="held-out"),
    ]
    versions = [dn2.fit(embedded, store, bank="parts", config=config).version for config in configs]

    assert len(set(versions)) == len(configs)
    memory = FitConfig(search_memory_mb=16, bank_memory_gb=1)
    assert dn2.fit(embedded, store, bank="parts", config=memory).version == versions[0]


def test_shard_size_changes_no_score(store: Store):
    vectors = normal_vectors(60, seed=0)
    one = write_shards(store, vectors, shard_rows=100)
    whole = calibration(store, dn2.fit(one, store, bank="whole"))
    pieces = calibration(store, dn2.fit(write_shards(store, vectors, shard_rows=7), store, bank="pieces"))

    assert pieces == whole


def test_rejected_and_superseded_images_are_not_in_the_bank(store: Store):
    embedded = write_shards(store, normal_vectors(40, seed=0), rejected=[3, 20], superseded=[0, 20, 39], shard_rows=15)
    record = dn2.fit(embedded, store, bank="parts")
    bank = Bank.open(store, record, memory_gb=1)

    expected = [row for row in range(40) if row not in {0, 3, 20, 39}]
    assert rows_of(bank)["uri"].to_pylist() == [f"file:///normal/{row}.png" for row in expected]
    np.testing.assert_array_equal(vectors_of(bank), normal_vectors(40, seed=0)[expected])
    assert (record.rows, record.calibration_rows, record.rejected) == (36, 36, 1)


@pytest.mark.parametrize(("count", "k"), [(1, 1), (2, 2), (5, 10)])
def test_too_few_images_for_k_are_refused_by_name(store: Store, count: int, k: int):
    embedded = write_shards(store, normal_vectors(count, seed=0))

    message = rf"k: got {k} with {count} different normal images in the bank, expected at least {k + 1}: an image is"
    with pytest.raises(BankError, match=message):
        dn2.fit(embedded, store, bank="parts", config=FitConfig(k=k))
    assert store.names("banks") == []


def test_copies_do_not_count_as_images(store: Store):
    embedded = write_shards(store, normal_vectors(20, seed=0), contents=["a", "b"] * 10)

    with pytest.raises(BankError, match="k: got 2 with 2 different normal images in the bank, expected at least 3"):
        dn2.fit(embedded, store, bank="parts")


def test_bank_name_that_cannot_be_a_folder_is_refused(store: Store):
    with pytest.raises(ConfigError, match=r"name '\.\./x' cannot be used"):
        dn2.fit(write_shards(store, normal_vectors(9, seed=0)), store, bank="../x")


@pytest.mark.parametrize(
    ("count", "rejected", "limits"),
    [
        (100, 21, {}),  # over 5 % and over 20
        (500, 26, {}),
        (30, 1, {"max_rejects": 0, "max_reject_rate": 0}),
    ],
)
def test_too_many_rejects_stop_after_the_list_is_written(store: Store, count: int, rejected: int, limits: dict):
    embedded = write_shards(store, normal_vectors(count, seed=0), rejected=range(rejected), shard_rows=40)
    most = max(limits.get("max_rejects", 20), int(limits.get("max_reject_rate", 0.05) * count))

    message = (
        rf"training images from file:///normal: got {rejected} of {count} that cannot be read, expected at most {most}"
        r"; see (\S+); repair or leave them out, or raise max_reject_rate or max_rejects"
    )
    with pytest.raises(RejectedError, match=message) as caught:
        dn2.fit(embedded, store, bank="parts", config=FitConfig(**limits))

    path = f"rejects/normal/{embedded.dataset.fingerprint}.parquet"
    assert store.uri_of(path) in str(caught.value)
    assert [(row["uri"], row["reject_reason"]) for row in read_table(store, path, REJECTS).to_pylist()] == [
        (f"file:///normal/{row}.png", "the file is empty") for row in range(rejected)
    ]
    assert store.names("banks") == []


@pytest.mark.parametrize(
    ("count", "rejected"),
    [(25, 20), (1000, 50)],  # 80 %, but not over 20; 50, but not over 5 %
)
def test_one_limit_alone_does_not_stop(store: Store, count: int, rejected: int):
    embedded = write_shards(store, normal_vectors(count, seed=0), rejected=range(rejected))

    record = dn2.fit(embedded, store, bank="parts")

    assert (record.rows, record.rejected) == (count - rejected, rejected)
    assert not store.exists("rejects")


def test_all_images_broken_is_said_so(store: Store):
    """Five of five are below both limits, and still no bank can be made."""
    embedded = write_shards(store, normal_vectors(5, seed=0), rejected=range(5))

    message = r"got 5 of 5 that cannot be read, expected some that can; see .*; repair or leave them out$"
    with pytest.raises(RejectedError, match=message):
        dn2.fit(embedded, store, bank="parts")
    assert read_table(store, f"rejects/normal/{embedded.dataset.fingerprint}.parquet", REJECTS).num_rows == 5


def test_superseded_rejects_do_not_count(store: Store):
    embedded = write_shards(store, normal_vectors(50, seed=0), rejected=range(25), superseded=range(20))

    assert dn2.fit(embedded, store, bank="parts").rejected == 5


def test_group_that_is_nearly_all_images_is_not_left_out(store: Store):
    """Leaving it out would leave one image for k = 2: its images are then scored one by one."""
    vectors = normal_vectors(20, seed=0)
    grouped = write_shards(store, vectors, name="grouped", groups=["burst"] * 19 + [None])
    single = write_shards(store, vectors, name="single")

    assert sorted(calibration(store, dn2.fit(grouped, store, bank="grouped")).values()) == sorted(
        calibration(store, dn2.fit(single, store, bank="single")).values()
    )


def test_groups_raise_the_threshold_where_images_come_in_bursts(store: Store):
    """Images of one burst are alike: scored against their own burst they would promise too much."""
    bursts = np.repeat(normal_vectors(40, seed=0), 5, axis=0)
    noise = np.random.default_rng(1).normal(0, 0.01, bursts.shape)
    vectors = (bursts + noise).astype(np.float16)
    groups = [f"burst{row // 5}" for row in range(200)]

    known = dn2.fit(write_shards(store, vectors, name="known", groups=groups), store, bank="known")
    shards = write_shards(store, vectors, name="unknown")
    found = dn2.fit(shards, store, bank="found")
    unknown = dn2.fit(shards, store, bank="unknown", config=FitConfig(units="images"))

    assert known.threshold > 100 * unknown.threshold
    assert (found.threshold, found.units, unknown.units) == (known.threshold, 40, None)
