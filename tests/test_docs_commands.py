"""What the pages show is run: every command line and every piece of Python, or it stands here why not."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
import yaml
from prefect import get_client
from prefect.settings import PREFECT_API_URL

from flows.parameters import TrainParameters
from flows.sources_file import SourcesFile, read_sources
from tests.dn2.features.materials import write_patches
from tests.flows.command import own_logging, runner
from tests.flows.told import SCHEDULED
from tests.pages import blocks

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")), "deployments/README.md"]
TRAIN = "dn2 train photos/normal --bank parts"
SCORE = "dn2 score photos/new --bank parts --out report"
# What a page takes for granted.
BEFORE = {
    "docs/banks.md": [f"{TRAIN} --k 1", TRAIN],
    "docs/housekeeping.md": [
        f"{TRAIN} --store store",
        "dn2 score photos/new --bank parts --dataset inbox --store store",
    ],
    "docs/nightly.md": [
        f"{TRAIN} --store s3://bucket/dn2",
        "dn2 train photos/normal --bank bricks --store dn2-demo/store",
    ],
    "docs/sources.md": [TRAIN],
    "docs/store.md": ["dn2 ingest photos/normal --store store"],
    "docs/thresholds.md": [TRAIN, SCORE],
}
# What is not run, by how it begins, and why.
LEFT_OUT = {
    "git clone ": "the checkout is there",
    "make demo": "installs; tests/flows/test_process.py runs `dn2 demo`",
    "make test": "is what runs this",
    ". .venv/bin/activate": "the environment is active",
    "cd ": "belongs to what is not run",
    "export PREFECT_API_URL=": "the tests' server has another address",
    "prefect server start": "serves for ever; `make e2e` starts it",
    "prefect worker start ": "serves for ever; `make e2e` starts it",
    "DN2_SOURCES=": "needs root's folders; tests/deployments deploys",
    "prefect deployment schedule create compact/compact ": "run by tests/deployments/test_deploy.py",
    "prefect deployment run ": "needs a worker; its parameters are checked below",
    "sudo ": "changes the machine; tests/deployments/test_readme.py checks what it names",
    "docker ": "no container runs in a test; tests/deployments checks the files",
}


def lines_of(page: str) -> list[str]:
    """Every command line of a page's sh blocks, and after a $, in one line each, without comments."""
    text = "".join(blocks(page, "sh")).replace("\\\n", " ")
    text += "\n".join(re.findall(r"^\$ (.*)$", (ROOT / page).read_text("utf-8"), re.MULTILINE))
    return [line for line in (re.sub(r"\s+#.*$", "", line).strip() for line in text.splitlines()) if line]


ELSEWHERE = {"README.md", "docs/reports.md"}  # run by tests/test_readme.py, as processes of their own


def is_left_out(line: str) -> bool:
    return line.startswith(tuple(LEFT_OUT))


PAGES_RUN = [
    page
    for page in PAGES
    if page not in ELSEWHERE and (blocks(page, "python") or not all(map(is_left_out, lines_of(page))))
]


@pytest.fixture(scope="module")
def bucket(s3_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Pictures in the bucket, where the pages look for them."""
    folder = tmp_path_factory.mktemp("bucket")
    write_patches(folder, 8)
    system, root = fsspec.core.url_to_fs(s3_bucket)
    for prefix in ("normal", "line-3", "deliveries/monday"):
        for path in folder.iterdir():
            system.put_file(str(path), f"{root}/{prefix}/{path.name}")
    torch.save(torchvision.models.mobilenet_v3_small(weights=None).state_dict(), folder / "ours.pth")
    system.put_file(str(folder / "ours.pth"), f"{root}/ours.pth")
    yield
    for prefix in ("normal", "line-3", "deliveries", "dn2", "ours.pth"):
        with contextlib.suppress(FileNotFoundError):
            system.rm(f"{root}/{prefix}", recursive=True)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the pictures that the pages speak of, which is the working directory."""
    counts = {
        "photos/normal": 10,
        "photos/new": 4,
        "photos/all": 40,
        "photos/confirmed": 14,  # four more than the normal ones
        "photos/ok/part-7": 3,
        "camera-7/part-8": 3,
        "dn2-demo/images/batch": 3,
        **{f"parts/normal/lot-{number}": 2 + number % 3 for number in range(6)},
        **{f"parts/today/lot-{number}": 3 for number in range(2)},
    }
    for folder, count in counts.items():
        write_patches(tmp_path / folder, count)
    (tmp_path / "deployments").mkdir()
    example = (ROOT / "deployments" / "sources.example.yaml").read_text("utf-8")
    (tmp_path / "deployments" / "sources.example.yaml").write_text(example, "utf-8")
    (shown,) = [block for block in blocks("docs/nightly.md", "yaml") if block.startswith("store: ")]
    (tmp_path / "sources.yaml").write_text(shown.replace("/mnt/camera-7", "camera-7"), "utf-8")
    (tmp_path / "defects.txt").write_text(f"{next((tmp_path / 'photos' / 'new').iterdir())}\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill_in(words: list[str], here: Path) -> list[str]:
    """Return a command whose examples of versions and ids are those of the bank `parts`."""
    bank = here / "dn2-store" / "banks" / "parts"
    if "1a2b3c" in words:
        current = json.loads((bank / "current.json").read_bytes())["version"]
        older = [path.stem for path in (bank / "versions").glob("*.json") if path.stem != current]
        words = [older[0][:6] if word == "1a2b3c" else word for word in words]
    if any(word.endswith("...") for word in words):
        version = json.loads((bank / "current.json").read_bytes())["version"]
        segment = json.loads((bank / "versions" / f"{version}.json").read_bytes())["segments"][0]
        ids = iter(pq.read_table(bank / "segments" / f"{segment}.parquet")["image_id"].to_pylist())
        words = [next(ids) if word.endswith("...") else word for word in words]
    return words


@contextlib.contextmanager
def server_as_it_was() -> Iterator[None]:
    """Take the runs that the events of a page ask for off the tests' server, where others deploy too."""
    with get_client(sync_client=True) as client:
        before = {run.id for run in client.read_flow_runs(flow_run_filter=SCHEDULED)}
        yield
        for run in client.read_flow_runs(flow_run_filter=SCHEDULED):
            if run.id not in before:
                client.delete_flow_run(run.id)


@pytest.fixture
def do(
    here: Path, prefect_server: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], str]]:
    """A function that runs one command line in that folder and returns what it printed."""
    run = runner(capsys, monkeypatch)

    def one(line: str) -> str:
        program, *words = fill_in(shlex.split(line), here)
        if program == "dn2":
            done = run(*words)
            assert (done.code, "error: " in done.err) == (0, False), f"{line}\n{done.out}{done.err}"
            return done.out
        assert program == "prefect", line
        command = [Path(sys.executable).parent / program, *words]
        url = {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in url.items():
                patch.setenv(name, value)
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with own_logging(), server_as_it_was():
        yield one


@pytest.mark.slow
@pytest.mark.s3
@pytest.mark.parametrize("page", PAGES_RUN)
def test_commands_and_python_of_a_page_run(page: str, do: Callable[[str], str], bucket: None):
    for line in BEFORE.get(page, []):
        do(line)
    for line in lines_of(page):
        if not is_left_out(line):
            assert do(line) != "", line
    for code in blocks(page, "python"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), {})
        assert printed.getvalue() != ""


def test_every_reason_to_leave_a_command_out_is_needed():
    left = [line for page in PAGES for line in lines_of(page) if is_left_out(line)]
    assert [begin for begin in LEFT_OUT if not any(line.startswith(begin) for line in left)] == []
    assert [line for line in left if line.startswith("dn2 ")] == []


def test_deployment_takes_the_parameters_that_are_shown():
    (line,) = [line for line in lines_of("docs/operations.md") if line.startswith("prefect deployment run train/train")]
    name, _, value = shlex.split(line)[-1].partition("=")
    assert name == "parameters"
    assert TrainParameters.model_validate_json(value).bank == "parts"


def test_settings_shown_in_yaml_are_those_of_a_sources_file(here: Path):
    pieces = [block for page in PAGES for block in blocks(page, "yaml") if not block.startswith("store: ")]
    assert pieces != []
    whole = yaml.safe_load((here / "sources.yaml").read_text("utf-8"))
    for piece in pieces:
        content = yaml.safe_load(piece)
        assert set(content) <= set(SourcesFile.model_fields)
        (here / "sources.yaml").write_text(yaml.safe_dump({**whole, **content}), "utf-8")
        assert len(read_sources("sources.yaml").nightly) == 2
