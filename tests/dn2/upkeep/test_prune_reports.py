"""Reports, scores, cleanings and lists of rejects: which go, and what those that stay keep."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import dn2
from dn2.store.storage import Store
from dn2.upkeep.limits import DAY
from tests.dn2.scoring.synthetic import normal_vectors, write_shards
from tests.dn2.upkeep.nights import RATE, Nights, embeddings, files
from tests.dn2.upkeep.pruning import age, check_banks_work, kinds, later, write_manifest


def test_without_their_reports_the_shards_go_too(nights: Nights):
    dn2.compact(nights.store, dataset="inbox")
    vectors = embeddings(nights.store)
    before = files(nights.store)
    found = dn2.prune(nights.store, reports=0, now=later(), yes=True)
    assert kinds(found) == {"shards": 4, "parts": 3, "marks": 3, "reports": 3, "scores": 3}
    gone = before.keys() - files(nights.store).keys()
    assert sum(len(before[path]) for path in gone) == found.size.bytes
    assert len(gone) == found.size.files
    assert {path for path in gone if path.startswith("banks/")} == set()
    assert embeddings(nights.store) == vectors
    assert not list((Path(nights.store) / "reports" / "parts").iterdir())
    check_banks_work(nights, {path: before[path] for path in before if path.startswith("banks/")})


@pytest.mark.parametrize("keep", [1, 2])
def test_newest_reports_stay_with_all_that_rethreshold_needs(nights: Nights, keep: int):
    for number, report in enumerate(nights.reports):
        folder = report.uri.rpartition("/store/")[2]
        age(nights.store, 30 - number, f"{folder}/*")
    dn2.compact(nights.store, dataset="inbox")
    found = dn2.prune(nights.store, reports=keep, now=later(), yes=True)
    assert kinds(found)["reports"] == kinds(found)["scores"] == 3 - keep
    left = {path.name for path in (Path(nights.store) / "reports" / "parts").iterdir()}
    assert left == {report.uri[-16:] for report in nights.reports[3 - keep :]}
    for report in nights.reports[3 - keep :]:
        here = report.uri.rpartition("/store/")[2]
        config = dn2.ScoreConfig(threshold=dn2.ThresholdConfig(budget=1))
        again = dn2.rethreshold(f"{nights.store}/{here}", nights.store, config=config)
        page = (Path(again.uri.removeprefix("file://")) / "report.html").read_bytes()
        assert page.count(b"data:image/jpeg") >= 3 * again.images


def test_reports_older_than_so_many_days_go_and_scores_that_another_one_needs_stay(nights: Nights):
    oldest = nights.reports[0]
    uri = f"{nights.store}/reports/{oldest.uri.rpartition('/reports/')[2]}"
    other = dn2.rethreshold(uri, nights.store, config=dn2.ScoreConfig(threshold=dn2.ThresholdConfig(budget=2)))
    age(nights.store, 40, f"reports/parts/{oldest.uri[-16:]}/*", "scores/parts/*/*")
    found = dn2.prune(nights.store, age=30, yes=True)
    assert kinds(found) == {"reports": 1}
    assert found.kinds[0].examples == (f"reports/parts/{oldest.uri[-16:]}",)
    assert dn2.rethreshold(other, nights.store).images == 6


def test_old_scores_that_no_report_was_made_of_go_with_old_reports_only(nights: Nights):
    folder = f"reports/parts/{nights.reports[0].uri[-16:]}"
    shutil.rmtree(Path(nights.store) / folder)
    assert kinds(dn2.prune(nights.store, now=later())) == {}
    assert kinds(dn2.prune(nights.store, age=300)) == {}
    assert kinds(dn2.prune(nights.store, age=300, now=later())) == {"scores": 1}


def test_cleaning_goes_unless_a_bank_names_it(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    normal = write_shards(store, normal_vectors(60, seed=0))
    used, unused = (
        dn2.clean(normal, store, config=dn2.CleanConfig(rule="auto", contamination=share)) for share in (0.1, 0.05)
    )
    dn2.fit(normal, store, bank="parts", config=RATE, cleaning=used)
    assert kinds(dn2.prune(store, now=later(100))) == {}
    found = dn2.prune(store, age=30, now=later(100), yes=True)
    assert kinds(found) == {"cleanings": 1}
    assert found.kinds[0].examples == (f"cleaning/{unused.fingerprint}",)
    assert [path.name for path in (tmp_path / "store" / "cleaning").iterdir()] == [used.fingerprint]


def test_lists_of_rejects_go_with_the_reports(nights: Nights):
    folder = Path(nights.store) / "rejects" / "inbox"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number:016x}.parquet").write_bytes(b"x")
        age(nights.store, 10 - number, f"rejects/inbox/{number:016x}.parquet")
    (folder / "mine.txt").write_text("somebody's own")
    assert kinds(dn2.prune(nights.store)) == {}
    found = dn2.prune(nights.store, reports=5, age=8.5, yes=True)
    assert kinds(found)["rejects"] == 2
    assert sorted(path.name for path in folder.iterdir()) == [f"{2:016x}.parquet", "mine.txt"]


def test_reports_and_scores_younger_than_a_day_stay_whatever_is_asked_for(nights: Nights):
    """A rethreshold may be at work on them."""
    assert dn2.prune(nights.store, reports=0, age=0, yes=True).kinds == ()
    now = max(path.stat().st_mtime for path in Path(nights.store).rglob("*") if path.is_file()) + DAY
    assert dn2.prune(nights.store, reports=0, age=0, now=now - 60, yes=True).kinds == ()
    assert kinds(dn2.prune(nights.store, reports=0, now=now + 60)) == {"reports": 3, "scores": 3}


def test_young_scores_of_an_old_report_stay_until_they_are_old(nights: Nights):
    age(nights.store, 3, "reports/parts/*/*")
    assert kinds(dn2.prune(nights.store, reports=0, yes=True)) == {"reports": 3}
    assert len(list((Path(nights.store) / "scores" / "parts").iterdir())) == 3
    assert kinds(dn2.prune(nights.store, reports=0)) == {}
    assert kinds(dn2.prune(nights.store, reports=0, now=later(), yes=True)) == {"scores": 3}


def test_cleaning_and_list_of_rejects_younger_than_a_day_stay(tmp_path: Path):
    """The bank that will name the cleaning is just being trained."""
    store = Store.open(tmp_path / "store")
    normal = write_shards(store, normal_vectors(60, seed=0))
    write_manifest(store, normal)
    dn2.clean(normal, store, config=dn2.CleanConfig(rule="auto", contamination=0.1))
    store.write(f"rejects/normal/{1:016x}.parquet", b"x")
    assert dn2.prune(store, reports=0, age=0, yes=True).kinds == ()
    assert kinds(dn2.prune(store, reports=0, now=later(), yes=True)) == {"cleanings": 1, "rejects": 1}
