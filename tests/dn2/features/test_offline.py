from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import make_pictures, need

# Every way out that Python has raises one of these; whatever is written in C is stopped by the missing network.
EMBED = """
import json, sys
events = []
def note(event, values):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        events.append([event, str(values)])
sys.addaudithook(note)
import dn2
embedded = dn2.embed(dn2.ingest(sys.argv[1], sys.argv[2]), sys.argv[2], config=dn2.EmbedConfig(engine="openvino"))
telemetry = [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
print(json.dumps([embedded.embedded, events, telemetry]))
"""
CONNECT = "import socket, sys; sys.exit(socket.socket().connect_ex(('192.0.2.1', 9)) != 101)"  # 101: unreachable


def test_no_connection_goes_out_while_a_network_is_converted_and_run(tmp_path: Path, monkeypatch):
    """Without any network, with an empty cache and an empty home: nothing is looked up, sent or reported."""
    alone = ["unshare", "--map-root-user", "--net"]
    need(subprocess.run([*alone, sys.executable, "-c", CONNECT]).returncode == 0, "unshare, with the right to cut off")
    make_pictures(tmp_path / "pictures", 3)
    monkeypatch.setenv("DN2_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    done = subprocess.run(
        [*alone, sys.executable, "-c", EMBED, str(tmp_path / "pictures"), str(tmp_path / "store")],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [3, [], []]
    assert list((tmp_path / "cache/openvino").glob("*/network.xml"))


def test_telemetry_package_cannot_be_imported_once_the_engine_is_loaded():
    code = (
        "import importlib.util\n"
        "assert importlib.util.find_spec('openvino_telemetry'), 'not installed: nothing to test'\n"
        "import dn2.features.openvino_engine, openvino.tools\n"
        "import openvino_telemetry\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: import of openvino_telemetry halted; None in sys.modules"
    )
