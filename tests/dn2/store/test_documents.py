from __future__ import annotations

import json
from pathlib import Path

import pytest

from dn2 import layout
from dn2.errors import SchemaError
from dn2.records import ScoredShard
from dn2.store.documents import as_record, read_document, write_document
from dn2.store.storage import Store
from dn2.store.tables import producer

CONTENT = {"path": layout.score_part.example, "shard": layout.embeddings.example, "scored": 3, "rejected": 0}


def test_document_says_what_it_is_and_comes_back(tmp_path: Path):
    store = Store.open(tmp_path)
    write_document(store, "a.json", "dn2.report_summary", CONTENT)
    expected = {"schema": "dn2.report_summary", "schema_version": 1, "producer": producer(), **CONTENT}
    assert json.loads((tmp_path / "a.json").read_bytes()) == expected
    assert read_document(store, "a.json", "dn2.report_summary", CONTENT) == expected
    assert as_record(ScoredShard, expected, "a.json") == ScoredShard(**CONTENT)


def test_document_of_another_kind_or_without_a_field_is_refused(tmp_path: Path):
    store = Store.open(tmp_path)
    write_document(store, "a.json", "dn2.report_summary", CONTENT)
    with pytest.raises(
        SchemaError, match=r"got schema dn2.report_summary version 1, expected dn2.bank_version version 1"
    ):
        read_document(store, "a.json", "dn2.bank_version", [])
    with pytest.raises(SchemaError, match=r"got dn2.report_summary without k, segments"):
        read_document(store, "a.json", "dn2.report_summary", ["segments", "k", "path"])


@pytest.mark.parametrize("value", [None, "many", [], 1.5])
def test_value_of_another_type_is_refused(value: object):
    with pytest.raises(SchemaError, match=r"a.json: got scored = "):
        as_record(ScoredShard, {**CONTENT, "scored": value}, "a.json")
