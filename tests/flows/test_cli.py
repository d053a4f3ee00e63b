"""The commands in this process: what they print, and what they leave alone the second time."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import Bricks, make_pictures
from tests.dn2.images.listing import touch
from tests.flows.checks import files
from tests.flows.command import Done, Run, dn2

COMMANDS = ["ingest", "embed", "clean", "train", "score", "rethreshold", "nightly", "demo", "show", "bank"]
CLEANING = ["--clean", "--contamination", "--drop"]
GROUPS = ["--pattern", "--split"]
INDEX = ["--index", "--centroids", "--nlist", "--nprobe", "--recall", "--expected-queries", "--segment-rows"]
THRESHOLDS = ["--far", "--quantile", "--threshold", "--budget", "--fdr"]


def plain(text: str) -> str:
    """Return help without its frames and line breaks."""
    return " ".join(re.sub(r"[│╭╮╰╯─•]", " ", text).split())


def test_help_tells_a_newcomer_how_to_begin():
    done = dn2("--help")
    assert (done.code, done.err) == (0, "")
    text = plain(done.out)
    for line in (
        "try it: dn2 demo",
        "dn2 train photos/normal --bank parts",
        "dn2 score photos/today --bank parts --out report",
        "dn2 bank add photos/confirmed --bank parts",
        "any fsspec URL (s3://bucket/prefix)",
        "or a table (.csv, .parquet) that lists images",
        "a glob ('photos/2026-*/**')",
        "goes on where it was",
        "0 done, 1 failed, 2 wrong use",
        *COMMANDS,
    ):
        assert line in text


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("ingest", ["--store", "--dataset", *GROUPS]),
        (
            "embed",
            ["--store", "--dataset", *GROUPS, "--backbone", "--engine", "--device", "--batch-size", "--shard-size"],
        ),
        ("clean", ["--store", "--dataset", *GROUPS, "--backbone", *CLEANING]),
        ("train", ["--store", "--bank", *GROUPS, "--backbone", "--k", "--metric", "--far", *CLEANING, *INDEX]),
        ("score", ["--store", "--bank", *GROUPS, "--out", "--backbone", *THRESHOLDS]),
        ("rethreshold", ["--store", "--out", *THRESHOLDS]),
        ("nightly", ["--rescore"]),
        ("demo", ["--workdir"]),
        ("show", ["--store", "--newest", "--json"]),
    ],
)
def test_help_of_each_command_explains_every_option(ask: Run, command: str, options: list[str]):
    done = ask(command, "--help")
    assert (done.code, done.err) == (0, "")
    text = plain(done.out)
    assert ("A folder or fsspec URL with images" in text) == (command not in ("nightly", "demo", "rethreshold", "show"))
    assert ("Folder that a report was exported to, its report.html, or a report's URI." in text) == (
        command == "rethreshold"
    )
    assert ("YAML file or fsspec URL that lists the sources." in text) == (command == "nightly")
    for option in (*options, "--verbose", "--help"):
        explained = re.search(rf"{option} (?:-v )?<[^>]*> ([A-Za-z][^-]{{9,}})", text)
        assert explained, option


@pytest.mark.parametrize(
    ("command", "does", "argument", "options"),
    [
        (
            "use",
            "Make an older version of a bank the current one again.",
            "Version of the bank, or its first characters",
            [],
        ),
        (
            "add",
            "Add confirmed normal images to a bank, without training it again.",
            "A folder or fsspec URL with images",
            ["--dataset", *GROUPS, "--backbone", "--engine", "--device", "--batch-size", "--shard-size"],
        ),
        ("remove", "Remove images from a bank, without training it again.", "Ids of the images to remove.", []),
        ("anomalies", "Keep confirmed anomalies, which never enter a bank", "Text with a path, URI or image id", []),
    ],
)
def test_help_of_the_commands_about_banks_explains_them(
    ask: Run, command: str, does: str, argument: str, options: list[str]
):
    assert f"{command} {does}" in plain(ask("bank").out)
    done = ask("bank", command, "--help")
    assert (done.code, done.err) == (0, "")
    text = plain(done.out)
    assert argument in text
    for option in (*options, "--bank", "--store", "--verbose", "--help"):
        assert re.search(rf"{option} (?:-v )?<[^>]*> ([A-Za-z][^-]{{9,}})", text), option


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("dn2 tra", ["train", "train-groups"]),
        ("dn2 bank ", ["add", "remove", "anomalies", "use"]),
        ("dn2 train --segment", ["--segment-rows"]),
        ("dn2 train photos --metric ", ["l2", "cosine"]),
    ],
)
def test_shell_completes_commands_options_and_values(typed: str, completed: list[str]):
    words = typed.split(" ")
    done = dn2(_DN2_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1))
    assert (done.code, done.out.split()) == (0, completed)


def test_completion_installs_itself_for_the_users_shell(tmp_path: Path):
    done = dn2("--install-completion", "bash", HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (done.code, "bash completion installed in" in done.out) == (0, True)
    assert "_DN2_COMPLETE=complete_bash" in (tmp_path / ".bash_completions" / "dn2.sh").read_text()
    assert "dn2.sh" in (tmp_path / ".bashrc").read_text()


def test_help_shows_about_ten_options_first_and_the_rest_apart(ask: Run):
    first, _, rest = ask("train", "--help").out.partition("Expert options")
    assert 8 <= len(re.findall(r"^│ --", first, re.MULTILINE)) <= 12
    assert {"--far", "--k", "--clean"} <= set(re.findall(r"--[\w-]+", first))
    assert {"--nprobe", "--max-rejects", "--decode-threads"} <= set(re.findall(r"--[\w-]+", rest))


def test_messages_of_the_library_name_options_as_they_are_typed(run: Run, tmp_path: Path):
    make_pictures(tmp_path / "photos", 30)
    done = run("train", "photos", "--clean", "paper", "--drop", "0.95")
    assert done.code == 2
    assert done.err.startswith("error: --drop: got 0.95, which keeps 2 of 30 different images, expected")
    done = run("train", "photos", "--bank-memory-gb", "1e-6")
    assert done.code == 1
    assert "expected at most --bank-memory-gb = 1e-06" in done.err


def test_option_that_two_groups_of_settings_have_sets_both(run: Run, tmp_path: Path):
    """Cleaning and training refuse alike what is too much for either."""
    make_pictures(tmp_path / "photos", 24)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    limits = ["--max-rejects", "0", "--max-reject-rate", "0"]
    for clean in ("none", "auto"):
        done = run("train", "photos", "--clean", clean, *limits)
        assert (done.code, "got 1 of 25 that cannot be read, expected at most 0" in done.err) == (1, True)


def test_version_is_that_of_the_package():
    done = dn2("--version")
    assert (done.code, done.out, done.err) == (0, f"{version('dn2')}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "pictures", "--nope"], "No such option: --nope"),
        (["nope"], "No such command 'nope'"),
        (["train"], "Missing argument 'source'"),
        (["nightly"], "Missing argument 'sources'"),
        (["rethreshold"], "Missing argument 'report'"),
        (["bank", "use"], "Missing argument 'version'"),
        (["bank", "add"], "Missing argument 'source'"),
        (["bank", "remove"], "Missing argument 'image_ids'"),
        (["bank", "nope"], "No such command 'nope'"),
        (["show", "--newest", "all"], "Invalid value for '--newest'"),
        (["rethreshold", "report", "--budget", "few"], "Invalid value for '--budget'"),
        (["train", "pictures", "--k", "two"], "Invalid value for '--k'"),
        (["train", "pictures", "--metric", "l3"], "'l3' is not one of 'l2', 'cosine'"),
        (["train", "pictures", "--index", "hnsw"], "'hnsw' is not one of 'auto', 'exact', 'ivf', 'centroids'"),
        (["score", "pictures", "--engine", "tea"], "'tea' is not one of 'auto', 'openvino', 'torch'"),
    ],
)
def test_wrong_use_of_options_points_to_help(ask: Run, tmp_path: Path, arguments: list[str], message: str):
    done = ask(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in plain(done.err)
    assert "--help' for help" in done.err
    assert list(tmp_path.iterdir()) == []


def test_ingest_says_what_it_found_and_the_second_time_that_nothing_changed(run: Run, tmp_path: Path):
    make_pictures(tmp_path / "photos", 3)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    first = run("ingest", "photos")
    assert re.fullmatch(
        r"dataset photos-\w{8}: 3 images, 3 added, 0 changed, 0 vanished; 1 other files ignored\n", first.out
    )
    before = files(tmp_path)
    second = run("ingest", "photos")
    assert second.out == first.out.replace("3 added, 0 changed, 0 vanished", "nothing changed, nothing written")
    assert (first.code, first.err, second.code, second.err) == (0, "", 0, "")
    assert files(tmp_path) == before
    (tmp_path / "photos" / "000.png").unlink()
    assert "2 images, 0 added, 0 changed, 1 vanished; 1 other files ignored" in run("ingest", "photos").out


def test_embed_counts_images_rejects_and_shards(run: Run, tmp_path: Path):
    make_pictures(tmp_path / "photos", 5)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    done = run("embed", "photos", "--shard-size", "4", "--batch-size", "3", "--backbone", "efficientnet_lite0")
    assert (done.code, done.err) == (0, "")
    assert re.search(r"\nembedded 5, rejected 1, by efficientnet_lite0-[0-9a-f]{12}, in 2 shards\n$", done.out)
    before = files(tmp_path)
    assert run("embed", "photos", "--shard-size", "4").code == 0
    assert files(tmp_path) == before


def check_few_units(done: Done, units: int) -> None:
    """So small a bank is trained, with that warning only."""
    assert done.code == 0
    assert re.fullmatch(
        rf"warning: bank \w+: the bank rests on {units} independent units, [^\n]* \[few-units\]\n", done.err
    )


def test_train_passes_every_option_on(run: Run, tmp_path: Path):
    make_pictures(tmp_path / "photos", 8)
    done = run("train", "photos", "--bank", "mine", "--k", "3", "--metric", "cosine", "--far", "0.3", "--dataset", "d")
    assert done.code == 0
    assert re.match(r"bank mine, version [0-9a-f]{16}: 8 normal images, 0 rejected, \w+, k = 3, cosine\n", done.out)
    assert "flags about 30.00% (" in done.out
    assert [*Path("dn2-store/manifests").iterdir()] == [Path("dn2-store/manifests/d")]
    check_few_units(done, 8)


FIDELITY = r"rank correlation [\d.]+, scores off by [\d.]+% on average, \d+ decisions? flipped\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], r"index exact: to score 100,000 images, comparing each with all 60 takes no longer than [^\n]*\n"),
        (["--index", "exact", "--segment-rows", "25"], r"index exact, 3 segments: as asked for\n"),
        (["--expected-queries", "7"], r"index exact: to score 7 images, [^\n]*\n"),
        (
            ["--index", "ivf", "--nlist", "5", "--nprobe", "2"],
            r"index ivf, 5 cells, 2 visited: as asked for\n"
            rf"on \d+ images of the bank, each without itself: recall [01]\.\d\d\d, {FIDELITY}",
        ),
        (
            ["--index", "ivf", "--nlist", "4", "--recall", "1"],
            rf"index ivf, 4 cells, \d visited: as asked for\non \d+ images of [^\n]*: recall [01]\.\d\d\d, {FIDELITY}",
        ),
        (
            ["--index", "centroids", "--centroids", "7"],
            rf"index centroids, 7 centres: as asked for\non \d+ images that are not in the bank: {FIDELITY}",
        ),
    ],
)
def test_train_says_which_index_the_bank_has_and_what_it_costs(run: Run, tmp_path: Path, options: list[str], said: str):
    make_pictures(tmp_path / "photos", 60)
    done = run("train", "photos", "--bank", "mine", "--far", "0.3", *options)
    if "centroids" in options:
        check_few_units(done, 12)
    else:
        assert (done.code, done.err) == (0, "")
    assert re.fullmatch(rf"bank mine, [^\n]*\n{said}threshold [^\n]*\n", done.out), done.out
    shown = run("show").out
    index = re.match(r"index (\w+)", said)
    assert index is not None
    assert (re.findall(r", index (\w+)\n", shown) or ["exact"]) == [index[1]]


def test_train_tells_copies(run: Run, tmp_path: Path):
    make_pictures(tmp_path / "photos", 8)
    for number in range(2):
        (tmp_path / "photos" / f"copy{number}.png").write_bytes((tmp_path / "photos" / "000.png").read_bytes())
    done = run("train", "photos", "--far", "0.3")
    check_few_units(done, 8)
    assert "\n2 images have the same bytes as another one\n" in done.out


def test_train_warns_when_the_threshold_cannot_promise_what_was_asked_for(run: Run, pictures: Path):
    done = run("train", pictures, "--bank", "few")
    assert done.code == 0
    assert re.fullmatch(
        r"warning: bank few: 12 calibration images cannot promise [^\n]* 99 images would do \[rate-not-kept\]\n"
        r"warning: bank few: the bank rests on 12 independent units, [^\n]* \[few-units\]\n",
        done.err,
    )


def test_second_score_returns_the_finished_report_untouched(run: Run, own_bricks: Bricks, tmp_path: Path):
    command = ("score", own_bricks.batch, "--store", own_bricks.store, "--bank", "bricks")
    first = run(*command, "--out", "report")
    assert first.code == 0
    assert re.match(
        r"\d+ of 160 images are anomalous \(score above [\d.]+\), 3 could not be read; [\d.]+ s\n"
        r"threshold: the bank's own, for a false-alarm rate of 1%; \d+ images are selected at a false-discovery rate "
        r"of 10%\nreport: ",
        first.out,
    )
    assert first.out.endswith(f"report: {tmp_path / 'report' / 'report.html'}\n")
    before = files(tmp_path / "store")
    second = run(*command)
    assert second.out.split(";")[0] == first.out.split(";")[0]
    found = re.search(r"report: file://(\S+)\n$", second.out)
    assert found is not None
    assert Path(found[1]).read_bytes() == (tmp_path / "report" / "report.html").read_bytes()
    assert files(tmp_path / "store") == before


def test_ingest_warns_of_images_that_the_pattern_does_not_fit(run: Run, tmp_path: Path):
    touch(tmp_path / "photos", "ok/1/a.png", "ok/1/b.png", "ok/c.png")
    first = run("ingest", "photos", "--pattern", "{label}/{group_id}/*")
    assert (first.code, first.out.partition(", ")[0][-8:]) == (0, "3 images")
    assert re.fullmatch(
        r"warning: dataset photos-\w{8}: 1 of 3 images fit no group: the pattern '\{label\}/\{group_id\}/\*' does not "
        r"match, for example, 'ok/c.png'\n",
        first.err,
    )
    before = files(tmp_path)
    second = run("ingest", "photos", "--pattern", "ok/**{group_id}.png")
    assert ("nothing changed, nothing written" in second.out, second.err, second.code) == (True, "", 0)
    assert files(tmp_path) == before


WRONG = [
    (
        ["photos", "--pattern", "{part}/*"],
        "error: --pattern: pattern '{part}/*': got the field {part}, expected {group",
    ),
    (
        ["photos", "--pattern", "*.tif{label}"],
        "which fits no image there, expected one that fits paths such as 'a.png'",
    ),
    (["photos", "--split", "test"], "got split 'test', expected a table that ends in .csv or .parquet"),
    (["list.csv", "--split", ""], "error: --split = '': String should have at least 1 character"),
    (["list.csv", "--split", "new"], "got split 'new', which no row has, expected one of those there are: 'old'"),
    (
        ["list.csv", "--pattern", "{label}/*"],
        "with a table, expected groups and labels in its columns group_id and label",
    ),
]
OTHERS = ["ingest", "embed", "clean", "score"]  # each with one wrong pattern and one wrong split


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [("train", *one) for one in WRONG] + [(command, *WRONG[number]) for command in OTHERS for number in (1, 4)],
)
def test_pattern_or_split_that_cannot_work_is_wrong_use(
    run: Run, own_bricks: Bricks, tmp_path: Path, command: str, options: list[str], message: str
):
    make_pictures(tmp_path / "photos", 1)
    (tmp_path / "photos" / "000.png").rename(tmp_path / "photos" / "a.png")
    (tmp_path / "list.csv").write_text("uri,split\nphotos/a.png,old\n")
    bank = ["--bank", "bricks"] if command == "score" else []
    before = files(own_bricks.store / "banks")
    done = run(command, *options, "--store", own_bricks.store, *bank)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert files(own_bricks.store / "banks") == before


def test_table_with_splits_is_trained_and_scored(run: Run, bricks: Bricks, tmp_path: Path):
    """Its groups and labels stand in the report; a file that is not there is a reject."""
    lines = [f"{path},train,g{number % 4},ok" for number, path in enumerate(sorted(bricks.normal.iterdir()))]
    batch = [bricks.batch / f"{name}.png" for name in ("good-01", "material-00")]
    lines += [f"{path},test,007,{path.stem}" for path in batch] + [f"{tmp_path}/gone.png,test,,"]
    (tmp_path / "all.csv").write_text("\n".join(["uri,split,group_id,label", *lines, ""]))
    trained = run("train", "all.csv", "--split", "train", "--bank", "walls")
    assert trained.code == 0
    assert f" {len(lines) - 3} normal images, 0 rejected" in trained.out
    scored = run("score", "all.csv", "--split", "test", "--bank", "walls", "--out", "report")
    assert (scored.code, re.search("of 2 images are anomalous .*, 1 could not be read", scored.out) is None) == (
        0,
        False,
    )
    rows = pq.read_table("report/part-00000.parquet").to_pylist()
    assert {(Path(row["uri"]).stem, row["group_id"], row["label"], row["reject_reason"]) for row in rows} == {
        ("good-01", "007", "good-01", None),
        ("material-00", "007", "material-00", None),
        ("gone", None, None, "not found when the table was listed"),
    }


def test_score_takes_groups_from_a_pattern_and_another_one_embeds_nothing(run: Run, own_bricks: Bricks):
    command = ("score", own_bricks.batch, "--store", own_bricks.store, "--bank", "bricks", "--out", "report")
    found = []
    embeddings: list[object] = []
    for pattern in ("{label}-*", "{group_id}-{label}.png"):
        assert run(*command, "--pattern", pattern).code == 0
        embeddings.append(files(own_bricks.store / "embeddings"))
        rows = pq.read_table("report/part-00000.parquet").to_pylist()
        found.append({(row["group_id"], row["label"]) for row in rows if row["uri"].endswith("/good-01.png")})
    assert found == [{(None, "good")}, {("good", "01")}]
    assert embeddings[0] == embeddings[1]


def test_only_results_go_to_standard_output(run: Run, pictures: Path):
    """With --verbose too: the log goes beside them."""
    done = run("embed", pictures, "--verbose")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == ["dataset", "embedded"]
    assert re.search(r"info: dataset pictures-\w{8}: 12 images in file://", done.err)
