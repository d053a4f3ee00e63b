from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import dn2
from dn2.checks import fingerprint
from dn2.config import FitConfig
from dn2.errors import BankError, ConfigError, NotFoundError, SchemaError, StoreError
from dn2.neighbors.bank import Bank, prepared, shards_of
from dn2.neighbors.segments import keys
from dn2.neighbors.versions import open_bank, publish
from dn2.records import BankFiles
from dn2.store.storage import Store
from tests.dn2.neighbors.oracle import nearest_of, rows_of, vectors_of
from tests.dn2.scoring.synthetic import normal_vectors, write_shards

renamed: list[str] = []
sys.addaudithook(lambda event, values: renamed.append(str(values[1])) if event == "os.rename" else None)


def fit(store: Store, count: int = 30, *, seed: int = 0, bank: str = "parts", **settings) -> dn2.BankVersion:
    return dn2.fit(
        write_shards(store, normal_vectors(count, seed=seed), name=f"normal-{seed}"),
        store,
        bank=bank,
        config=FitConfig(false_alarm_rate=0.2, **settings),
    )


def test_current_version_is_opened_by_name(store: Store):
    first, second = fit(store, seed=0), fit(store, seed=1)

    assert open_bank(store, "parts") == second
    assert open_bank(store, "parts", version=first.version) == first


def test_missing_bank_names_those_there_are(store: Store):
    fit(store, bank="bolts")
    fit(store, bank="nuts")

    with pytest.raises(NotFoundError, match=r"bank 'screws': not in store file://.*, which has: bolts, nuts; make it"):
        open_bank(store, "screws")


def test_missing_bank_in_an_empty_store(store: Store):
    with pytest.raises(NotFoundError, match=r"bank 'screws': not in store .*, which has: none"):
        open_bank(store, "screws")


def test_missing_version_is_named(store: Store):
    fit(store)

    with pytest.raises(NotFoundError, match=r"no file 'banks/parts/versions/0{16}\.json'"):
        open_bank(store, "parts", version="0" * 16)


@pytest.mark.parametrize("version", ["0000", "../../x", "/etc/x", "a" * 15 + "\n", "a" * 16 + "\n", "s3://evil/x"])
def test_version_that_leads_elsewhere_is_refused(store: Store, version: str):
    with pytest.raises(ConfigError, match=r"bank 'parts': got version '.*, expected 16 hex digits"):
        open_bank(store, "parts", version=version)


@pytest.mark.parametrize("version", [None, "0000"])
def test_name_that_leads_elsewhere_is_refused(store: Store, version: str | None):
    with pytest.raises(ConfigError, match=r"name '\.\./parts' cannot be used"):
        open_bank(store, "../parts", version=version)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got a damaged file, expected JSON"),
        (b'{"schema": "dn2.ba', "got a damaged file, expected JSON"),
        (b"\xff\xfe\x00", "got a damaged file, expected JSON"),
        (b"[]", r"got \[\], expected a JSON object"),
        (b"{}", "got schema None version None, expected dn2.bank_version version 1"),
        (
            b'{"schema": "dn2.bank_version", "schema_version": 2}',
            "got schema dn2.bank_version version 2, expected dn2.bank_version version 1",
        ),
        (b'{"schema": "dn2.bank_version", "schema_version": 1}', "got dn2.bank_version without attainable_rate, calib"),
    ],
)
def test_damaged_version_file_is_refused(store: Store, content: bytes, message: str):
    record = fit(store)
    path = f"banks/parts/versions/{record.version}.json"
    store.write(path, content)

    with pytest.raises(SchemaError, match=message) as caught:
        open_bank(store, "parts")
    assert path in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 7}', b'"abc"'])
def test_damaged_pointer_is_refused(store: Store, content: bytes):
    fit(store)
    store.write("banks/parts/current.json", content)

    with pytest.raises(SchemaError, match=r"current\.json: got"):
        open_bank(store, "parts")


def test_version_file_comes_last_and_then_the_pointer(store: Store):
    """Whoever reads meanwhile sees the version before, or all of the new one."""
    embedded = write_shards(store, normal_vectors(30, seed=0))
    renamed.clear()
    version = dn2.fit(embedded, store, bank="parts", config=FitConfig(false_alarm_rate=0.2)).version

    written = [path.removeprefix(store.uri.removeprefix("file://") + "/banks/parts/") for path in renamed]
    assert [Path(path).suffix for path in written[:2]] == [".npy", ".parquet"]
    assert written[2:] == [
        f"versions/{version}.calibration.parquet",
        f"versions/{version}.probes.parquet",
        f"versions/{version}.json",
        "current.json",
    ]


def test_failed_fit_leaves_no_bank_and_can_be_repeated(store: Store, tmp_path: Path):
    """A file where a folder should be: the version cannot be written."""
    obstacle = tmp_path / "store/banks/parts/versions"
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    with pytest.raises(StoreError, match="cannot write 'banks/parts/versions/"):
        fit(store)
    with pytest.raises(NotFoundError, match=r"bank 'parts': not in store .*, which has: none"):
        open_bank(store, "parts")
    segments = {path: path.stat().st_mtime_ns for path in tmp_path.glob("store/banks/parts/segments/*")}

    obstacle.unlink()
    assert fit(store) == open_bank(store, "parts")
    assert {path: path.stat().st_mtime_ns for path in segments} == segments


def test_version_knows_its_parent_and_settings(store: Store, tmp_path: Path):
    first, second = fit(store, seed=0), fit(store, seed=1, k=3)

    documents = [
        json.loads((tmp_path / f"store/banks/parts/versions/{record.version}.json").read_text())
        for record in (first, second)
    ]
    assert [document["parent"] for document in documents] == [None, first.version]
    assert [document["config"]["k"] for document in documents] == [2, 3]


def test_bank_over_the_memory_budget_is_refused_with_numbers(store: Store):
    message = (
        r"bank of 30 rows: index exact needs 0\.00 GiB, expected at most bank_memory_gb = 1e-06; "
        r"raise it, set segment_rows to at most 3, or use index centroids"
    )
    with pytest.raises(BankError, match=message):
        fit(store, bank_memory_gb=1e-6)
    record = fit(store)
    message = r"a segment of 30 rows of length 16 needs 0\.00 GiB, expected at most bank_memory_gb = 1e-06; raise"
    with pytest.raises(BankError, match=message):
        Bank.open(store, record, memory_gb=1e-6)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_bank_holds_the_embeddings_as_the_metric_wants_them(store: Store, metric: str):
    bank = Bank.open(store, fit(store, metric=metric), memory_gb=1)

    given = normal_vectors(30, seed=0)
    lengths = np.linalg.norm(vectors_of(bank).astype(np.float64), axis=1)
    if metric == "l2":
        np.testing.assert_array_equal(vectors_of(bank), given)
    else:
        np.testing.assert_allclose(lengths, 1, atol=1e-3)
        np.testing.assert_allclose(
            vectors_of(bank), given / np.linalg.norm(given.astype(np.float64), axis=1)[:, None], atol=1e-3
        )


@settings(deadline=None)
@given(arrays(np.float16, (5, 33), elements=st.floats(-65504, 65504, width=16)))
def test_cosine_gives_length_one_or_zero(vectors: np.ndarray):
    lengths = np.linalg.norm(prepared(vectors, "cosine").astype(np.float64), axis=1)

    np.testing.assert_allclose(lengths, (np.abs(vectors).max(1) > 0).astype(float), atol=3e-3)


def test_ids_stay_with_their_vectors_over_shards_and_segments(store: Store):
    """A version may list several segments; each row is still found by its own vector."""
    first, second = fit(store, 12, seed=0), fit(store, 9, seed=1)
    segments = [
        json.loads(store.read(f"banks/parts/versions/{record.version}.json"))["segments"][0]
        for record in (first, second)
    ]
    both = dataclasses.replace(first, version="b" * 16, rows=21)
    publish(store, both, BankFiles(tuple(segments)))
    store.write(f"banks/parts/versions/{both.version}.calibration.parquet", _calibration(store, first))

    bank = Bank.open(store, both, memory_gb=1)
    found = nearest_of(bank, normal_vectors(9, seed=1)[:3], ["a", "b", "c"])

    assert found.rows[:, 0].tolist() == [12, 13, 14]
    assert [rows_of(bank)["uri"][row].as_py() for row in (0, 14)] == [
        "file:///normal-0/0.png",
        "file:///normal-1/2.png",
    ]
    ids = {rows_of(bank)["image_id"][row].as_py() for row in (0, 14)}
    assert sorted(shards_of(store, both, ids).values()) == [
        f"embeddings/synthetic-0123456789ab/{name}/000001-{fingerprint(name)}-000000000-{rows:09d}-01234567.parquet"
        for name, rows in (("normal-0", 12), ("normal-1", 9))
    ]


def _calibration(store: Store, record: dn2.BankVersion) -> bytes:
    return store.read(f"banks/parts/versions/{record.version}.calibration.parquet")


def test_version_that_disagrees_with_its_segments_is_refused(store: Store, tmp_path: Path):
    record = fit(store, 12)
    (segment,) = tmp_path.glob("store/banks/parts/segments/*.npy")
    np.save(segment, np.load(segment)[:-1])

    with pytest.raises(SchemaError, match="got a damaged or missing file, expected vectors with CRC-32"):
        Bank.open(store, record, memory_gb=1)


@given(st.lists(st.none() | st.text(max_size=4), max_size=20))
def test_keys_are_equal_where_texts_are(texts: list[str | None]):
    numbers = keys(texts)

    assert numbers.dtype == np.int64
    for text, number in zip(texts, numbers, strict=True):
        assert (number == -1) == (text is None)
        assert [other == number for other in numbers] == [other == text for other in texts]
