from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

import dn2
from dn2.config import EmbedConfig
from dn2.errors import EmbedderError, SourceError
from dn2.progress import Advance, listening
from tests.conftest import make_pictures
from tests.dn2.features.materials import random_weights, rows_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "pictures", 12)
    return tmp_path / "pictures"


def test_image_that_vanished_or_changed_since_it_was_listed_is_rejected(folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    dataset = dn2.ingest(folder, store)
    (folder / "004.png").unlink()
    grown = (folder / "007.png").read_bytes()
    (folder / "007.png").write_bytes(grown + b"more")

    embedded = dn2.embed(dataset, store)

    rows = rows_of(store, embedded)
    assert {number: row["reject_reason"] for number, row in enumerate(rows) if row["reject_reason"]} == {
        4: "vanished since it was listed",
        7: f"changed since it was listed: got {len(grown) + 4} bytes, expected {len(grown)}; run the command again",
    }
    assert (rows[4]["content_sha256"], rows[4]["size"]) == (None, 0)
    assert (embedded.embedded, embedded.rejected) == (10, 2)


def test_fault_that_may_pass_fails_the_shard_and_is_never_written_down(folder: Path, tmp_path: Path):
    """A file that cannot be read is an error of the disk, not of the image; mended, the same call succeeds."""
    store, config = tmp_path / "store", EmbedConfig(shard_size=5)
    dataset = dn2.ingest(folder, store)
    content = (folder / "007.png").read_bytes()
    (folder / "007.png").unlink()
    (folder / "007.png").mkdir()

    with pytest.raises(SourceError, match=r"cannot read file://.*/007\.png: .*Is a directory"):
        dn2.embed(dataset, store, config=config)
    shards = {path: path.stat().st_mtime_ns for path in store.rglob("00*.parquet") if "embeddings" in path.parts}
    assert [path.name.split("-")[2:4] for path in shards if "thumb" not in path.name] == [["000000000", "000000005"]]
    assert list((store / ".tmp").iterdir()) == []

    (folder / "007.png").rmdir()
    (folder / "007.png").write_bytes(content)
    embedded = dn2.embed(dataset, store, config=config)

    assert (embedded.embedded, embedded.rejected) == (12, 0)
    assert {path: path.stat().st_mtime_ns for path in shards} == shards


@pytest.mark.parametrize("emptied", [True, False], ids=["empty-mount-point", "folder-gone"])
def test_source_that_goes_away_while_it_is_read_is_an_error(folder: Path, tmp_path: Path, emptied: bool):
    """A network drive that is unmounted must not turn all its images into rejects."""
    store, config = tmp_path / "store", EmbedConfig(batch_size=1, decode_threads=1)
    dataset = dn2.ingest(folder, store)

    def unmount(step: Advance) -> None:
        if step.items and folder.exists() and any(folder.iterdir()):
            folder.rename(tmp_path / "elsewhere")
            if emptied:
                folder.mkdir()

    message = r"is empty or gone while it is read \(file://.*png not found\).*then run the same command"
    with listening(unmount), pytest.raises(SourceError, match=message):
        dn2.embed(dataset, store, config=config)
    assert not list(store.glob("embeddings/*/*/*.parquet"))

    if emptied:
        folder.rmdir()
    (tmp_path / "elsewhere").rename(folder)
    assert dn2.embed(dataset, store, config=config).embedded == 12


def test_source_that_was_gone_before_is_an_error(folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    dataset = dn2.ingest(folder, store)
    folder.rename(tmp_path / "elsewhere")

    with pytest.raises(FileNotFoundError, match=r"source file://.*/pictures: nothing is there"):
        dn2.embed(dataset, store)
    assert not list(store.glob("embeddings/*/*/*.parquet"))


class CountedFileSystem(MemoryFileSystem):
    """A file system in memory that knows how many of its files were read, and can fail."""

    protocol = "counted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    lock = threading.Lock()
    read = 0
    done = 0
    most = 0
    fails = ""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("counted://", "memory://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        kind = type(self)
        with kind.lock:
            kind.read += 1
            kind.most = max(kind.most, kind.read - kind.done)
        if kind.fails and kind.fails in path:
            raise RuntimeError("503 slow down")  # drivers raise errors of their own, which are no OSError
        return super().cat_file(path, start, end, **kwargs)


@pytest.fixture
def counted(folder: Path) -> str:
    fsspec.register_implementation("counted", CountedFileSystem, clobber=True)
    make_pictures(folder, 60)
    CountedFileSystem.read = CountedFileSystem.done = CountedFileSystem.most = 0
    CountedFileSystem.fails = ""
    for path in folder.iterdir():
        CountedFileSystem().pipe_file(f"/pictures/{path.name}", path.read_bytes())
    return "counted://pictures"


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (4, 3)])
def test_pictures_in_flight_are_bounded_by_the_settings(counted: str, tmp_path: Path, batch_size: int, threads: int):
    """However many images there are: one batch in the network, two waiting for it, and one image per thread."""

    def count(step: Advance) -> None:
        if step.stage == "embed":
            CountedFileSystem.done += step.items

    config = EmbedConfig(batch_size=batch_size, decode_threads=threads)
    with listening(count):
        embedded = dn2.embed(dn2.ingest(counted, tmp_path / "store"), tmp_path / "store", config=config)

    assert (embedded.embedded, CountedFileSystem.read) == (60, 60)
    assert batch_size <= CountedFileSystem.most <= 3 * batch_size + threads


def test_driver_that_raises_its_own_errors_fails_the_shard(counted: str, tmp_path: Path):
    dataset = dn2.ingest(counted, tmp_path / "store")
    CountedFileSystem.fails = "030.png"

    with pytest.raises(
        SourceError, match=r"source counted://pictures: cannot read counted://pictures/030\.png: 503 slow"
    ):
        dn2.embed(dataset, tmp_path / "store")

    CountedFileSystem.fails = ""
    assert dn2.embed(dataset, tmp_path / "store").embedded == 60


def test_progress_counts_every_image_once(folder: Path, tmp_path: Path):
    steps: list[Advance] = []
    store, config = tmp_path / "store", EmbedConfig(batch_size=5, shard_size=8)
    dataset = dn2.ingest(folder, store)
    for _ in range(2):
        steps.clear()
        with listening(steps.append):
            dn2.embed(dataset, store, config=config)
        assert sum(step.items for step in steps) == 12
        assert {(step.stage, step.total) for step in steps} == {("embed", 12)}
        assert {step.limit for step in steps} <= {"reading", "network", ""}


@pytest.mark.parametrize("factor", [1e9, float("nan")])
def test_weights_that_give_no_finite_numbers_are_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
):
    chosen = random_weights("resnet18", tmp_path / "torch", monkeypatch)
    state = torch.load(chosen.weights, weights_only=True)
    torch.save({**state, "layer4.1.bn2.weight": state["layer4.1.bn2.weight"] * factor}, chosen.weights)
    store = tmp_path / "store"
    dataset = dn2.ingest(folder, store)

    with pytest.raises(EmbedderError, match=r"^torch .*: got embeddings that are not finite in float16; check "):
        dn2.embed(dataset, store, config=EmbedConfig(backbone="resnet18", engine="torch", device="cpu"))
    assert not (store / "embeddings").exists()
