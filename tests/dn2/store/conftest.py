from __future__ import annotations

import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from dn2.store.files import locate
from dn2.store.storage import Store
from tests.conftest import _wait_for, need

# moto's own program answers in threads and checks the condition outside of any lock: two writers may both win.
SERVE = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
make_server("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app)).serve_forever()
"""


@pytest.fixture(scope="module")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment for a real HTTP server that keeps the condition "only if there is none", as S3 itself does."""
    need(find_spec("moto") is not None, "moto, from PyPI")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path_factory.mktemp("moto") / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-c", SERVE, str(port)], stdout=log, stderr=log)
    try:
        _wait_for(port, server)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def moto(moto_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store on that server."""
    for name, value in moto_server.items():
        monkeypatch.setenv(name, value)
    bucket = f"s3://{uuid.uuid4().hex}"
    locate(bucket).fs.mkdir(bucket)
    return Store.open(f"{bucket}/store")
