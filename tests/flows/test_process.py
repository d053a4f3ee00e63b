"""The installed program as a process: the demo, a run that is killed, a run that is stopped, a run in a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dn2 as library
from tests.conftest import make_pictures
from tests.flows.checks import files
from tests.flows.command import DN2, dn2, environment, server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_database")]


@pytest.fixture(scope="module")
def own_database(prefect_database: Path) -> None:
    """The servers that commands start for themselves find their database made."""
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(exist_ok=True)
    if not (home / "prefect.db").exists():
        shutil.copy(prefect_database, home / "prefect.db")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 small pictures."""
    folder = tmp_path_factory.mktemp("many") / "pictures"
    make_pictures(folder, 200)
    return folder


def shards(store: Path) -> dict[str, os.stat_result]:
    """Return the finished embedding shards by name."""
    return {path.name: path.stat() for path in store.glob("embeddings/*/*/*.parquet") if ".thumb" not in path.name}


def begun(command: list[str | Path], store: Path, **how: object) -> subprocess.Popen[bytes]:
    """Start a command as a terminal does; return it when two shards are finished."""
    process: subprocess.Popen[bytes] = subprocess.Popen(
        command, env=environment(), start_new_session=True, preexec_fn=_heed_control_c, **how
    )
    while len(shards(store)) < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    return process


def _heed_control_c() -> None:
    """Tests that run in the background of a script ignore Ctrl-C, and what they start inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def gone(process: int) -> bool:
    """Return True as soon as a process is no longer there, False if it stays."""
    for _ in range(300):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def tables(store: Path) -> dict[str, pa.Table]:
    return {path.name: pq.read_table(path) for path in sorted(store.glob("embeddings/*/*/*.parquet"))}


@pytest.mark.usefixtures("prefect_server")
def test_killed_run_goes_on_where_it_was_and_ends_like_an_undisturbed_one(many: Path, tmp_path: Path):
    """SIGKILL in the middle of embedding; the server of the killed command ends by itself."""
    command = [DN2, "embed", many, "--store", tmp_path / "killed", "--shard-size", "25", "--batch-size", "8"]
    process = begun(command, tmp_path / "killed", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    servers = children(process.pid)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert len(servers) == 1
    assert gone(servers[0])
    before = shards(tmp_path / "killed")
    assert 2 <= len(before) < 8

    again = dn2(*command[1:], **server())
    assert (again.code, again.err) == (0, "")
    assert "nothing changed, nothing written" in again.out
    assert "embedded 200, rejected 0" in again.out
    after = shards(tmp_path / "killed")
    for name, status in before.items():
        assert (after[name].st_ino, after[name].st_mtime_ns) == (status.st_ino, status.st_mtime_ns)

    library.embed(library.ingest(many, tmp_path / "calm"), tmp_path / "calm", config=library.EmbedConfig(shard_size=25))
    killed, calm = tables(tmp_path / "killed"), tables(tmp_path / "calm")
    assert list(killed) == list(calm)
    assert len(killed) == 2 * 8
    for name, table in calm.items():
        assert killed[name].equals(table), name
    assert list((tmp_path / "killed" / ".tmp").iterdir()) == []


class Terminal:
    """A real terminal whose text is kept."""

    def __init__(self) -> None:
        self._ours, self.end = pty.openpty()
        self._pieces: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other side was closed
            while piece := os.read(self._ours, 65536):
                self._pieces.append(piece)

    def text(self) -> str:
        """Close the terminal and return what was printed, without the codes that move the cursor."""
        os.close(self.end)
        self._reader.join(10)
        os.close(self._ours)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(self._pieces).decode())


def test_control_c_in_a_terminal_stops_with_a_hint(many: Path, tmp_path: Path):
    """A bar with images per second until then; afterwards one line, no traceback, exit code 130."""
    terminal = Terminal()
    command = [DN2, "embed", many, "--store", tmp_path / "store", "--shard-size", "25", "--batch-size", "8"]
    process = begun(command, tmp_path / "store", stdin=terminal.end, stdout=terminal.end, stderr=terminal.end)
    servers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal sends to all that runs in its foreground
    assert process.wait(60) == 130
    text = terminal.text()
    assert re.search(r"embed .*\d+/200 +\d+ images/s", text)
    assert re.search(r"(reading|network) limits", text)
    assert text.rstrip().endswith("stopped; run the same command again to go on where it was")
    assert "Traceback" not in text
    assert "rror" not in text
    assert len(servers) == 1
    assert gone(servers[0])


def test_terminated_run_leaves_no_server(many: Path, tmp_path: Path):
    command = [DN2, "embed", many, "--store", tmp_path / "store", "--shard-size", "25"]
    process = begun(command, tmp_path / "store", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    servers = children(process.pid)
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM
    assert len(servers) == 1
    assert gone(servers[0])


@pytest.mark.usefixtures("prefect_server")
def test_demo_reaches_its_figures_and_changes_nothing_the_second_time(tmp_path: Path):
    first = dn2("demo", "--workdir", tmp_path / "demo", **server())
    assert first.code == 0
    assert all(line.startswith("warning: ") for line in first.err.splitlines())
    figures = dict(re.findall(r"^(demo_\w+): ([\d.]+)$", first.out, re.MULTILINE))
    assert float(figures["demo_roc_auc"]) >= 0.95
    assert float(figures["demo_false_alarm_rate"]) <= 0.05
    for kind in ("scratch", "hole", "pasted", "material"):
        assert 0.9 <= float(figures[f"demo_roc_auc_{kind}"]) <= 1
        assert figures[f"demo_count_{kind}"] == figures["demo_count_good"] == "32"
    assert figures["demo_count_broken"] == "3"
    page = tmp_path / "demo" / "report" / "report.html"
    assert page.is_file()
    assert f"Open the report:\n  {page}\n" in first.out
    assert "dn2 train PHOTOS/NORMAL --bank mine" in first.out

    def kept() -> dict[str, int]:
        return {name: time for name, time in files(tmp_path / "demo").items() if not name.startswith("report/")}

    before, content = kept(), page.read_bytes()
    second = dn2("demo", "--workdir", tmp_path / "demo", **server())
    assert second.code == 0
    assert re.sub(r"[\d.]+ s\n", "", second.out) == re.sub(r"[\d.]+ s\n", "", first.out)
    assert (kept(), page.read_bytes()) == (before, content)


@pytest.mark.parametrize(("source", "code"), [("missing", 2), ("broken", 1)])
def test_failed_command_prints_one_line_and_nothing_of_prefect(tmp_path: Path, source: str, code: int):
    """The same in a process of its own, with its own server."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    done = dn2("train", source, cwd=tmp_path)
    assert (done.code, done.out) == (code, "")
    assert re.fullmatch("error: [^\n]+\n", done.err)


def test_server_that_cannot_start_is_told_with_the_reason(pictures: Path, tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    done = dn2("ingest", pictures, "--store", tmp_path / "store", PREFECT_HOME=str(tmp_path / "file" / "prefect"))
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch("error: [^\n]+PREFECT_HOME[^\n]+\n", done.err)
    assert not (tmp_path / "store").exists()


def test_proxy_of_the_network_is_not_asked_for_the_own_server(pictures: Path, tmp_path: Path):
    """A closed port as proxy: whoever asks it fails."""
    done = dn2("ingest", pictures, "--store", tmp_path / "store", HTTP_PROXY="http://127.0.0.1:9", no_proxy="")
    assert (done.code, done.err) == (0, "")
