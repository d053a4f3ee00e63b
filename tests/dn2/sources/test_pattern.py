from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dn2
from dn2.errors import ConfigError
from dn2.sources.pattern import Pattern, below
from dn2.store.files import locate
from dn2.store.storage import Store
from tests.dn2.images.listing import part_rows, touch


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{label}/{group_id}/*", "bad/001/3.png", ("001", "bad")),
        ("{label}/{group_id}/*", "bad/3.png", None),
        ("{label}/{group_id}/*", "a/bad/001/3.png", None),
        ("{label}/{group_id}/*", "bad//3.png", None),
        ("{label}/{group_id}/*", "bad/001/", ("001", "bad")),
        ("{group_id}/{group_id}/*", "bad/001/3.png", ("bad/001", None)),
        ("{group_id}/{label}/{group_id}.png", "line 3/ok/7.png", ("line 3/7", "ok")),
        ("{group_id}_*.png", "part_07_3.png", ("part", None)),
        ("*_{group_id}.png", "part_07_3.png", ("07_3", None)),
        ("{group_id}-{label}.*", "7-ok.x.png", ("7", "ok")),
        ("{group_id}{label}", "abc", ("a", "bc")),
        ("{group_id}{label}", "a", None),
        ("{group_id}", "", None),
        ("**/{group_id}/*", "a/b/c/3.png", ("c", None)),
        ("**/{group_id}/*", "c/3.png", None),
        ("**{group_id}/*", "c/3.png", ("c", None)),
        ("**{group_id}/*", "a/b/c/3.png", ("c", None)),
        ("{group_id}/**", "a/b/c/3.png", ("a", None)),
        ("{group_id}/**/*_{label}.png", "a/b/c/3_ok.png", ("a", "ok")),
        ("{group_id}/**/x", "a/x", None),
        ("{group_id}****x", "a/b/x", ("a", None)),
        ("{group_id}/*", "a/.png", ("a", None)),
        ("{group_id}.png", "a.png.png", ("a.png", None)),
        ("{group_id}.png", "axpng", None),
        ("{group_id}.png", "a.png\n", None),
        ("{group_id}/*", "a\nb/c\nd", ("a\nb", None)),
        ("[a-z]+(x|y)?^$\\d/{group_id}", "[a-z]+(x|y)?^$\\d/7", ("7", None)),
        ("[a-z]+(x|y)?^$\\d/{group_id}", "ab/7", None),
        ("bäume-木/{group_id}", "bäume-木/🌲", ("🌲", None)),
        ("{group_id}/3.png", "007/3.png", ("007", None)),
    ],
)
def test_what_a_path_tells(pattern: str, path: str, found: tuple[str | None, str | None] | None):
    assert Pattern.parse(pattern).match(path) == found


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "",
            r"pattern '': got nothing, expected a path with \{group_id\} and \{label\}; it is written like '\{label\}/",
        ),
        ("images/*", r"pattern 'images/\*': got no field, expected \{group_id\} and \{label\}, or one of them; it is"),
        ("{group}/*", r"got the field \{group\}, expected \{group_id\} and \{label\}"),
        ("{}/*", r"got the field \{\}, expected"),
        ("{ label }", r"got the field \{ label \}, expected"),
        ("{GROUP_ID}", r"got the field \{GROUP_ID\}, expected"),
        ("{label:03d}", r"got the field \{label:03d\}, expected"),
        ("{label}/{label}", r"got \{label\} 2 times, expected it once"),
        ("{label", "got a brace without its other half, expected both around the name of a field"),
        ("label}", "got a brace without its other half"),
        ("{{label}}", "got a brace without its other half"),
        ("{label}}", "got a brace without its other half"),
        ("/{label}/*", "got a slash in front, expected a path below the source"),
        ("{label}" + "x" * 494, "got 501 characters, expected at most 500"),
        ("{label}" + "*a" * 20, "got 21 fields and stars, expected at most 20"),
        ("{group_id}/" * 21, "got 21 fields and stars, expected at most 20"),
    ],
)
def test_text_that_is_no_pattern(pattern: str, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        Pattern.parse(pattern)
    assert len(str(caught.value)) < 350


def test_patterns_at_the_limits_are_patterns():
    longest, most = "{label}" + "x" * 493, "{group_id}" * 20
    assert Pattern.parse(longest).match("a" + "x" * 493) == (None, "a")
    assert Pattern.parse(most).match("a" * 20) == ("/".join("a" * 20), None)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 19 + "{label}b", "a" * 4000),
        ("**a" * 19 + "{label}b", "a/" * 2000),
        ("**{label}" + "a" * 400 + "b", "a" * 4000),
        ("**a*" + "a" * 400 + "b{label}", "a" * 4000),
        ("**{group_id}*" * 6 + "x", "a/b" * 1400),
        ("{group_id}" * 20, "a" * 4000 + "/"),
    ],
)
def test_hostile_pattern_ends(pattern: str, path: str):
    """With backtracking most of these would outlast the universe; here the work grows with the path alone."""
    assert Pattern.parse(pattern).match(path) is None


TOKENS = st.lists(
    st.sampled_from(["*", "**", "{group_id}", "{label}", "a", "b", "/", "ab", "a/b", "."]), min_size=1, max_size=8
).filter(
    lambda tokens: (
        any(token[0] == "{" for token in tokens)
        and tokens.count("{label}") < 2
        and tokens[0][0] != "/"
        and not any(one[0] == "*" == other[0] for one, other in pairwise(tokens))
    )
)


@given(TOKENS, st.lists(st.text("ab/.", max_size=10), max_size=8), st.data())
def test_matching_is_that_of_the_obvious_regular_expression(tokens: list[str], paths: list[str], data: st.DataObject):
    """That one tries everything, from left to right, shortest first."""
    meaning = {"*": "[^/]*?", "**": r"[\s\S]*?", "{group_id}": "([^/]+?)", "{label}": "([^/]+?)"}
    obvious = re.compile("".join(meaning.get(token) or re.escape(token) for token in tokens) + r"\Z")
    paths.append(data.draw(st.from_regex(obvious, fullmatch=True, alphabet=st.sampled_from("ab/."))))
    pattern = Pattern.parse("".join(tokens))
    for path in paths:
        found = obvious.match(path)
        values = zip((token for token in tokens if token[0] == "{"), found.groups() if found else (), strict=False)
        groups, labels = [], []
        for field, value in values:
            (labels if field == "{label}" else groups).append(value)
        expected = ("/".join(groups) or None, "".join(labels) or None) if found else None
        assert pattern.match(path) == expected


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1), min_size=3, max_size=3
    )
)
def test_any_names_of_folders_are_told_as_they_are(names: list[str]):
    label, group, file = names
    assert Pattern.parse("{label}/{group_id}/*").match(f"{label}/{group}/{file}") == (group, label)


@pytest.mark.parametrize(
    ("uri", "source", "path"),
    [
        ("file:///data/a/b.png", "file:///data", "a/b.png"),
        ("file:///a/b.png", "file:///", "a/b.png"),
        ("s3://bucket/p/a.png", "s3://bucket/p", "a.png"),
        ("s3://bucket/p//a.png", "s3://bucket/p", "a.png"),
        ("zip://p::file:///x.zip/a.png", "zip://p::file:///x.zip", "a.png"),
        ("file:///data/a.png", "file:///data/a.png", ""),
        ("file:///data/a#b/c.png", "file:///data", "a#b/c.png"),
        ("file:///d/2026-1/x/a.png", "file:///d/2026-*/**", "2026-1/x/a.png"),
        ("file:///d/a*b#c.png", "file:///d/a*", "a*b#c.png"),
        ("file:///a.png", "file:///*", "a.png"),
        ("memory://a/b.png", "memory://*/*", "a/b.png"),
        ("s3://bucket/line-1/a.png", "s3://bucket/line-?/[ab]*", "line-1/a.png"),
        ("file:///d/x.tar#a/b#.png", "file:///d/x.tar", "a/b#.png"),
        ("file:///d/x.tar#/a.png", "file:///d/x.tar", "a.png"),
        ("file:///d/x.tar/#a.png", "file:///d/x.tar", "#a.png"),
        ("s3://bucket/s/0.tar#a/b#.png", "s3://bucket/s/*.tar", "0.tar/a/b#.png"),
    ],
)
def test_path_below_a_source(uri: str, source: str, path: str):
    assert below(uri, source) == path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    touch(tmp_path / "source", "good/001/1.png", "good/001/2.png", "bad/002/1.png", "loose.png", "good/x.png")
    return tmp_path / "source"


def test_ingest_counts_what_the_pattern_does_not_fit_and_writes_nothing_of_it(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = Store.open(tmp_path / "store")
    pattern = "{label}/{group_id}/*"
    with caplog.at_level("WARNING", "dn2"):
        found = dn2.ingest(folder, store, pattern=pattern)
    assert (found.images, found.pattern, found.ungrouped) == (5, pattern, 2)
    said = rf"dataset {found.name}: 2 of 5 images fit no group: the pattern '{re.escape(pattern)}' does not match, for "
    assert re.search(said + "example, '(loose|good/x).png'", caplog.text)
    assert {(row["group_id"], row["label"]) for row in part_rows(store, found)} == {(None, None)}


def test_other_pattern_and_none_leave_the_manifest_as_it_is(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    first = dn2.ingest(folder, tmp_path / "store", pattern="{label}/{group_id}/*")
    caplog.clear()
    second = dn2.ingest(folder, tmp_path / "store", pattern="**{group_id}.png")
    third = dn2.ingest(folder, tmp_path / "store")
    assert first.parts == second.parts == third.parts
    assert first.fingerprint == second.fingerprint == third.fingerprint
    assert (second.pattern, second.ungrouped, third.pattern, third.ungrouped) == ("**{group_id}.png", 0, None, 0)
    assert "fit no group" not in caplog.text


def test_pattern_that_fits_nothing_is_refused_with_an_example_and_writes_nothing(folder: Path, tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"got the pattern '\{label\}\.tif', which fits no image there, .* as '.*png'"
    ):
        dn2.ingest(folder, tmp_path / "store", pattern="{label}.tif")
    assert not (tmp_path / "store").exists()


def test_bad_pattern_is_refused_before_the_source_is_looked_at(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"pattern '\{x\}': got the field \{x\}"):
        dn2.ingest(tmp_path / "nothing", tmp_path / "store", pattern="{x}")


def test_name_that_is_not_utf8_is_matched_as_it_is_shown(tmp_path: Path):
    (tmp_path / "source" / "a").mkdir(parents=True)
    Path(f"{tmp_path}/source/a/b\udcff.png").write_bytes(b"")
    assert dn2.ingest(tmp_path / "source", tmp_path / "store", pattern="{label}/{group_id}\\xff.png").ungrouped == 0


@pytest.mark.s3
def test_paths_in_a_bucket_are_matched_below_the_prefix(s3_bucket: str, tmp_path: Path):
    place = locate(f"{s3_bucket}/pattern/deep")
    place.fs.pipe({f"{place.path}/bad/7/a.png": b"x", f"{place.path}/a.png": b"x"})
    assert dn2.ingest(place.uri, tmp_path / "store", pattern="{label}/{group_id}/*").ungrouped == 1
