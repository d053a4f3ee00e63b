"""Older versions of a bank made current again: the pointer alone, one at a time, and never what is not whole."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

import dn2
from dn2.errors import ConfigError, NotFoundError, SchemaError, StoreError
from dn2.neighbors.versions import current_version, open_version, pointed_at, publish, version_names
from dn2.records import BankVersion, GroupBankVersion
from dn2.store import lock
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import normal_groups, write_groups
from tests.dn2.scoring.synthetic import normal_vectors, write_shards
from tests.dn2.store.holders import NAME, go_on, heard, process

USE = """
import sys
import dn2
from dn2.store import lock
lock._POLL = 0.005
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    for version in sys.argv[2:]:
        dn2.use_version(sys.argv[1], "parts", version)
print("done", flush=True)
"""


def fit(store: Store, *, seed: int = 0) -> BankVersion:
    config = dn2.FitConfig(false_alarm_rate=0.2)
    vectors = write_shards(store, normal_vectors(30, seed=seed), name=f"normal-{seed}")
    return dn2.fit(vectors, store, bank="parts", config=config)


def fit_groups(store: Store, *, k: int = 2, pooling: str = "mean") -> GroupBankVersion:
    groups = write_groups(store, normal_groups([4] * 12, seed=0), name="groups")
    config = dn2.GroupFitConfig(k=k, pooling=pooling, false_alarm_rate=0.2)
    return dn2.fit_groups(groups, store, bank="lots", config=config)


def files(folder: Path) -> dict[str, int]:
    """Return all files but locks, with the time of their last change."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts)
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def test_older_version_is_current_again_and_only_the_pointer_was_written(store: Store, tmp_path: Path):
    first, second = fit(store, seed=0), fit(store, seed=1)
    before = files(tmp_path / "store")

    assert dn2.use_version(store, "parts", first.version) == first

    assert dn2.open_bank(store, "parts") == first
    after = files(tmp_path / "store")
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"banks/parts/current.json"}
    assert dn2.use_version(store.uri, "parts", second.version) == dn2.open_bank(store, "parts") == second


@pytest.mark.parametrize("pooling", ["mean", "histogram"])
def test_older_version_of_a_bank_of_groups_is_current_again(store: Store, pooling: str):
    first, second = fit_groups(store, pooling=pooling), fit_groups(store, k=3, pooling=pooling)
    assert dn2.open_group_bank(store, "lots") == second

    assert dn2.use_version(store, "lots", first.version) == first
    assert dn2.open_group_bank(store, "lots") == first


def test_version_that_is_current_already_changes_nothing(store: Store, tmp_path: Path):
    version = fit(store)
    before = files(tmp_path / "store")

    assert dn2.use_version(store, "parts", version.version) == version
    assert files(tmp_path / "store") == before


def test_version_is_known_by_how_it_begins(store: Store):
    first, second = fit(store, seed=0), fit(store, seed=1)

    for length in (4, 7, 16):
        assert dn2.use_version(store, "parts", first.version[:length]) == first
        assert dn2.use_version(store, "parts", second.version[:length]) == second


def copies(store: Store, *versions: str) -> list[BankVersion]:
    """Write versions of chosen names that hold what the first one holds."""
    first, files = open_version(store, "parts", fit(store).version)
    assert isinstance(first, BankVersion)
    made = []
    for version in versions:
        made.append(replace(first, version=version))
        for suffix in ("calibration.parquet", "probes.parquet"):
            content = store.read(f"banks/parts/versions/{first.version}.{suffix}")
            store.write(f"banks/parts/versions/{version}.{suffix}", content)
        publish(store, made[-1], files)
    return made


def test_beginning_that_several_versions_have_is_refused_naming_them(store: Store):
    one, _ = copies(store, "ab12000000000000", "ab12f00000000000")
    pointer = store.read("banks/parts/current.json")

    message = (
        r"bank 'parts' in file://.*: got version 'ab12', which fits several: ab12000000000000, ab12f00000000000; "
        r"give more of its characters"
    )
    with pytest.raises(ConfigError, match=message):
        dn2.use_version(store, "parts", "ab12")
    assert store.read("banks/parts/current.json") == pointer
    assert dn2.use_version(store, "parts", "ab120") == one


def test_unknown_version_is_refused_naming_those_there_are(store: Store):
    versions = sorted([fit(store, seed=0).version, fit(store, seed=1).version])
    pointer = store.read("banks/parts/current.json")

    unknown = next(f"{number:04x}" for number in range(3) if not any(v.startswith(f"{number:04x}") for v in versions))
    message = rf"got version '{unknown}', expected one of: {', '.join(versions)}$"
    with pytest.raises(NotFoundError, match=message):
        dn2.use_version(store, "parts", unknown)
    assert store.read("banks/parts/current.json") == pointer


@pytest.mark.parametrize(
    "version", ["", "abc", "ABCD", "wxyz", "../../../x", "ab12/../", "ab12\n", "0123456789abcdef0", "[0-9]"]
)
def test_text_that_cannot_begin_a_version_is_refused(store: Store, version: str):
    fit(store)
    with pytest.raises(ConfigError, match=r"version: got .*, expected 4 to 16 of the characters 0 to 9 and a to f"):
        dn2.use_version(store, "parts", version)


def test_unknown_bank_is_named_and_no_lock_is_left_behind(store: Store, tmp_path: Path):
    with pytest.raises(NotFoundError, match=r"bank 'nuts': not in store .*, which has: none; make it with dn2 train"):
        dn2.use_version(store, "nuts", "abcd")
    assert not (tmp_path / "store").exists()
    fit(store)
    with pytest.raises(NotFoundError, match=r"bank 'nuts': not in store .*, which has: parts; make it"):
        dn2.use_version(store, "nuts", "abcd")
    with pytest.raises(ConfigError, match=r"name '\.\./parts' cannot be used"):
        dn2.use_version(store, "../parts", "abcd")
    assert not (tmp_path / "store/.locks/banks/nuts").exists()


@pytest.mark.parametrize(
    "pattern", ["segments/*.npy", "segments/*.parquet", "versions/*.calibration.*", "versions/*.pr*"]
)
def test_version_with_a_missing_file_is_not_made_current(store: Store, tmp_path: Path, pattern: str):
    first = fit(store, seed=0)
    for path in (tmp_path / "store/banks/parts").glob(pattern):
        path.unlink()
    second = fit(store, seed=1)

    with pytest.raises(NotFoundError, match=rf"bank 'parts' version {first.version}: its file file://.* is missing"):
        dn2.use_version(store, "parts", first.version)
    assert current_version(store, "parts") == second.version


def test_version_of_groups_without_its_cells_is_not_made_current(store: Store, tmp_path: Path):
    first, second = fit_groups(store, pooling="histogram"), fit_groups(store, k=3)
    (cells,) = (tmp_path / "store/banks/lots/segments").glob("*.cells.npy")
    cells.unlink()

    with pytest.raises(NotFoundError, match=rf"{first.version}: its file file://.*\.cells\.npy is missing"):
        dn2.use_version(store, "lots", first.version)
    assert current_version(store, "lots") == second.version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segments": 5}, r"got segments = 5: Input should be a valid tuple"),
        ({"segments": [5]}, r"got segments.0 = 5: Input should be a valid string"),
        ({"schema": "dn2.report_summary"}, "got schema dn2.report_summary version 1, expected dn2.bank_version"),
        ({"rows": "many"}, "got rows = 'many'"),
        ({"version": "0" * 16}, "version '0000000000000000', expected 'parts' version"),
    ],
)
def test_damaged_version_is_not_made_current(store: Store, change: dict[str, object], message: str):
    first, second = fit(store, seed=0), fit(store, seed=1)
    path = f"banks/parts/versions/{first.version}.json"
    store.write(path, json.dumps(json.loads(store.read(path)) | change).encode())

    with pytest.raises(SchemaError, match=message):
        dn2.use_version(store, "parts", first.version)
    assert current_version(store, "parts") == second.version


@pytest.mark.parametrize("content", [b"", b"{}", None], ids=["empty", "no pointer", "missing"])
def test_pointer_that_is_damaged_or_gone_is_mended(store: Store, content: bytes | None):
    first = fit(store)
    if content is None:
        store.remove("banks/parts/current.json")
    else:
        store.write("banks/parts/current.json", content)
    assert pointed_at(store, "parts") is None

    assert dn2.use_version(store, "parts", first.version) == dn2.open_bank(store, "parts") == first


def test_training_again_with_the_newer_images_goes_forward_again(store: Store):
    """And a version made after going back follows the one that was current then."""
    first, second = fit(store, seed=0), fit(store, seed=1)
    dn2.use_version(store, "parts", first.version)
    third = fit(store, seed=2)
    assert open_version(store, "parts", third.version)[1].parent == first.version
    assert fit(store, seed=1) == second == dn2.open_bank(store, "parts")
    assert version_names(store, "parts") == sorted(one.version for one in (first, second, third))


def test_writer_of_the_bank_is_waited_for(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = fit(store, seed=0), fit(store, seed=1)
    monkeypatch.setattr(lock, "_POLL", 0.01)
    with ThreadPoolExecutor(1) as pool:
        with lock.locked(store, NAME):
            used = pool.submit(dn2.use_version, store, "parts", first.version)
            with pytest.raises(TimeoutError):
                used.result(timeout=0.3)
            assert current_version(store, "parts") == second.version
        assert used.result() == first
    assert current_version(store, "parts") == first.version


def test_two_processes_that_choose_again_and_again_lose_no_version(store: Store):
    """What is current in the end is one that the last writer asked for, and every version is whole."""
    versions = [fit(store, seed=seed).version for seed in range(4)]
    with ExitStack() as stack:
        pairs = (versions[:2], versions[2:])
        started = [stack.enter_context(process(USE, store.uri, *pair, says="ready")) for pair in pairs]
        for one in started:
            go_on(one)
        assert [heard(one) for one in started] == ["done", "done"]
    assert current_version(store, "parts") in (versions[1], versions[3])
    assert version_names(store, "parts") == sorted(versions)
    for version in versions:
        assert dn2.open_bank(store, "parts", version=version).version == version


def test_training_and_going_back_at_once_lose_no_version(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_POLL", 0.005)
    first = fit(store, seed=0)
    start = Barrier(2)

    def train() -> list[BankVersion]:
        start.wait()
        return [fit(store, seed=seed) for seed in range(1, 5)]

    def back() -> None:
        start.wait()
        for _ in range(30):
            dn2.use_version(store.uri, "parts", first.version)

    with ThreadPoolExecutor(2) as pool:
        trained, used = pool.submit(train), pool.submit(back)
        made = trained.result()
        used.result()
    assert version_names(store, "parts") == sorted(one.version for one in (first, *made))
    assert current_version(store, "parts") in (first.version, made[-1].version)


@pytest.mark.s3
def test_older_version_in_a_bucket_is_current_again(s3_bucket: str):
    store = Store.open(f"{s3_bucket}/{uuid.uuid4().hex}")
    first, second = fit(store, seed=0), fit(store, seed=1)
    assert dn2.open_bank(store, "parts") == second

    assert dn2.use_version(store.uri, "parts", first.version[:6]) == first
    assert dn2.open_bank(store, "parts") == first
    assert not store.exists(".locks/banks/parts")


def test_store_that_cannot_be_written_is_named(store: Store, tmp_path: Path):
    """A file lies where the folder of unfinished files should be."""
    first, second = fit(store, seed=0), fit(store, seed=1)
    unfinished = tmp_path / "store/.tmp"
    unfinished.rmdir()
    unfinished.touch()
    with pytest.raises(StoreError, match=r"cannot write 'banks/parts/current\.json'"):
        dn2.use_version(store, "parts", first.version)
    assert current_version(store, "parts") == second.version
