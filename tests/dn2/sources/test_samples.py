"""Samples of a webdataset: what stands beside an image in the tar tells its group and label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dn2
from dn2.errors import ConfigError
from dn2.sources.opening import open_source
from dn2.sources.samples import key_and_ending
from dn2.store.storage import Store
from tests.dn2.images.listing import part_rows
from tests.dn2.sources.packing import Member, write_tar

Known = dict[str, tuple[str | None, str | None]]


def known(path: Path, *members: Member) -> Known:
    """Group and label of each image, by its name."""
    source = open_source(write_tar(path, *members))
    return {file.uri.partition("#")[2]: (file.group_id, file.label) for file in source.walk()}


def as_json(**values: Any) -> bytes:
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    ("name", "key", "ending"),
    [
        ("a.png", "a", "png"),
        ("a.left.png", "a", "left.png"),
        ("x.y/a.b.JSON", "x.y/a", "b.json"),
        ("x/a", "x/a", ""),
        ("a.cls", "a", "cls"),
    ],
)
def test_key_ends_at_the_first_dot_of_the_base_name(name: str, key: str, ending: str):
    assert key_and_ending(name) == (key, ending)


def test_siblings_tell_from_before_and_from_behind(tmp_path: Path):
    assert known(
        tmp_path / "a.tar",
        *[("d/1.cls", b"ok\n"), ("d/1.png", b""), ("d/1.json", as_json(group_id=7, label="other", x=[1]))],
        *[("d/2.left.png", b""), ("d/2.right.jpg", b""), ("d/2.txt", b"words"), ("d/2.cls", b" bad ")],
        *[("d/3.png", b""), ("d/3.json", as_json(label=0, group_id="007"))],
        ("d/4.png", b""),
        *[("e/1.png", b""), ("e/1.json", as_json(group_id=None))],
    ) == {
        "d/1.png": ("7", "ok"),
        "d/2.left.png": (None, "bad"),
        "d/2.right.jpg": (None, "bad"),
        "d/3.png": ("007", "0"),
        "d/4.png": (None, None),
        "e/1.png": (None, None),
    }


def test_only_what_stands_together_is_a_sample(tmp_path: Path):
    assert known(tmp_path / "a.tar", ("1.cls", b"x"), ("2.png", b""), ("1.png", b"")) == {
        "2.png": (None, None),
        "1.png": (None, None),
    }


def test_what_told_is_not_counted_as_ignored(tmp_path: Path):
    tar = write_tar(
        tmp_path / "a.tar", ("1.png", b""), ("1.cls", b"x"), ("1.json", b"{}"), ("1.txt", b""), ("meta.json", b"{}")
    )
    source = open_source(tar)
    list(source.walk())
    assert source.ignored == 2


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"[1, 2]", (None, None)),
        (b'"text"', (None, None)),
        (b"", (None, None)),
        (b"{broken", (None, None)),
        (b"\xff\xfe{", (None, None)),
        (b"[" * 100_000, (None, None)),
        (b'{"x": 1}', (None, None)),
        (b'{"label": ["a"], "group_id": {"b": 1}}', (None, None)),
        (b'{"label": true, "group_id": null}', (None, None)),
        (b'{"label": NaN, "group_id": ""}', (None, None)),
        (b'{"label": 1.50, "group_id": -3}', ("-3", "1.50")),
        (b'{"label": 1e400, "group_id": ' + b"9" * 4000 + b"}", ("9" * 4000, "1e400")),
        (b'{"label": "\\ud800x", "group_id": "\xc3\xa4"}', ("ä", "\\ud800x")),
        ('{"label": "bäume"}'.encode("utf-16"), (None, "bäume")),
    ],
)
def test_what_a_json_tells(content: bytes, found: tuple[str | None, str | None], tmp_path: Path):
    assert known(tmp_path / "a.tar", ("1.png", b""), ("1.json", content)) == {"1.png": found}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("1.cls", b"\xff", r"got '1\.cls' with bytes that are not UTF-8, expected a label"),
        ("1.cls", b"x" * 5000, r"got '1\.cls' of 5000 bytes, expected at most 4096"),
        ("1.json", b"x" * (2**20 + 1), r"got '1\.json' of 1048577 bytes, expected at most 1048576"),
        ("1.json", as_json(label="x" * 5000), r"sample '1': got a label of 5000 characters, expected at most 4096"),
        ("1.json", as_json(group_id="x" * 5000), r"sample '1': got a group_id of 5000 characters"),
    ],
)
def test_sibling_that_cannot_tell_is_refused_if_it_has_an_image(
    name: str, content: bytes, message: str, tmp_path: Path
):
    for members in ([(name, content), ("1.png", b"")], [("1.png", b""), (name, content)]):
        with pytest.raises(ConfigError, match=rf"^tar file:.*a\.tar: {message}"):
            known(tmp_path / "a.tar", *members)
    assert known(tmp_path / "a.tar", (name, content), ("2.png", b"")) == {"2.png": (None, None)}


def test_sample_of_more_images_than_can_wait(tmp_path: Path):
    """As in a tar of images that are called after their camera: `camera.000001.png`."""
    images = [(f"c.{number:04d}.png", b"") for number in range(1500)]
    assert set(known(tmp_path / "a.tar", *images).values()) == {(None, None)}
    assert set(known(tmp_path / "b.tar", ("c.cls", b"x"), *images).values()) == {(None, "x")}
    assert set(known(tmp_path / "c.tar", *images[:9], ("c.cls", b"x"), *images[9:]).values()) == {(None, "x")}
    assert set(known(tmp_path / "d.tar", *images, ("c.json", b"{}")).values()) == {(None, None)}
    with pytest.raises(
        ConfigError, match=r"got 'c\.cls' after more than 1000 images of its sample, expected it before them"
    ):
        known(tmp_path / "e.tar", *images, ("c.cls", b"x"))


SAMPLE = st.tuples(st.sampled_from(["a", "b", "c/d"]), st.permutations(["png", "cls", "x.jpg", "json"]), st.booleans())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(samples=st.lists(SAMPLE, min_size=1, max_size=5, unique_by=lambda one: one[0]))
def test_order_within_a_sample_does_not_matter(samples: list[tuple[str, list[str], bool]], tmp_path: Path):
    contents = {"png": b"", "x.jpg": b"", "cls": b"l", "json": as_json(group_id="g")}
    members = [(f"{key}.{e}", contents[e]) for key, endings, told in samples for e in endings if told or e[-1] == "g"]
    expected = ("g", "l"), (None, None)
    assert known(tmp_path / "any.tar", *members) == {
        f"{key}.{ending}": expected[not told] for key, _, told in samples for ending in ("png", "x.jpg")
    }


def test_another_label_is_a_change_and_a_pattern_overrules_it(tmp_path: Path, pictures: Path):
    content = next(pictures.iterdir()).read_bytes()
    store = Store.open(tmp_path / "store")
    tar = write_tar(tmp_path / "a.tar", ("p/1.png", content), ("p/1.json", as_json(group_id="g", label="l")))
    found = dn2.ingest(tar, store)
    (row,) = part_rows(store, found)
    assert (row["group_id"], row["label"]) == ("g", "l")
    write_tar(tar, ("p/1.png", content), ("p/1.json", as_json(group_id="h", label="l")))
    assert dn2.ingest(tar, store).changed == 1
    overruled = dn2.embed(dn2.ingest(tar, store, pattern="{group_id}/*"), store)
    from dn2.scoring.rows import living_rows

    rows = living_rows(overruled.shards[-1], store, ["group_id", "label"]).to_pylist()
    assert rows == [{"group_id": "p", "label": None}]
