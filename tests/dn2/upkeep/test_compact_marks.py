"""What banks have scored of the parts that are merged counts as scored, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import dn2
from dn2 import layout
from dn2.images.manifest import part_names
from dn2.scoring.watermark import mark, unscored
from dn2.store.schemas import MANIFEST
from dn2.store.storage import Store
from dn2.store.tables import read_config
from tests.dn2.upkeep.nights import (
    CONFIG,
    Nights,
    ingest,
    night,
)


def test_merged_part_is_not_scored_again_at_night_and_what_comes_later_is(nights: Nights):
    dn2.compact(nights.store, dataset="inbox")
    dataset = ingest(nights.source, nights.store)
    assert unscored(dataset, nights.store, bank=nights.bank) == ()
    assert unscored(dataset, nights.store, bank=nights.bank, rescore=True) == ()
    assert night(nights.source, nights.store, nights.bank) is None


def test_parts_that_a_bank_has_not_scored_yet_are_left_apart(nights: Nights):
    store = Store.open(nights.store)
    last = part_names(store, "inbox")[-1]
    store.remove(layout.watermark("parts", "inbox", last, nights.bank.version))
    done = dn2.compact(nights.store, dataset="inbox")
    assert len(done.merged) == 2
    assert done.notes == (
        f"the manifest parts from {last} on were not merged: bank 'parts' has scored only some of them",
    )
    dataset = ingest(nights.source, nights.store)
    assert dataset.parts == (done.part, last)
    assert unscored(dataset, store, bank=nights.bank) == (last,)


def test_version_is_marked_only_if_it_has_scored_everything(nights: Nights):
    """What only older versions have scored is still scored again on demand."""
    store = Store.open(nights.store)
    *_, last = part_names(store, "inbox")
    dataset = ingest(nights.source, nights.store)
    older = dn2.fit(
        dn2.embed(dn2.ingest(nights.source.parent / "normal", store, dataset="normal"), store, config=CONFIG),
        store,
        bank="parts",
        config=dn2.FitConfig(false_alarm_rate=0.3),
    )
    store.remove(layout.watermark("parts", "inbox", last, nights.bank.version))
    mark(dataset, store, bank=older, parts=[last], report=None)  # the current version has scored the last part only
    done = dn2.compact(store, dataset="inbox")
    assert len(done.merged) == 3
    after = ingest(nights.source, nights.store)
    for bank in (older, nights.bank):
        assert unscored(after, store, bank=bank) == ()
    assert unscored(after, store, bank=older, rescore=True) == (done.part,)


def test_part_that_is_scored_while_it_is_merged_counts_as_scored(nights: Nights, tmp_path: Path):
    """The run began before: it marks the parts that it knew."""
    store = Store.open(nights.store)
    dataset = ingest(nights.source, nights.store)
    for part in dataset.parts:
        store.remove(layout.watermark("parts", "inbox", part, nights.bank.version))
    done = dn2.compact(store, dataset="inbox")
    after = ingest(nights.source, nights.store)
    assert unscored(after, store, bank=nights.bank) == (done.part,)
    mark(dataset, store, bank=nights.bank, parts=dataset.parts[:2], report=None)
    assert unscored(after, store, bank=nights.bank) == (done.part,)
    mark(dataset, store, bank=nights.bank, parts=dataset.parts[2:], report=None)
    assert unscored(after, store, bank=nights.bank) == ()
    assert unscored(after, store, bank=nights.bank, rescore=True) == ()


def test_mark_and_footer_tell_what_the_part_was_made_of(nights: Nights):
    store = Store.open(nights.store)
    parts = part_names(store, "inbox")
    done = dn2.compact(store, dataset="inbox")
    assert done.part is not None
    footer = read_config(store, layout.manifest("inbox", done.part), MANIFEST)
    assert (footer["made_of"], footer["replaces"], footer["images"]) == (list(parts), list(parts), 9)
    assert footer["source"] == f"file://{nights.source}"
    path = layout.watermark("parts", "inbox", done.part, nights.bank.version)
    assert json.loads(store.read(path))["made_of"] == list(parts)
    (dataset, _) = dn2.show(store).datasets
    assert (dataset.images, dataset.parts, dataset.error) == (9, 1, None)
