"""Marks of merged parts go when nothing depends on them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import dn2
from dn2 import layout
from dn2.images.manifest import part_names
from dn2.scoring.watermark import mark, unscored
from dn2.store.storage import Store
from tests.dn2.upkeep.nights import Nights, ingest, night
from tests.dn2.upkeep.pruning import kinds, later


def test_marks_of_a_run_that_ended_after_the_merge_stay_until_the_merged_part_has_its_own(nights: Nights):
    store = Store.open(nights.store)
    dataset = ingest(nights.source, nights.store)
    for part in dataset.parts:
        store.remove(layout.watermark("parts", "inbox", part, nights.bank.version))
    done = dn2.compact(store, dataset="inbox")
    mark(dataset, store, bank=nights.bank, parts=dataset.parts, report=None)
    after = ingest(nights.source, nights.store)
    for _ in range(2):  # with the parts, and without them
        dn2.prune(store, now=later(), yes=True)
        assert unscored(after, store, bank=nights.bank) == ()
        assert unscored(after, store, bank=nights.bank, rescore=True) == ()
    assert part_names(store, "inbox") == (done.part,)
    assert len(store.names("watermarks/parts/inbox")) == 3
    mark(after, store, bank=nights.bank, parts=after.parts, report=None)
    assert kinds(dn2.prune(store, now=later(), yes=True)) == {"marks": 3}
    assert unscored(after, store, bank=nights.bank) == ()


def test_marks_of_a_version_stay_only_if_they_stand_for_the_whole_merged_part(nights: Nights):
    store = Store.open(nights.store)
    dataset = ingest(nights.source, nights.store)
    done = dn2.compact(store, dataset="inbox")  # marked for the version of the nights
    whole, some = replace(nights.bank, version="a" * 16), replace(nights.bank, version="b" * 16)
    mark(dataset, store, bank=whole, parts=dataset.parts, report=None)
    mark(dataset, store, bank=some, parts=dataset.parts[:2], report=None)
    dn2.prune(store, now=later(), yes=True)
    assert store.names("watermarks/parts/inbox") == sorted(
        [
            f"{done.part}-{nights.bank.version}.json",
            *(f"{part}-{whole.version}.json" for part in dataset.parts),
        ]
    )
    assert unscored(ingest(nights.source, nights.store), store, bank=whole, rescore=True) == ()


def test_part_merged_twice_and_pruned_is_scored_by_another_bank(nights: Nights):
    """Of the first merged part nothing is left, and nobody asks it what it was made of."""
    store = Store.open(nights.store)
    first = dn2.compact(store, dataset="inbox")
    late = nights.source / "late.png"
    shutil.copy(nights.source / "a" / "000.png", late)
    night(nights.source, nights.store, nights.bank)
    second = dn2.compact(store, dataset="inbox")
    late.unlink()  # the source is shared
    assert second.merged[0] == first.part
    dn2.prune(store, now=later(), yes=True)
    dataset = dn2.Dataset("inbox", "", part_names(store, "inbox"), 10)
    assert dataset.parts == (second.part,)
    newer, other = replace(nights.bank, version="a" * 16), replace(nights.bank, name="other")
    assert unscored(dataset, store, bank=nights.bank) == unscored(dataset, store, bank=newer) == ()
    assert unscored(dataset, store, bank=newer, rescore=True) == dataset.parts
    assert unscored(dataset, store, bank=other) == dataset.parts
    mark(dataset, store, bank=other, parts=dataset.parts, report=None)
    assert dn2.compact(store, dataset="inbox") == dn2.Compacted("inbox")
    assert dn2.prune(store, now=later()).kinds == ()
