"""Several writers of one bank at the same time."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from pydantic import TypeAdapter

import dn2
from dn2 import layout
from dn2.neighbors.bank import Bank
from dn2.records import Embedded
from dn2.scoring.calibration import Calibration
from dn2.store import lock
from dn2.store.storage import Store
from tests.dn2.neighbors.oracle import vectors_of
from tests.dn2.scoring.synthetic import normal_vectors, write_shards
from tests.dn2.store.holders import go_on, heard, process

BATCHES = TypeAdapter(list[Embedded])
FIT = """
import sys
from pathlib import Path
from pydantic import TypeAdapter
from dn2.records import Embedded
from dn2.scoring.fit import fit
from dn2.store import lock
lock._POLL = 0.005
batches = TypeAdapter(list[Embedded]).validate_json(Path(sys.argv[2]).read_bytes())
print("ready", flush=True)
sys.stdin.readline()
print(*(fit(embedded, sys.argv[1], bank="parts").version for embedded in batches), flush=True)
"""


def batches(store: Store, count: int, *, rows: int = 200) -> list[Embedded]:
    """Datasets of which each makes another version of a bank."""
    return [write_shards(store, normal_vectors(rows, seed=seed), name=f"n{seed}") for seed in range(count)]


def chain(store: Store) -> list[str]:
    """The current version of the bank, its parent, and so on to the first one."""
    version = json.loads(store.read(layout.bank_pointer("parts")))["version"]
    found = []
    while version is not None:
        found.append(version)
        version = json.loads(store.read(layout.bank_version("parts", version)))["parent"]
        assert version not in found
    return found


def check_whole(store: Store, version: str, seed: int, *, rows: int = 200) -> None:
    """Everything a version names is there, and holds the vectors it was made from."""
    record = dn2.open_bank(store, "parts", version=version)
    bank = Bank.open(store, record, memory_gb=1)
    calibration = Calibration.read(store, "parts", version)
    np.testing.assert_array_equal(vectors_of(bank), normal_vectors(rows, seed=seed))
    assert len(calibration.scores) == rows
    assert store.exists(layout.bank_probes("parts", version))


def test_two_processes_train_one_bank(tmp_path: Path):
    """Ten versions each: all survive, each has the one before as its parent, and the pointer names the last."""
    store = Store.open(tmp_path / "store")
    made = batches(store, 20)
    with ExitStack() as stack:
        started = []
        for number in range(2):
            (tmp_path / f"{number}").write_bytes(BATCHES.dump_json(made[10 * number : 10 * number + 10]))
            started.append(stack.enter_context(process(FIT, store.uri, tmp_path / f"{number}", says="ready")))
        for fits in started:
            go_on(fits)
        versions = [version for fits in started for version in heard(fits).split()]
    assert len(set(versions)) == 20
    assert sorted(chain(store)) == sorted(versions)
    for seed, version in enumerate(versions):
        check_whole(store, version, seed)
    assert store.names("banks/parts/versions") == sorted(
        f"{version}{suffix}" for version in versions for suffix in (".calibration.parquet", ".json", ".probes.parquet")
    )


def fits_at_once(store: Store, embedded: list[Embedded]) -> list[str]:
    start = Barrier(len(embedded))

    def one(batch: Embedded) -> str:
        mine = Store.open(store.uri)
        mine.exists("banks")
        start.wait()
        return dn2.fit(batch, mine, bank="parts").version

    with ThreadPoolExecutor(len(embedded)) as pool:
        return list(pool.map(one, embedded))


def test_many_threads_train_one_bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_POLL", 0.01)
    store = Store.open(tmp_path / "store")
    versions = fits_at_once(store, batches(store, 5))
    assert len(set(versions)) == 5
    assert sorted(chain(store)) == sorted(versions)
    for seed, version in enumerate(versions):
        check_whole(store, version, seed)


def test_threads_that_train_the_same_version_make_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_POLL", 0.01)
    store = Store.open(tmp_path / "store")
    (batch,) = batches(store, 1)
    versions = fits_at_once(store, [batch] * 4)
    assert [versions[0]] == chain(store) == sorted(set(versions))


@pytest.mark.s3
def test_threads_train_one_bank_in_a_bucket(s3_bucket: str):
    store = Store.open(f"{s3_bucket}/{uuid.uuid4().hex}")
    versions = fits_at_once(store, batches(store, 2))
    assert sorted(chain(store)) == sorted(versions)
    for seed, version in enumerate(versions):
        check_whole(store, version, seed)
    assert not store.exists(layout.lock(layout.bank("parts")))


def test_one_bank_does_not_wait_for_another(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    (batch,) = batches(store, 1)
    with lock.locked(store, layout.bank("other"), wait=0):
        assert dn2.fit(batch, store, bank="parts") == dn2.open_bank(store, "parts")
