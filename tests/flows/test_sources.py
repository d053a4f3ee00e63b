"""The sources file: what is wrong with it is said in one line; what is right in it becomes parameters."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import yaml

from dn2.errors import ConfigError, Dn2Error, NotFoundError, SourceError
from flows.parameters import ScoreNewParameters
from flows.sources_file import SourcesFile, read_sources

EXAMPLE = Path(__file__).parents[2] / "deployments" / "sources.example.yaml"
ONE = "store: s\nnightly: [{source: a}]\n"


def refused(path: Path | str, kind: type[Dn2Error] = ConfigError) -> str:
    """Return the message with which a sources file is refused, after a check that it names the file."""
    with pytest.raises(Dn2Error) as caught:
        read_sources(str(path))
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.startswith(f"sources file {path if '://' in str(path) else f'file://{path}'}: ")
    assert "For further information" not in message  # pydantic's own, over many lines
    return message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nightly: [}", "got no YAML, expected a list of sources: "),
        ("store: a\n\tnightly: []\n", "got no YAML, expected a list of sources: "),
        ("store: !!python/object/apply:os.getcwd []\n", "got no YAML, .*could not determine a constructor"),
        ("store: s\nnightly: [{source: &a [*a, *b]}]", "got no YAML, .*got an alias"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "got no YAML, .*got an alias"),
        ("store: s\nnightly: []\nnightly: []\n", "got no YAML, .*got 'nightly' 2 times"),
        ("#" * 1_000_001, "got 1,000,001 characters, expected at most 1,000,000"),
        ("store: nope://x\nnightly: [{source: a}]\n", "sources.yaml: store: URL 'nope://x' cannot be opened"),
        ("store: s\nnightly: [{source: a}, {source: 'nope://x'}]\n", r"nightly\.1\.source: URL 'nope://x' cannot"),
        ("[" * 5000, "got no YAML, expected a list of sources: "),
        ("store: \0", "got no YAML, expected a list of sources: "),
        ("", "got None, expected the fields store, nightly, watch, embed, score, group_score, tell"),
        ("# nothing but a remark\n", "got None, expected the fields store"),
        ("- source: a\n- source: b\n", r"got \[\{'source': 'a'\}, \{'source': 'b'\}\], expected the fields store"),
        ("just words", "got 'just words', expected the fields store"),
        ("{}", "store = .*: Field required"),
        ("nightly: [{source: a}]", "store = .*: Field required"),
        ("store: ''\nnightly: [{source: a}]", "store = '': String should have at least 1 character"),
        ("store: s\nnightly: [{source: ''}]", r"nightly\.0\.source = '': String should have at least 1 character"),
        ("store: [s]\nnightly: [{source: a}]", r"store = \['s'\]: Input should be a valid string"),
        ("store: s\n", "got neither nightly nor watch, expected a list of at least one source"),
        ("store: s\nnightly: []\nwatch: []\n", "got neither nightly nor watch"),
        ("store: s\nnightly: a\n", "nightly = 'a': Input should be a valid tuple"),
        (
            "store: s\nnightly: [a]\n",
            r"nightly\.0 = 'a': Input should be a valid dictionary or instance of NightlySource",
        ),
        ("store: s\nnightly: [{bank: b}]\n", r"nightly\.0\.source = .*: Field required"),
        (
            "store: s\nnightly: [{source: 2026-01-31}]\n",
            r"nightly\.0\.source = .*date.*: Input should be a valid string",
        ),
        ("store: s\nnightly: [{source: no}]\n", r"nightly\.0\.source = False: Input should be a valid string"),
        (
            "store: s\nnightly: [{source: a}, {source: b, bank: ../x}]\n",
            r"nightly\.1\.bank: name '\.\./x' cannot be used",
        ),
        ("store: s\nnightly: [{source: a, dataset: a/b}]\n", r"nightly\.0\.dataset: name 'a/b' cannot be used"),
        ("store: s\nwatch: [{bank: b}]\n", r"watch\.0\.prefix = .*: Field required"),
        ("store: s\nwatch: [{prefix: p, marker: a/b}]\n", r"watch\.0\.marker = 'a/b': String should match pattern"),
        ("store: s\nwatch: [{prefix: p, marker: ''}]\n", r"watch\.0\.marker = '': String should have at least 1"),
        (
            "store: s\nwatch: [{prefix: p, unit: prefix, marker: m}]\n",
            r"watch\.0: got marker 'm' with unit prefix, .* expected unit folder, or no marker",
        ),
        (
            "store: s\nwatch: [{prefix: p, unit: file}]\n",
            r"watch\.0\.unit = 'file': Input should be 'folder' or 'prefix'",
        ),
        ("store: s\nwatch: [{prefix: p, settle_minutes: -1}]\n", r"watch\.0\.settle_minutes = -1: .* or equal to 0"),
        ("store: s\nwatch: [{prefix: p, settle_minutes: .inf}]\n", r"watch\.0\.settle_minutes = inf: .*finite number"),
        ("store: s\nwatch: [{prefix: p, again_minutes: 0}]\n", r"watch\.0\.again_minutes = 0: .* greater than 0"),
        (
            f"{ONE}tell: {{report_base_url: 'ftp://host'}}\n",
            r"tell\.report_base_url: got 'ftp://host', expected the address",
        ),
        *(
            (f"{ONE}tell: {{report_base_url: '{url}'}}\n", r"tell\.report_base_url: got .*, expected the address")
            for url in ("http://", "http://a b", "http://x/?q=1", "http://x#f", "http://x/) <img src=x>")
        ),
        ("store: s\nnightly: [{source: a, pattern: '{x}'}]\n", r"nightly\.0\.pattern: pattern '\{x\}': got the field"),
        ("store: s\nnightly: [{source: a, pattern: ''}]\n", r"nightly\.0\.pattern: pattern '': got nothing"),
        ("store: s\nnightly: [{source: a.csv, split: ''}]\n", r"nightly\.0\.split = '': String should have at least 1"),
        ("store: s\nwatch: [{prefix: p, pattern: '/{label}'}]\n", r"watch\.0\.pattern: .*: got a slash in front"),
        (f"{ONE}tell: {{alert_rate: 1}}\n", r"tell\.alert_rate = 1: Input should be less than 1"),
        (f"{ONE}embed: {{batch_size: 0}}\n", r"embed\.batch_size = 0: .* or equal to 1"),
    ],
)
def test_bad_file_is_refused_with_its_name_and_the_field(tmp_path: Path, content: str, message: str):
    path = tmp_path / "sources.yaml"
    path.write_text(content)
    assert re.search(message, refused(path), re.DOTALL), refused(path)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (f"{ONE}sauce: 1\n", "sauce"),
        ("store: s\nnightly: [{source: a, sauce: 1}]\n", "nightly.0.sauce"),
        ("store: s\nwatch: [{prefix: a, sauce: 1}]\n", "watch.0.sauce"),
        ("store: s\nwatch: [{prefix: a, split: 1}]\n", "watch.0.split"),
        (f"{ONE}embed: {{sauce: 1}}\n", "embed.sauce"),
        (f"{ONE}score: {{sauce: 1}}\n", "score.sauce"),
        (f"{ONE}tell: {{sauce: 1}}\n", "tell.sauce"),
    ],
)
def test_unknown_field_is_named_with_its_place(tmp_path: Path, content: str, field: str):
    path = tmp_path / "sources.yaml"
    path.write_text(content)
    assert refused(path).endswith(f": {field} = 1: Extra inputs are not permitted")


def test_every_bad_field_is_named_at_once(tmp_path: Path):
    path = tmp_path / "sources.yaml"
    path.write_text("nightly: [{source: a, bank: ''}]\nwatch: [{prefix: 1}]\n")
    assert re.search(r"store = .*; nightly\.0\.bank: .*; watch\.0\.prefix = 1: ", refused(path))


@pytest.mark.parametrize(
    ("group", "first", "second", "message"),
    [
        ("nightly", "source: a", "source: ./a/", "nightly: got file://{folder}/a with bank default 2 times"),
        ("nightly", "source: a, bank: b", "source: '{folder}/a', bank: b", "got file://{folder}/a with bank b 2 times"),
        (
            "nightly",
            "source: a.csv, split: x",
            "source: ./a.csv, split: x",
            "nightly: got file://{folder}/a.csv with split 'x' with bank default 2 times",
        ),
        ("watch", "prefix: a", "prefix: b/../a", "watch: got file://{folder}/a with bank default 2 times"),
    ],
)
def test_place_that_is_named_twice_is_refused_however_it_is_written(
    tmp_path: Path, group: str, first: str, second: str, message: str
):
    path = tmp_path / "sources.yaml"
    path.write_text(f"store: s\n{group}: [{{{first}}}, {{{second.format(folder=tmp_path)}}}]\n")
    assert refused(path).endswith(f"{message.format(folder=tmp_path)}, expected each pair once")


def test_same_place_with_two_banks_is_no_duplicate(tmp_path: Path):
    path = tmp_path / "sources.yaml"
    path.write_text("store: s\nnightly: [{source: a, bank: one}, {source: a, bank: two}]\nwatch: [{prefix: a}]\n")
    file = read_sources(str(path))
    assert [one.bank for one in file.nightly] == ["one", "two"]
    assert [one.bank for one in file.watch] == ["default"]


def test_splits_of_one_table_are_no_duplicates(tmp_path: Path):
    path = tmp_path / "sources.yaml"
    path.write_text("store: s\nnightly: [{source: a.csv, split: x}, {source: a.csv, split: y}, {source: a.csv}]\n")
    assert [one.split for one in read_sources(str(path)).nightly] == ["x", "y", None]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda path: None, NotFoundError, "nothing is there"),
        (lambda path: path.write_bytes(b"store: \xff\n"), ConfigError, "got bytes that are not UTF-8, expected text"),
        (lambda path: path.mkdir(), SourceError, "cannot be read: .*Is a directory"),
    ],
    ids=["missing", "not UTF-8", "a folder"],
)
def test_file_that_cannot_be_read(tmp_path: Path, make: Callable[[Path], object], kind: type[Dn2Error], message: str):
    path = tmp_path / "sources.yaml"
    make(path)
    assert re.search(message, refused(path, kind))


def test_relative_places_are_taken_from_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And not from the working directory; absolute ones, URLs and the home folder stay what they are."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("etc/sources.yaml").write_text(
        yaml.safe_dump(
            {
                "store": "../store",
                "nightly": [{"source": one} for one in ("a", "/data/b/", "~/c", "s3://bucket/d/", "file:///data/e")],
                "watch": [{"prefix": "./in coming"}, {"prefix": "memory://drops"}],
            }
        )
    )
    file = read_sources("etc/sources.yaml")
    assert file.store == f"file://{tmp_path}/store"
    assert [one.source for one in file.nightly] == [
        f"file://{tmp_path}/etc/a",
        "file:///data/b",
        f"file://{tmp_path}/home/c",
        "s3://bucket/d",
        "file:///data/e",
    ]
    assert [one.prefix for one in file.watch] == [f"file://{tmp_path}/etc/in coming", "memory://drops"]
    assert read_sources(f"file://{tmp_path}/etc/sources.yaml") == file


@pytest.mark.s3
def test_file_in_a_bucket_may_name_places_beside_it(s3_bucket: str):
    content = "store: ../store\nnightly: [{source: line-1}, {source: /data/b}, {source: 's3://other/x'}]\n"
    fsspec.filesystem("s3").pipe_file(f"{s3_bucket}/conf/sources.yaml", content.encode())
    file = read_sources(f"{s3_bucket}/conf/sources.yaml")
    assert file.store == f"{s3_bucket}/store"
    assert [one.source for one in file.nightly] == [f"{s3_bucket}/conf/line-1", "file:///data/b", "s3://other/x"]


@pytest.mark.s3
def test_file_that_is_missing_in_a_bucket(s3_bucket: str):
    assert refused(f"{s3_bucket}/conf/nothing.yaml", NotFoundError).endswith("nothing is there")


def test_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path):
    path = tmp_path / "sources.yaml"
    path.write_text("store: s\nnightly: [{source: 'ftp://me:secret@host/a'}]\n")
    with pytest.raises(ConfigError, match="URL of host: got a password in it") as caught:
        read_sources(str(path))
    assert "secret" not in str(caught.value)


def test_batches_pair_every_source_with_the_shared_settings_in_the_files_order(tmp_path: Path):
    path = tmp_path / "sources.yaml"
    path.write_text(
        "store: s\n"
        "nightly: [{source: b, bank: two, dataset: mine, pattern: '{group_id}/*'}, {source: a.csv, split: new}]\n"
        "watch: [{prefix: p, bank: three}]\n"
        "embed: {shard_size: 7}\n"
        "score: {report_images: 3}\n"
        "tell: {alert_rate: 0.5, report_base_url: 'https://host/reports/'}\n"
    )
    shared = {
        "store": f"file://{tmp_path}/s",
        "embed": {"shard_size": 7},
        "score": {"report_images": 3},
        "tell": {"alert_rate": 0.5, "report_base_url": "https://host/reports"},
        "rescore": True,
    }
    file = read_sources(str(path))
    assert file.batches(rescore=True) == (
        ScoreNewParameters.model_validate(
            {
                "source": f"file://{tmp_path}/b",
                "bank": "two",
                "dataset": "mine",
                "pattern": "{group_id}/*",
                **shared,
            }
        ),
        ScoreNewParameters.model_validate(
            {"source": f"file://{tmp_path}/a.csv", "bank": "default", "split": "new", **shared}
        ),
    )
    assert [batch.rescore for batch in file.batches(rescore=False)] == [False, False]
    assert [one.bank for one in file.watch] == ["three"]


def test_example_is_the_demos_batch_with_its_bank():
    file = read_sources(str(EXAMPLE))
    demo = EXAMPLE.parents[1] / "dn2-demo"
    assert file.store == f"file://{demo}/store"
    assert [(one.source, one.bank) for one in file.nightly] == [(f"file://{demo}/images/batch", "bricks")]
    assert file.watch == ()


def test_what_the_example_leaves_commented_out_is_a_valid_file_too(tmp_path: Path):
    """Without the comment marks, as a reader would try it."""
    path = tmp_path / "sources.yaml"
    path.write_text(re.sub("^# (?=watch:|tell:| )", "", EXAMPLE.read_text(), flags=re.MULTILINE))
    file = read_sources(str(path))
    assert [(one.prefix, one.bank, one.marker) for one in file.watch] == [
        ("s3://deliveries/line-3", "bricks", "_READY")
    ]
    assert (file.tell.report_base_url, file.tell.alert_rate) == ("http://127.0.0.1:8080", 0.05)


def test_every_setting_of_the_file_has_a_description():
    schema = SourcesFile.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        for name, field in part["properties"].items():
            assert len(field["description"]) > 10, name
