from __future__ import annotations

import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import dn2
from dn2.images.ingest import ingest
from dn2.store.storage import Store
from tests.dn2.images.listing import live_uris, names, touch


def expected(count: int) -> list[str]:
    return [f"{number:05d}.png" for number in range(count)]


def test_ingests_at_once_of_one_state_write_one_part(tmp_path: Path):
    touch(tmp_path / "source", *expected(50))
    store = Store.open(tmp_path / "store")
    start = Barrier(8)

    def one(_: int) -> dn2.Dataset:
        start.wait()
        return ingest(tmp_path / "source", store, dataset="x")

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(one, range(8)))
    assert len({dataset.parts for dataset in found}) == 1
    assert len(store.names("manifests/x")) == 1
    assert names(ingest(tmp_path / "source", store, dataset="x"), live_uris(store, found.pop())) == expected(50)


def test_ingests_while_files_come_and_go_neither_lose_nor_double_a_row(tmp_path: Path):
    """Threads list different states and write parts of the same number."""
    source, store = tmp_path / "source", Store.open(tmp_path / "store")
    touch(source, *expected(10))

    def one(number: int) -> dn2.Dataset:
        touch(source, f"{10 + number:05d}.png")
        found = ingest(source, store, dataset="x")
        touch(source, f"{number:05d}.png", content=b"changed")
        if number % 5 == 0:
            (source / f"{30 + number:05d}.png").unlink(missing_ok=True)
        return found

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(one, range(40)))
    for dataset in found:
        uris = live_uris(store, dataset)
        assert len(uris) == len(set(uris))
        assert set(names(dataset, uris)) >= set(expected(10))
    last = ingest(source, store, dataset="x")
    assert len(last.parts) == len(store.names("manifests/x"))
    assert names(last, live_uris(store, last)) == sorted(path.name for path in source.iterdir())
    again = ingest(source, store, dataset="x")
    assert last.parts == again.parts


def test_two_processes_at_once(tmp_path: Path):
    touch(tmp_path / "source", *expected(200))
    code = "import sys, dn2; print(dn2.ingest(sys.argv[1], sys.argv[2], dataset='x').images)"
    command = [sys.executable, "-c", code, str(tmp_path / "source"), str(tmp_path / "store")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["200\n", "200\n"]
    store = Store.open(tmp_path / "store")
    assert len(store.names("manifests/x")) == 1
    last = ingest(tmp_path / "source", store, dataset="x")
    assert names(last, live_uris(store, last)) == expected(200)


def peak(folder: Path, store: Path) -> float:
    """Python's memory during an ingest, in MB above what was there before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        ingest(folder, store, dataset="x")
        return (tracemalloc.get_traced_memory()[1] - before) / 1e6
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path):
    """Two batches of the manifest, 10,000 rows each, are held at most, however many images are known or found."""
    folder = tmp_path / "source"
    touch(folder, *expected(20_000))
    first = peak(folder, tmp_path / "store")
    touch(folder, *expected(32_000)[20_000:])
    second = peak(folder, tmp_path / "store")
    assert first < 20
    assert second < 1.1 * first
