"""What is built is known again with all that it was built from, and what is known leads nowhere else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dn2 import layout
from dn2.errors import SchemaError
from dn2.layout import Form

FORMS = {name: one for name, one in vars(layout).items() if isinstance(one, Form)}
FOLDERS = {
    "manifests",
    "shards",
    "cleaning",
    "scores",
    "reports",
    "report",
    "watermarks",
    "bank",
    "bank_versions",
    "histories",
}
HOSTILE = [
    "/etc/x",
    "../../x",
    "a/../../b",
    "s3://evil/x",
    "http://127.0.0.1:1/x",
    "x\0y",
    "x\ny",
    "..",
    ".",
    "",
    "a\\b",
]
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=count, max_size=count)


def joined(*pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*pieces).map("".join)


def numbers() -> st.SearchStrategy[int]:
    return st.integers(0, 10**18 - 1)


ENDINGS = st.sampled_from(["", "-0000", "-0017", "-12345", "-added", "-held"])
PARTS = joined(st.integers(0, 10**9).map("{:06d}-".format), digits(16), st.sampled_from(["", "-all"]))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": NAMES,
    "dataset": NAMES,
    "embedder": joined(st.sampled_from(["resnet50-", "vit-tiles-2x3-", "own_net-full-", "[bold] \u00e9-"]), digits(12)),
    "part": PARTS,
    "settings": digits(8),
    "fingerprint": digits(16),
    "version": digits(16),
    "segment": joined(digits(16), ENDINGS),
    "identity": digits(32),
    "unfinished": joined(digits(32), st.sampled_from(["", ".parquet", ".npy", ".json"])),
    "locked": joined(st.sampled_from(["banks/", "manifests/"]), NAMES),
    "file of a cleaning": st.sampled_from(["summary.json", "report.html", "rows.parquet"]),
    "file of a report": st.sampled_from(["summary.json", "report.html", "histogram.png", "groups.parquet"]),
    **dict.fromkeys(("start", "stop", "number", "first", "behind"), numbers()),
}


def fields_of(form: Form) -> list[str]:
    return re.findall("<([^>]+)>", form.text)


def leads_nowhere_else(path: str) -> bool:
    steps = path.split("/")
    return not re.search(r"[\\\x00-\x1f\x7f]", path) and not {"", ".", ".."} & set(steps)


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_built_is_known_again_with_its_fields(name: str, data: st.DataObject):
    form = FORMS[name]
    values = {field: data.draw(FIELDS[field], field) for field in fields_of(form)}
    text = form(*values.values())
    assert form.parse(text) == values
    assert form.check(text) == text
    assert leads_nowhere_else(text)


@pytest.mark.parametrize("name", sorted(FORMS.keys() - FOLDERS))
def test_example_is_one_and_of_no_other_kind_of_file(name: str):
    known = {one for one in FORMS.keys() - FOLDERS if FORMS[one].parse(FORMS[name].example) is not None}
    rows = {"cleaning_rows", "_cleaning_file"}
    assert known == (rows if name in rows else {name})


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_text_is_known_is_rebuilt_letter_for_letter_and_leads_nowhere_else(name: str, data: st.DataObject):
    """Paths with some letters changed, put in or left out."""
    form = FORMS[name]
    path = data.draw(st.from_regex(form._pattern, fullmatch=True))
    for _ in range(data.draw(st.integers(0, 2))):
        low = data.draw(st.integers(0, len(path)))
        high = data.draw(st.integers(low, min(len(path), low + 3)))
        put = data.draw(st.one_of(st.sampled_from([*HOSTILE, "\u0663", "\u00b2", "/", "-", "\r", "\u2028"]), st.text()))
        path = path[:low] + put + path[high:]
    found = form.parse(path)
    assert found is None or form(*found.values()) == path
    assert found is None or leads_nowhere_else(path)


@given(st.one_of(st.text(), st.lists(st.sampled_from([*HOSTILE, "banks", "reports", "parts"])).map("/".join)))
def test_arbitrary_text_is_no_path(text: str):
    known = [form for name, form in FORMS.items() if name != "_part" and form.parse(text) is not None]
    assert [form(*form.parse(text).values()) for form in known] == [text] * len(known)
    assert not known or leads_nowhere_else(text)
    assert not layout.is_removable(text) or leads_nowhere_else(text)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", FORMS)
def test_hostile_value_in_place_of_any_field_is_refused(name: str, hostile: str):
    form = FORMS[name]
    pieces = re.split("(<[^>]+>)", form.text)
    for place in range(1, len(pieces), 2):
        text = "".join(
            hostile if at == place else Form(one).example if at % 2 else one for at, one in enumerate(pieces)
        )
        assert form.parse(text) is None
        assert not layout.is_removable(text)
        with pytest.raises(SchemaError, match=re.escape(f", expected {form.text}, such as {form.example}")):
            form.check(text)


@pytest.mark.parametrize("ending", ["\n", "\0", "/", "/..", " ", "\r", "\u2028"])
@pytest.mark.parametrize("name", FORMS)
def test_nothing_may_stand_before_or_behind(name: str, ending: str):
    form = FORMS[name]
    assert form.parse(form.example + ending) is None
    assert form.parse(ending + form.example) is None


def test_what_makes_a_bank_a_drop_a_watch_or_a_lock_is_never_removed():
    kept = {name for name, form in FORMS.items() if not layout.is_removable(form.example)}
    names = {"part", "_part"}
    assert kept == FOLDERS | names | {name for name in FORMS if name.startswith("bank")} | {
        "drop",
        "watch",
        "lock",
        "history",
    }


def test_every_part_of_the_grammar_is_used():
    assert {field for form in FORMS.values() for field in fields_of(form)} | {"segment"} == set(layout._FIELDS)
    assert set(FIELDS) == set(layout._FIELDS)


@pytest.mark.parametrize("name", ["groups.parquet", "part-00000.parquet", "part-123456.parquet"])
def test_parquet_files_of_a_report_are_known(name: str):
    assert layout.check_report_part(name) == name


@pytest.mark.parametrize(
    "name", [*HOSTILE, "summary.json", "part-0.parquet", "part-00000.parquet\n", "part-000000.parquet"]
)
def test_other_names_are_no_parquet_files_of_a_report(name: str):
    with pytest.raises(SchemaError, match=r"expected part-<number>.parquet, such as part-00000.parquet"):
        layout.check_report_part(name)


def test_thumbnails_lie_beside_a_shard_only():
    path = layout.embeddings.example
    assert layout.shard_thumbnails.parse(layout.thumbnails(path)) == layout.embeddings.parse(path)
    with pytest.raises(SchemaError, match="got '/etc/passwd', expected embeddings/"):
        layout.thumbnails("/etc/passwd")


def test_number_of_values_must_be_that_of_the_fields():
    for values in (("parts",), ("parts", "0123456789abcdef", "x")):
        with pytest.raises(ValueError, match="zip"):
            layout.report(*values)
