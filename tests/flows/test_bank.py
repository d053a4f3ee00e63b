"""`dn2 bank use`: a bank rolled back, and what scores, reports and nights make of it."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections import Counter
from pathlib import Path

import pytest

import dn2
from flows.banks import use_version
from flows.nightly import nightly_score
from flows.parameters import NightlyParameters, UseVersionParameters
from tests.conftest import Bricks
from tests.dn2.groups.synthetic import normal_groups, write_groups
from tests.flows.checks import WRONG_USE, check, files
from tests.flows.command import DN2, Run, environment, server
from tests.flows.nights import Nights
from tests.flows.told import artifacts, run_id, task_runs


@pytest.fixture
def nights(own_bricks: Bricks, tmp_path: Path) -> Nights:
    """A bank with two versions, of which the newer one is current."""
    nights = Nights(own_bricks, tmp_path)
    nights.train("bricks", k=5)
    return nights


@pytest.fixture
def second(nights: Nights) -> dn2.BankVersion:
    return dn2.open_bank(nights.bricks.store, "bricks")


def test_command_makes_the_older_version_current_and_the_second_time_says_that_it_is(
    run: Run, nights: Nights, second: dn2.BankVersion
):
    store, first = nights.bricks.store, nights.bricks.bank
    use = ("bank", "use", first.version[:6], "--bank", "bricks", "--store", store)
    before = files(store)
    done = run(*use)
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        f"bank bricks: version {first.version} is the current one now, it was {second.version}; "
        f"{first.rows} normal images, k = 2, l2\n"
    )
    after = files(store)
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"banks/bricks/current.json"}
    assert dn2.open_bank(store, "bricks") == first

    again = run(*use)
    assert (again.code, again.err) == (0, "")
    assert again.out == f"bank bricks: version {first.version} is the current one already, nothing was changed\n"
    assert files(store) == after


def test_bank_of_groups_goes_back_too(run: Run, tmp_path: Path):
    store = dn2.Store.open(tmp_path / "dn2-store")
    groups = write_groups(store, normal_groups([4] * 12, seed=0))
    first = dn2.fit_groups(groups, store, bank="lots", config=dn2.GroupFitConfig(false_alarm_rate=0.2))
    other = dn2.fit_groups(groups, store, bank="lots", config=dn2.GroupFitConfig(false_alarm_rate=0.2, k=3))
    done = run("bank", "use", first.version, "--bank", "lots")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        f"bank lots: version {first.version} is the current one now, it was {other.version}; 12 normal groups, "
        f"k = 2, l2\n"
    )
    assert dn2.open_group_bank(store, "lots") == first


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("kind", ["images", "groups"])
def test_run_shows_the_version_on_its_page(nights: Nights, kind: str):
    store, version = nights.bricks.store, nights.bricks.bank.version
    if kind == "groups":
        opened = dn2.Store.open(store)
        groups = write_groups(opened, normal_groups([4] * 12, seed=0))
        config = dn2.GroupFitConfig(false_alarm_rate=0.2)
        version = dn2.fit_groups(groups, opened, bank="lots", config=config).version
    name = "bricks" if kind == "images" else "lots"
    state, tried = task_runs(use_version, UseVersionParameters(store=str(store), bank=name, version=version))
    assert tried == Counter({"use-version": 1})
    assert state.result().version == version
    shown = artifacts(run_id(state))[f"dn2-bank-{name}"]
    assert (f"version {version}" in str(shown.data), shown.description) == (True, "The bank's current version")


def test_next_score_uses_the_older_version_and_finds_its_old_report_again(
    run: Run, nights: Nights, second: dn2.BankVersion
):
    store, first = nights.bricks.store, nights.bricks.bank
    nights.put("new", "good-01", "material-00")
    score = ("score", "new", "--store", store, "--bank", "bricks")

    def report() -> str:
        done = run(*score)
        found = re.search(r"^report: (\S+)/report\.html$", done.out, re.MULTILINE)
        assert (done.code, found is None) == (0, False)
        return found[1]

    newer = report()
    assert run("bank", "use", first.version, "--bank", "bricks", "--store", store).code == 0
    older = report()
    assert older != newer
    found = dn2.show(store).reports[0].newest
    assert {one.uri: one.made.version for one in found if one.made} == {newer: second.version, older: first.version}

    before = files(store / "reports")
    assert run("bank", "use", second.version, "--bank", "bricks", "--store", store).code == 0
    assert report() == newer
    assert run("bank", "use", first.version, "--bank", "bricks", "--store", store).code == 0
    assert report() == older
    assert files(store / "reports") == before


def names(report: dn2.Report | None) -> tuple[str, int]:
    assert report is not None
    return report.version, report.images


@pytest.mark.usefixtures("prefect_server")
def test_nights_score_only_what_no_version_has_scored_and_rescore_what_this_one_has_not(
    nights: Nights, second: dn2.BankVersion
):
    store, first = nights.bricks.store, nights.bricks.bank
    sources = nights.write("line")

    def night(**how: bool) -> tuple[str, int] | None:
        (outcome,) = nightly_score(NightlyParameters(sources=sources, **how))
        assert outcome.error is None
        return None if outcome.report is None else names(outcome.report)

    nights.put("line", "good-01", "good-03")
    assert night() == (second.version, 2)
    use_version(UseVersionParameters(store=str(store), bank="bricks", version=first.version))
    assert night() is None
    nights.put("line", "material-00")
    assert night() == (first.version, 1)
    assert night(rescore=True) == (first.version, 2)
    assert night(rescore=True) is None
    use_version(UseVersionParameters(store=str(store), bank="bricks", version=second.version))
    assert night() is None
    assert night(rescore=True) == (second.version, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["abc"], "version: got 'abc', expected 4 to 16 of the characters 0 to 9 and a to f"),
        (["../../current"], "version: got '../../current', expected 4 to 16"),
        (["[bold]"], r"version: got '\[bold\]', expected 4 to 16"),
        (["abcd", "--bank", "nuts"], "bank 'nuts': not in store .*, which has: bricks; make it with dn2 train"),
        (["abcd", "--bank", "../bricks"], r"bank: name '\.\./bricks' cannot be used"),
        (["abcd", "--store", "nowhere"], "bank 'bricks': not in store .*/nowhere, which has: none"),
        (["abcd", "--store", "nope://x"], "Protocol not known: nope"),
    ],
)
def test_nonsense_is_refused_in_one_line_and_changes_nothing(
    run: Run, own_bricks: Bricks, tmp_path: Path, arguments: list[str], message: str
):
    before = files(tmp_path)
    defaults = [] if "--store" in arguments else ["--store", str(own_bricks.store)]
    defaults += [] if "--bank" in arguments else ["--bank", "bricks"]
    check(run("bank", "use", *arguments, *defaults), WRONG_USE, message)
    assert files(tmp_path) == before


def test_unknown_version_is_refused_naming_those_there_are(run: Run, nights: Nights, second: dn2.BankVersion):
    versions = sorted([nights.bricks.bank.version, second.version])
    unknown = next(text for text in ("0000", "1111", "2222") if not any(one.startswith(text) for one in versions))
    done = run("bank", "use", unknown, "--bank", "bricks", "--store", nights.bricks.store)
    check(done, WRONG_USE, f"got version '{unknown}', expected one of: {', '.join(versions)}")
    assert dn2.open_bank(nights.bricks.store, "bricks") == second


def test_version_whose_vectors_were_deleted_is_not_made_current(run: Run, nights: Nights, second: dn2.BankVersion):
    store = nights.bricks.store
    for path in store.glob("banks/bricks/segments/*.npy"):
        path.unlink()
    done = run("bank", "use", nights.bricks.bank.version, "--bank", "bricks", "--store", store)
    check(done, WRONG_USE, r"its file file://.*\.npy is missing; use another version, or train the bank again")
    assert dn2.open_bank(store, "bricks") == second


def test_damaged_pointer_is_mended(run: Run, own_bricks: Bricks):
    pointer = own_bricks.store / "banks" / "bricks" / "current.json"
    whole = pointer.read_bytes()
    pointer.write_bytes(whole[:20])
    assert "got a damaged file, expected JSON" in run("show", "--store", own_bricks.store).err
    done = run("bank", "use", own_bricks.bank.version, "--bank", "bricks", "--store", own_bricks.store)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"bank bricks: version {own_bricks.bank.version} is the current one now; ")
    assert pointer.read_bytes() == whole
    assert run("show", "--store", own_bricks.store).code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_two_commands_at_once_lose_nothing(nights: Nights, second: dn2.BankVersion):
    """Each in a process of its own; one of the two is current in the end."""
    store, first = nights.bricks.store, nights.bricks.bank
    before = files(store)
    started = [
        subprocess.Popen(
            [DN2, "bank", "use", version, "--bank", "bricks", "--store", store],
            env=environment(**server()),
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in (first.version, second.version)
    ]
    said = [process.communicate(timeout=200)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert [text.partition("; ")[0].partition(" is the")[0] for text in said] == [
        f"bank bricks: version {version.version}" for version in (first, second)
    ]
    assert dn2.open_bank(store, "bricks") in (first, second)
    after = files(store)
    assert before.keys() == after.keys()
    assert {name for name in after if before[name] != after[name]} <= {"banks/bricks/current.json"}
    for version in (first, second):
        assert dn2.open_bank(store, "bricks", version=version.version) == version


@pytest.mark.s3
def test_bank_in_a_bucket_goes_back(run: Run, nights: Nights, s3_bucket: str):
    url = f"{s3_bucket}/{uuid.uuid4().hex}"
    target = dn2.Store.open(url)
    for path in sorted((nights.bricks.store / "banks").rglob("*")):
        if path.is_file():
            target.write(str(path.relative_to(nights.bricks.store)), path.read_bytes())
    first = nights.bricks.bank
    done = run("bank", "use", first.version[:8], "--bank", "bricks", "--store", url)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"bank bricks: version {first.version} is the current one now, it was ")
    assert dn2.open_bank(url, "bricks") == first
    assert f"* {first.version}" in run("show", "--store", url).out


def test_every_field_is_described_where_a_form_reads_it():
    schema = UseVersionParameters.model_json_schema()
    assert (schema["additionalProperties"], bool(schema["description"])) == (False, True)
    assert all(len(field["description"]) > 10 for field in schema["properties"].values())
