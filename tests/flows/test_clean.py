"""`dn2 clean`, and `dn2 train --clean`: the flows, what they show, the commands and what they refuse."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

import dn2
from dn2.evaluation.bricks import write_images
from flows.banks import train
from flows.images import clean
from flows.parameters import CleanParameters, TrainParameters
from tests.conftest import make_pictures
from tests.flows.checks import FAILED, WRONG_USE, check, files
from tests.flows.command import Done, Run, server
from tests.flows.command import dn2 as program
from tests.flows.told import artifacts, run_id, task_runs

TIME = r"\d+\.\d s"
GUESS = r"warning: cleaning file://\S+: a contamination of [\d.]+% is a guess, from only 160 images; [^\n]*\n"
UNDECIDED = r"warning: cleaning file://\S+: \d kinds are undecided and stay in, [^\n]*\n"
FEW = r"warning: bank \w+: \d+ calibration images cannot promise [^\n]*\n"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 pictures of an intact and a damaged wall, and 3 files that cannot be read."""
    return write_images(tmp_path_factory.mktemp("mixed"))[1]


@pytest.fixture(scope="module")
def embedded(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with these pictures embedded. Read-only: tests copy it."""
    store = tmp_path_factory.mktemp("embedded") / "store"
    dn2.embed(dn2.ingest(photos, store), store)
    return store


@pytest.fixture
def own_store(embedded: Path, tmp_path: Path) -> Path:
    """The store that commands take by default, with the pictures embedded."""
    shutil.copytree(embedded, tmp_path / "dn2-store")
    return tmp_path / "dn2-store"


def cleaning_rows(store: Path) -> list[dict[str, object]]:
    (file,) = store.glob("cleaning/*/rows.parquet")
    return pq.read_table(file).to_pylist()


def how(rule: str) -> list[str]:
    return ["--clean", rule, "--contamination", "0.1", "--drop", "0.25", "--clusters", "drop"]


def check_command(run: Callable[..., Done], photos: Path, tmp_path: Path, rule: str) -> tuple[Done, Done]:
    """Clean and train; return both."""
    first = run("clean", photos, *how(rule))
    assert (first.code, first.err) == (0, "")
    said = re.fullmatch(
        rf"40 of 160 images would be dropped, 120 kept \({rule}\); "
        rf"10\.0% are taken for anomalies \(as given\); {TIME}\n"
        r"report: file://(\S+/dn2-store/cleaning/[0-9a-f]{16}/report\.html)\n",
        first.out,
    )
    assert said is not None, first.out
    assert Path(said[1]).read_text().startswith("<!doctype html>")
    assert Counter(row["reason"] for row in cleaning_rows(tmp_path / "dn2-store")) == {
        "impurity": 16,
        "margin": 24,
        None: 120,
    }
    trained = run("train", photos, "--bank", "mixed", *how(rule))
    assert trained.code == 0, trained.err
    cleaned, bank, index, threshold, *_ = trained.out.splitlines()
    assert index.startswith("index exact: ")
    promise = "10.0% taken for anomalies (as given), so the threshold is an estimate"
    assert cleaned == f"cleaned: 40 images dropped, {promise}; see file://{said[1]}"
    assert re.match(r"bank mixed, version [0-9a-f]{16}: 120 normal images, 3 rejected, ", bank)
    assert "(leave-one-out, 144 scores" in threshold
    return first, trained


@pytest.mark.parametrize("rule", ["auto", "paper"])
def test_commands_clean_and_train_on_what_was_kept(run: Run, photos: Path, tmp_path: Path, rule: str):
    """The second time nothing is written."""
    cleaned, trained = check_command(run, photos, tmp_path, rule)
    before = files(tmp_path)
    again = run("clean", photos, *how(rule))
    assert (again.code, re.sub(TIME, "", again.out)) == (0, re.sub(TIME, "", cleaned.out))
    again = run("train", photos, "--bank", "mixed", *how(rule))
    assert (again.code, re.sub(TIME, "", again.out)) == (0, re.sub(TIME, "", trained.out))
    assert files(tmp_path) == before


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "own_store")
def test_installed_program_cleans_and_trains_on_what_was_kept(photos: Path, tmp_path: Path):
    """In processes of its own, as a user runs it."""
    check_command(partial(program, cwd=tmp_path, **server()), photos, tmp_path, "auto")


@pytest.mark.usefixtures("own_store")
def test_scripts_that_take_nobodys_answer_drop_clusters(run: Run, photos: Path):
    how = ["--clean", "auto", "--clusters", "drop"]
    done = run("clean", photos, *how)
    assert done.code == 0, done.err
    assert re.match(
        rf"(\d+) of 160 images would be dropped, \d+ kept \(auto\); [\d.]+% are taken for anomalies \(estimated\); "
        rf"{TIME}\nreport: file://\S+/report\.html\n$",
        done.out,
    )
    assert re.fullmatch(GUESS, done.err), done.err
    trained = run("train", photos, *how)
    assert trained.code == 0, trained.err
    assert trained.out.startswith(f"cleaned: {done.out.split()[0]} images dropped, ")
    assert re.fullmatch(GUESS, re.sub(FEW, "", trained.err)), trained.err  # the cleaning that is there is still a guess


@pytest.mark.usefixtures("own_store")
def test_clusters_are_asked_about_and_answers_are_kept_to(run: Run, photos: Path, tmp_path: Path):
    """Two kinds of foreign material come up as clusters; without options the rule is auto."""
    asked = run("clean", photos)
    assert asked.code == 0, asked.err
    counts, between, *questions, report = asked.out.splitlines()
    assert re.fullmatch(rf"\d+ of 160 images would be dropped, \d+ kept \(auto\); .* \(estimated\); {TIME}", counts)
    assert re.fullmatch(r"160 images, 1(59|60) units; anomalies: [\d.]+% to [\d.]+%", between)
    told = [
        re.fullmatch(
            r"a kind apart, (\d+) images \([\d.]+%\): normal or not\? --keep (\S+) or --drop-cluster \2; "
            r"it stays in until then",
            line,
        )
        for line in questions
    ]
    assert len(told) > 1
    assert all(told)
    assert re.fullmatch(UNDECIDED, asked.err), asked.err
    page = Path(report.removeprefix("report: file://")).read_text()
    material = {row["cluster"] for row in cleaning_rows(tmp_path / "dn2-store") if "material" in str(row["uri"])}
    assert all(f"--drop-cluster {name}</code>" in page for name in material)

    names = {line[2] for line in told if line is not None}
    how = [f"--drop-cluster={name}" if name in material else f"--keep={name}" for name in sorted(names)]
    answered = run("train", photos, "--clean", "auto", *how)
    assert answered.code == 0, answered.err
    assert not re.search(UNDECIDED, answered.err)
    bank = dn2.open_bank(tmp_path / "dn2-store", "default")
    assert bank.dropped >= 32
    assert bank.contamination > 0.15

    unknown = run("train", photos, "--clean", "auto", "--keep", "ffffff")
    check(unknown, WRONG_USE, rf"--keep: got 'ffffff', expected one of {', '.join(sorted(names))}")


@pytest.mark.usefixtures("own_store")
def test_training_does_not_clean_unless_it_is_told_to(run: Run, photos: Path, tmp_path: Path):
    done = run("train", photos)
    assert (done.code, "cleaned" in done.out) == (0, False)
    assert ": 160 normal images, 3 rejected" in done.out
    assert not (tmp_path / "dn2-store" / "cleaning").exists()


@pytest.mark.usefixtures("own_store")
def test_banks_of_one_name_with_and_without_cleaning_are_two_versions(run: Run, photos: Path, tmp_path: Path):
    told = ["--clean", "auto", "--clusters", "drop", "--contamination", "0.02"]
    for options in ([], ["--clean", "paper"], told):
        assert run("train", photos, "--bank", "b", *options).code == 0
    versions = list((tmp_path / "dn2-store" / "banks" / "b" / "versions").glob("*.json"))
    assert len(versions) == 3
    current = dn2.open_bank(tmp_path / "dn2-store", "b")
    assert (current.contamination, current.dropped, current.rows) == (0.02, 72, 88)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--contamination", "0.9"],
            r"--contamination \(clean\.contamination\) = 0\.9: Input should be less ",
        ),
        (
            ["--contamination", "-0.1"],
            r"--contamination \(clean\.contamination\) = -0\.1: Input should be greater ",
        ),
        (["--contamination", "nan"], r"--contamination \(clean\.contamination\) = nan: Input should be "),
        (["--drop", "1"], r"--drop \(clean\.drop_fraction\) = 1\.0: Input should be less than 1"),
        (
            ["--contamination", "0.2", "--drop", "0.1"],
            r"clean: got --drop 0\.1 below --contamination 0\.2, expected at least that",
        ),
    ],
)
def test_nonsense_is_refused_before_any_work_is_done(run: Run, photos: Path, options: list[str], message: str):
    check(run("clean", photos, *options), WRONG_USE, message)
    check(run("train", photos, "--clean", "paper", *options), WRONG_USE, message)
    assert not Path("dn2-store").exists()


def test_rule_none_cleans_nothing_and_is_refused(run: Run, photos: Path):
    check(run("clean", photos, "--clean", "none"), WRONG_USE, "--clean: got none, expected paper or auto: there is")


@pytest.mark.parametrize("options", [["--contamination", "0.1"], ["--drop", "0.3"]])
def test_settings_of_a_cleaning_that_is_not_asked_for_are_refused(run: Run, photos: Path, options: list[str]):
    message = "clean: got a --contamination or --drop with --clean none, expected --clean paper or auto"
    check(run("train", photos, *options), WRONG_USE, message)
    assert not Path("dn2-store").exists()


def test_rule_that_does_not_exist_is_named(run: Run, photos: Path):
    done = run("clean", photos, "--clean", "magic")
    assert done.code == WRONG_USE
    assert "'magic' is not one of 'none', 'paper', 'auto'" in " ".join(re.sub("[│╭╮╰╯─]", " ", done.err).split())


def test_too_few_images_are_refused_in_one_line(run: Run, pictures: Path):
    """There is no bank then, and no cleaning."""
    message = r"cleaning file://\S+/pictures: got 12 different images, expected at least 20: .*; train without cleaning"
    check(run("clean", pictures), FAILED, message)
    check(run("train", pictures, "--clean", "auto"), FAILED, message)
    assert not {"banks", "cleaning"} & {path.name for path in Path("dn2-store").iterdir()}
    assert run("train", pictures).code == 0


def test_less_than_the_estimate_cannot_be_dropped(run: Run, tmp_path: Path):
    """Two kinds of pictures: noise, and some that hardly differ from each other."""
    make_pictures(tmp_path / "photos", 60)
    for number in range(4):
        Image.new("RGB", (48, 40), (200, 30, number)).save(tmp_path / "photos" / f"flat{number}.png")
    done = run("clean", "photos", "--clusters", "drop", "--drop", "0.001")
    lines = done.err.splitlines(keepends=True)
    assert done.code == WRONG_USE, done.err
    assert re.match("error: --drop: got 0.001, expected at least the estimated contamination, ", lines[-1])
    assert not (tmp_path / "dn2-store" / "cleaning").exists()


@pytest.mark.usefixtures("prefect_server")
def test_flow_shows_the_cleaning_with_its_page(photos: Path, own_store: Path):
    settings = {"source": str(photos), "store": str(own_store), "clean": {"rule": "paper", "contamination": 0.05}}
    state, tried = task_runs(clean, CleanParameters.model_validate(settings))
    assert tried == Counter({"choose-embedder": 1, "ingest": 1, "plan": 1, "embed": 1, "clean": 1})
    done = state.result()
    shown = artifacts(run_id(state))
    assert f"dn2-cleaning-{done.fingerprint}" in shown
    data = str(shown[f"dn2-cleaning-{done.fingerprint}"].data)
    assert "| dropped | 80 of 160 images (50.0%) |" in data
    assert "| taken for anomalies | 5.0%, as given |" in data
    assert r"report\.html" in data

    state, tried = task_runs(train, TrainParameters.model_validate({**settings, "bank": "b"}))
    assert (tried["clean"], tried["fit"]) == (1, 1)
    shown = artifacts(run_id(state))
    assert {"dn2-bank-b", f"dn2-cleaning-{done.fingerprint}"} <= set(shown)
    assert "| dropped by cleaning | 80, 5.0% taken for anomalies |" in str(shown["dn2-bank-b"].data)


@pytest.mark.parametrize("parameters", [CleanParameters, TrainParameters])
def test_every_setting_of_cleaning_is_described_where_a_form_reads_it(parameters: type[CleanParameters]):
    fields = parameters.model_json_schema()["$defs"]["CleanConfig"]["properties"]
    assert {"rule", "contamination", "drop_fraction", "clusters", "keep", "drop_cluster"} < set(fields)
    assert all(len(field["description"]) > 10 for field in fields.values())
