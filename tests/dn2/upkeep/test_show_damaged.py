"""A look at a store where something is damaged or has a hostile name: that is named, and the rest is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import dn2
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import writing
from dn2.upkeep.overview import Overview
from tests.dn2.upkeep.full import Full


def damaged(made_full: Full, kind: str) -> str:
    """Return the path of a file of the store."""
    return {
        "manifest": f"manifests/photos/{made_full.dataset.parts[0]}.parquet",
        "pointer": "banks/parts/current.json",
        "version": f"banks/parts/versions/{made_full.first.version}.json",
        "version of groups": f"banks/lots/versions/{made_full.groups.version}.json",
        "report": f"{made_full.path(made_full.reports[1].uri)}/summary.json",
        "report of groups": f"{made_full.path(made_full.odd.uri)}/summary.json",
        "cleaning": f"{made_full.path(made_full.cleaning.uri)}/summary.json",
    }[kind]


KINDS = ["manifest", "pointer", "version", "version of groups", "report", "report of groups", "cleaning"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe\x00", b'{"schema": "dn2.'], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_file_is_named_where_it_belongs_and_the_rest_is_told(
    made_full: Full, full: Path, kind: str, content: bytes
):
    path = damaged(made_full, kind)
    (full / path).write_bytes(content)
    found = dn2.show(full)
    (error,) = found.errors
    assert error.startswith(f"file://{full / path}: got ")
    holder = {
        "manifest": found.datasets[0],
        "pointer": found.banks[1],
        "version": next(one for one in found.banks[1].versions if one.version == made_full.first.version),
        "version of groups": found.banks[0].versions[0],
        "report": next(one for one in found.reports[1].newest if one.uri.endswith(made_full.reports[1].uri[-16:])),
        "report of groups": found.reports[0].newest[0],
        "cleaning": found.cleanings.newest[0],
    }[kind]
    assert holder.error == error
    assert [dataset.name for dataset in found.datasets] == ["photos"]
    assert [(bank.name, len(bank.versions)) for bank in found.banks] == [("lots", 1), ("parts", 2)]
    assert [(reports.bank, reports.count) for reports in found.reports] == [("lots", 1), ("parts", 2)]
    told = [version.made for bank in found.banks for version in bank.versions]
    assert told.count(None) == kind.startswith("version")
    assert found.banks[1].current == (None if kind == "pointer" else made_full.second.version)
    assert found.banks[0].kind == (None if kind == "version of groups" else "groups")


def test_pointer_at_a_version_that_was_deleted_is_named(made_full: Full, full: Path):
    version = full / "banks" / "parts" / "versions" / f"{made_full.second.version}.json"
    version.unlink()
    bank = dn2.show(full).banks[1]
    assert bank.error == (
        f"bank 'parts': it points at version {made_full.second.version}, but file://{version} is missing"
    )
    assert [(one.version, one.current) for one in bank.versions] == [(made_full.first.version, False)]


@pytest.mark.parametrize("folder", ["manifests", "banks", "reports"])
@pytest.mark.parametrize("name", [b"a b", b"x\n\x1b[31m", b"[bold]", b"\xff\xfe", "größe".encode()], ids=repr)
def test_name_that_dn2_would_not_give_is_told_as_text_and_refused(full: Path, folder: str, name: bytes):
    (full / folder / os.fsdecode(name)).mkdir()
    found = dn2.show(full)
    (error,) = found.errors
    assert error.startswith("name '")
    assert "cannot be used: expected 1 to 100 letters" in error
    names = {
        "manifests": [one.name for one in found.datasets],
        "banks": [one.name for one in found.banks],
        "reports": [one.bank for one in found.reports],
    }[folder]
    assert os.fsdecode(name).encode(errors="backslashreplace").decode() in names
    adapter = TypeAdapter(Overview)
    assert adapter.validate_json(adapter.dump_json(found)) == found


def test_footer_of_a_manifest_without_its_source_is_named(made_full: Full, full: Path):
    path = f"manifests/photos/{made_full.dataset.parts[0]}.parquet"
    for footer, message in (({}, "got source = "), ({"source": 5}, "got source = 5")):
        with writing(Store.open(full), path, MANIFEST, footer):
            pass
        dataset = dn2.show(full).datasets[0]
        assert dataset.error is not None
        assert message in dataset.error
        assert (dataset.parts, dataset.source) == (1, None)


def test_file_where_a_report_folder_should_be_and_values_of_wrong_types_are_errors(made_full: Full, full: Path):
    path = full / made_full.path(made_full.reports[0].uri) / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"anomalous": "many"}))
    (full / "reports" / "parts" / ("0" * 16)).touch()
    found = dn2.show(full)
    assert found.reports[1].count == 3
    assert len(found.errors) == 2
    assert any("got anomalous = 'many'" in error for error in found.errors)
    assert any("cannot read" in error and "0" * 16 in error for error in found.errors)
