"""A kind of source is one file that says what it takes: what a new one costs, and that no other file names it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dn2
from dn2.errors import ConfigError, EmptySourceError
from dn2.sources import opening
from dn2.sources.opening import KINDS, kind_named, open_source, pack_suffixes, source_words, tells_groups
from dn2.sources.source import Source
from dn2.store.schemas import REPORT
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.conftest import make_pictures
from tests.dn2.images.listing import live_uris
from tests.dn2.sources.zips import ZipSource

ROOT = Path(__file__).parents[3]
ROOM = ROOT / "dn2" / "sources"
READ_BY = {"tables.py": ["foreign.py"]}  # the files of a kind that read what it lists
CONFIG = dn2.EmbedConfig(backbone="tests.dn2.features.own:Grid")


@pytest.fixture
def with_zips(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more line in the list of kinds."""
    monkeypatch.setattr(opening, "KINDS", (*KINDS, ZipSource))


@pytest.fixture
def zips(tmp_path: Path) -> Path:
    """A folder with 12 pictures in two archives, each with a file that is no image."""
    make_pictures(tmp_path / "pictures", 12)
    pictures = sorted((tmp_path / "pictures").iterdir())
    (tmp_path / "zips").mkdir()
    for name, some in (("bad", pictures[:4]), ("ok", pictures[4:])):
        with zipfile.ZipFile(tmp_path / "zips" / f"{name}.zip", "w") as archive:
            archive.writestr("notes.txt", "x")
            for picture in some:
                archive.write(picture, f"part-{picture.stem}/{picture.name}")
    return tmp_path / "zips"


def scores(source: str | Path, folder: Path) -> list[float]:
    """Train on a source of 12 images and score it: the scores in their order."""
    store = Store.open(folder)
    embedded = dn2.embed(dn2.ingest(source, store), store, config=CONFIG)
    report = dn2.score(embedded, store, bank=dn2.fit(embedded, store, bank="parts"))
    assert (report.images, report.rejected) == (12, 0)
    rows = read_table(store, f"{report.uri.removeprefix(f'{store.uri}/')}/part-00000.parquet", REPORT)
    return sorted(rows["score"].to_pylist())


@pytest.mark.usefixtures("with_zips")
def test_new_kind_is_scored_as_a_folder_is(zips: Path, tmp_path: Path):
    found = dn2.ingest(f"{zips}/*.zip", tmp_path / "store", pattern="{label}.zip/{group_id}/*")
    assert (found.images, found.ignored, found.ungrouped) == (12, 2, 0)
    assert scores(f"{zips}/*.zip", tmp_path / "store") == scores(tmp_path / "pictures", tmp_path / "other")


@pytest.mark.usefixtures("with_zips")
def test_new_kind_is_a_source_as_one_file(zips: Path, store: Store):
    found = dn2.ingest(zips / "bad.zip", store, pattern="{group_id}/*")
    assert (found.images, found.ignored, found.ungrouped) == (4, 1, 0)
    assert found.name.startswith("bad-zip-")
    assert live_uris(store, found)[0] == f"file://{zips}/bad.zip#part-000/000.png"
    assert dn2.embed(found, store, config=CONFIG).embedded == 4


@pytest.mark.usefixtures("with_zips")
def test_new_kind_is_told_where_sources_are(zips: Path, tmp_path: Path):
    assert source_words().endswith("a .csv or .parquet that lists images; or a .zip of images, or a glob of them.")
    with pytest.raises(EmptySourceError, match=r"images in \.zip files are given as '.*/zips/\*\*/\*\.zip'$"):
        dn2.ingest(zips, tmp_path / "store")
    with pytest.raises(ConfigError, match=r"got a glob of tables, .*, of \.zip files$"):
        open_source(f"{zips}/*.csv")
    assert not tells_groups(f"file://{zips}/bad.zip")


@pytest.mark.usefixtures("with_zips")
@pytest.mark.parametrize("name", ["bad.zip", "*.zip"])
def test_new_kind_takes_what_it_says(name: str, zips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match=r"got split 'x', expected a table that ends in \.csv or \.parquet: "):
        open_source(zips / name, split="x")
    monkeypatch.setattr(ZipSource, "takes_pattern", False)
    monkeypatch.setattr(ZipSource, "tells", "member labels.json")
    with pytest.raises(
        ConfigError,
        match=r"got the pattern '\{label\}/\*' with a zip, expected groups and labels in its member labels\.json",
    ):
        dn2.ingest(zips / name, tmp_path / "store", pattern="{label}/*")
    assert tells_groups(f"file://{zips / name}")
    monkeypatch.setattr(ZipSource, "takes_split", True)
    assert isinstance(open_source(zips / name, split="x"), ZipSource)
    with pytest.raises(ConfigError, match=r"or \.zip: only tables and zips have splits"):
        open_source(zips, split="x")


@pytest.mark.usefixtures("with_zips")
def test_new_kind_may_be_refused_as_glob_and_altogether(zips: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ZipSource, "takes_glob", False)
    with pytest.raises(ConfigError, match=r"\*\.zip: got a glob of zips, expected one zip, or a glob of images"):
        open_source(f"{zips}/*.zip")
    assert isinstance(open_source(zips / "bad.zip"), ZipSource)
    monkeypatch.setattr(ZipSource, "refused", "which is too old, expected a new one")
    for name in ("bad.zip", "*.zip"):
        with pytest.raises(ConfigError, match=r"zip: got a \.zip of images, which is too old, expected a new one$"):
            open_source(zips / name)
    assert "zip" not in source_words()


def test_without_its_line_a_zip_is_any_other_file(zips: Path, tmp_path: Path):
    assert ".zip" not in source_words()
    with pytest.raises(EmptySourceError, match=r"got no image \(1 other files\)"):
        dn2.ingest(zips / "bad.zip", tmp_path / "store")


def test_every_kind_says_what_it_is_for():
    words = [kind.words for kind in KINDS]
    assert len(set(words)) == len(words) == 6
    assert all(re.fullmatch(r"an? \S.*\w", text) for text in words)
    assert all(re.fullmatch(r"\w[\w ]*", kind.noun) for kind in KINDS)
    assert all(kind.tells for kind in KINDS if not kind.takes_pattern)  # else nothing could say what is known
    assert all(suffix == suffix.lower() and suffix[0] == "." for kind in KINDS for suffix in kind.suffixes)
    for kind in KINDS:
        said = source_words().lower().count(kind.words.lower())
        assert said == (0 if kind.refused else 1), kind


def test_sentence_says_what_a_source_can_be():
    assert source_words() == (
        "A folder or fsspec URL with images, or one image; a quoted glob of images; a .tar of images, or a glob of "
        "them; a .parquet of image bytes, or a glob of them; or a .csv or .parquet that lists images."
    )
    assert pack_suffixes() == (".tar", ".parquet")


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        ("file:///a.TAR", "tar"),
        ("s3://bucket/*.tar.gz", "compressed tar"),
        ("a.parquet", "table"),
        ("a.csv", "table"),
        ("a.csv.gz", "glob"),
        ("csv", "glob"),
        ("a.csv/", "glob"),
        ("", "glob"),
    ],
)
def test_kind_is_told_by_the_ending_of_a_name(name: str, noun: str):
    assert kind_named(name).noun == noun


def home(kind: type[Source]) -> str:
    return f"{kind.__module__.rpartition('.')[2]}.py"


def text_in(path: Path) -> list[str]:
    """Every piece of text in a file but its docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    said = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in said)
    return [node.value for node in constants if isinstance(node.value, str)]


def test_no_other_file_names_the_suffix_of_a_kind():
    homes: dict[str, set[str]] = {}
    for kind in KINDS:
        for suffix in kind.suffixes:
            homes.setdefault(suffix, set()).update([home(kind), *READ_BY.get(home(kind), [])])
    assert homes[".tar"] == {"tars.py"}
    assert homes[".csv"] == {"tables.py", "foreign.py"}
    named = [
        (path.name, suffix)
        for path in ROOM.glob("*.py")
        for suffix, own in homes.items()
        if path.name not in own and any(suffix in text.lower() for text in text_in(path))
    ]
    assert named == []


def test_every_kind_has_a_row_in_the_documentation():
    table = (ROOT / "docs" / "sources.md").read_text("utf-8").partition("\n\n| source |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1].strip() for row in table.splitlines()[2:]]
    assert rows == [kind.words for kind in KINDS]


def test_to_know_the_kinds_loads_nothing_heavy():
    """`dn2 --help` shows what a source can be, and must not make a user wait."""
    heavy = ["torch", "openvino", "pyarrow", "numpy", "PIL", "prefect", "sklearn"]
    code = f"import sys, dn2.sources.opening; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
