from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dn2
from dn2.config import CleanConfig
from dn2.errors import BankError, ConfigError, RejectedError, SchemaError
from dn2.neighbors.bank import prepared
from dn2.neighbors.segments import keys
from dn2.records import Embedded
from dn2.scoring import judged as module
from dn2.store.schemas import CLEANING, REJECTS
from dn2.store.storage import Store
from dn2.store.tables import read_config, read_table
from tests.dn2.neighbors.oracle import brute_force
from tests.dn2.scoring.impure import (
    AUTO,
    COUNT,
    NORMAL,
    PAPER,
    check_rows,
    cleaning_rows,
    contaminated,
    folder_of,
    number,
)
from tests.dn2.scoring.synthetic import clusters, mode, modified, write_shards


@pytest.mark.parametrize(
    "config",
    [
        CleanConfig(rule="auto", clusters="drop"),
        CleanConfig(rule="paper"),
        AUTO,
        PAPER,
        CleanConfig(rule="auto", clusters="drop", contamination=0),
        CleanConfig(rule="auto", clusters="drop", contamination=0, drop_fraction=0),
        CleanConfig(rule="paper", contamination=0.2, drop_fraction=0.2),
        CleanConfig(rule="auto", clusters="drop", contamination=0.013, drop_fraction=0.777),
    ],
    ids=str,
)
def test_every_embedded_image_is_kept_or_dropped_with_score_rank_and_reason(
    store: Store, embedded: Embedded, config: CleanConfig
):
    done = dn2.clean(embedded, store, config=config)

    check_rows(store, done, list(range(COUNT)))
    assert (done.rule, done.source, done.estimated) == (config.rule, "file:///normal", config.contamination is None)
    assert config.contamination in (None, done.contamination)
    assert config.drop_fraction in (None, done.drop_fraction)


def test_rejected_and_superseded_images_have_no_row(store: Store):
    """One shard has no readable image at all."""
    gone, broken = [0, 50, 399], [*range(100, 120), 3]
    embedded = write_shards(store, contaminated(), rejected=broken, superseded=gone, shard_rows=20)

    done = dn2.clean(embedded, store, config=CleanConfig(rule="auto", clusters="drop", max_rejects=30))

    check_rows(store, done, [row for row in range(COUNT) if row not in {*gone, *broken}])


def test_impurities_are_what_auto_finds_oddest_and_paper_keeps(store: Store, embedded: Embedded):
    """They come in clusters: each has its two nearest others right beside it."""
    auto, paper = (cleaning_rows(store, dn2.clean(embedded, store, config=config)) for config in (AUTO, PAPER))

    assert {number(row) for row in auto if row["reason"] == "impurity"} == set(range(NORMAL, COUNT))
    assert all(row["kept"] for row in paper[NORMAL:])


def test_auto_that_asks_nobody_estimates_the_contamination(store: Store, embedded: Embedded):
    done = dn2.clean(embedded, store, config=CleanConfig(rule="auto", clusters="drop"))

    assert (done.rule, done.estimated, done.clusters, done.high) == ("auto", True, (), None)
    assert 0.02 < done.contamination < 0.2
    assert done.drop_fraction == pytest.approx(min(0.25 + 10 * done.contamination, 0.6))


def test_paper_drops_half_or_the_contamination_if_that_is_more(store: Store, embedded: Embedded):
    assert dn2.clean(embedded, store, config=CleanConfig(rule="paper")).drop_fraction == 0.5
    assert dn2.clean(embedded, store, config=PAPER).dropped == COUNT // 2
    most = CleanConfig(rule="paper", contamination=0.5)
    assert dn2.clean(embedded, store, config=most).dropped == COUNT // 2


def test_paper_scores_are_those_of_the_textbook(store: Store):
    """The mean squared distance to the two nearest others on the unit sphere; copies are no others."""
    vectors = contaminated()
    contents = [f"content{row // 2}" if row < 40 else f"one-{row}" for row in range(COUNT)]
    vectors[1:40:2] = vectors[0:40:2]
    embedded = write_shards(store, vectors, contents=contents, shard_rows=150)
    unit, row_keys = prepared(vectors, "cosine"), np.stack([keys(contents)])
    own = np.concatenate([row_keys, np.arange(COUNT)[None]])
    _, distances = brute_force(unit, unit, 2, own, own)

    rows = cleaning_rows(store, dn2.clean(embedded, store, config=PAPER))

    np.testing.assert_allclose([row["score"] for row in rows], distances.mean(axis=1), rtol=1e-5)
    assert min(row["score"] for row in rows[:40]) > 0


@pytest.mark.parametrize("config", [AUTO, PAPER], ids=["auto", "paper"])
def test_copies_of_an_image_do_not_vouch_for_each_other(store: Store, config: CleanConfig):
    """40 copies of a stranger are as odd as one; 40 that look the same but have other bytes are never odder."""
    stranger = np.repeat(clusters(1, 1).astype(np.float16), 40, axis=0)
    vectors = np.concatenate([mode(NORMAL, seed=0, spread=0.8).astype(np.float16), stranger])
    names = [f"content{row}" for row in range(NORMAL)]
    copies = write_shards(store, vectors, name="copies", contents=[*names, *["stranger"] * 40])
    alike = write_shards(store, vectors, name="alike")

    of_copies, of_alike = (
        [row["score"] for row in cleaning_rows(store, dn2.clean(one, store, config=config))] for one in (copies, alike)
    )

    assert min(of_copies[NORMAL:]) > max(of_copies[:NORMAL])
    assert min(of_copies[NORMAL:]) >= max(of_alike[NORMAL:])


def test_balls_stand_around_a_bounded_sample_of_different_images(
    store: Store, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
):
    """Seen through the sample itself: every image has a score all the same."""
    drawn: list[Any] = []

    class Seen(module.Sample):
        def __init__(self, vectors: np.ndarray, own: np.ndarray) -> None:
            super().__init__(vectors, own)
            drawn.append(self)

    monkeypatch.setattr(module, "Sample", Seen)
    monkeypatch.setattr("dn2.scoring.judged.SAMPLE", 200)
    first = dn2.clean(embedded, store, config=AUTO)
    check_rows(store, first, list(range(COUNT)))
    found = {number(row) for row in cleaning_rows(store, first) if row["reason"] == "impurity"}
    assert len(found & set(range(NORMAL, COUNT))) >= 18
    (folder_of(first) / "summary.json").unlink()
    assert dn2.clean(embedded, store, config=AUTO) == first
    assert [len(sample.vectors) for sample in drawn] == [200, 200]
    np.testing.assert_array_equal(drawn[0].keys, drawn[1].keys)

    contents = [f"content{row % 150}" for row in range(COUNT)]
    dn2.clean(write_shards(store, contaminated(), name="copies", contents=contents), store, config=AUTO)
    assert len(drawn[2].vectors) == len(set(drawn[2].keys[1])) == 150
    assert module.SAMPLE == 200


@pytest.mark.parametrize("config", [AUTO, PAPER], ids=["auto", "paper"])
def test_shard_size_changes_nothing_that_matters(store: Store, config: CleanConfig):
    results = [
        dn2.clean(write_shards(store, contaminated(), shard_rows=size), store, config=config) for size in (400, 90)
    ]
    one, other = (np.array([row["score"] for row in cleaning_rows(store, done)]) for done in results)

    np.testing.assert_allclose(one, other, atol=1e-6)


def test_same_images_and_settings_give_the_same_cleaning_which_is_made_once(
    store: Store, embedded: Embedded, tmp_path: Path
):
    first, files = dn2.clean(embedded, store, config=AUTO), modified(tmp_path)
    limits = CleanConfig(**AUTO.model_dump() | {"max_rejects": 7, "bank_memory_gb": 1, "search_memory_mb": 16})

    assert dn2.clean(embedded, store, config=AUTO) == first
    assert dn2.clean(embedded, store.uri, config=limits) == first
    assert modified(tmp_path) == files


def test_other_settings_or_images_give_another_cleaning(store: Store, embedded: Embedded):
    configs = [
        CleanConfig(rule="auto", clusters="drop"),
        CleanConfig(rule="paper"),
        CleanConfig(rule="auto", clusters="drop", contamination=0.05),
        CleanConfig(rule="auto", clusters="drop", contamination=0.06),
        CleanConfig(rule="auto", clusters="drop", contamination=0.05, drop_fraction=0.3),
        CleanConfig(rule="auto", clusters="drop", report_images=3),
    ]
    done = [dn2.clean(embedded, store, config=config) for config in configs]
    done.append(dn2.clean(write_shards(store, contaminated(), superseded=[7], shard_rows=150), store))

    assert len({one.uri for one in done}) == len(done)
    assert all(one.uri == f"{store.uri}/cleaning/{one.fingerprint}" for one in done)


def test_summary_holds_the_record_and_the_settings_and_the_footer_says_how(store: Store, embedded: Embedded):
    done = dn2.clean(embedded, store, config=AUTO)

    summary = json.loads((folder_of(done) / "summary.json").read_bytes())
    assert (summary["schema"], summary["schema_version"]) == ("dn2.cleaning_summary", 1)
    assert {name: summary[name] for name in asdict(done)} == json.loads(json.dumps(asdict(done)))
    assert summary["config"] == AUTO.model_dump(mode="json")
    footer = read_config(store, f"cleaning/{done.fingerprint}/rows.parquet", CLEANING)
    assert (footer["embedder"], footer["rule"], footer["contamination"]) == (embedded.embedder, "auto", 0.05)


def test_estimated_contamination_is_in_the_footer(store: Store, embedded: Embedded):
    done = dn2.clean(embedded, store)
    footer = read_config(store, f"cleaning/{done.fingerprint}/rows.parquet", CLEANING)
    assert footer["contamination"] == done.contamination


def test_cleaning_without_a_summary_is_not_whole_and_is_made_again(store: Store, embedded: Embedded):
    """The summary is written last."""
    done = dn2.clean(embedded, store, config=AUTO)
    folder, rows = folder_of(done), cleaning_rows(store, done)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sorted(times, key=lambda name: times[name]) == ["rows.parquet", "report.html", "summary.json"]
    page = (folder / "report.html").read_text()

    (folder / "summary.json").unlink()
    (folder / "report.html").write_text("half a pa")
    (folder / "rows.parquet").write_bytes(b"PAR1")

    assert dn2.clean(embedded, store, config=AUTO) == done
    assert (cleaning_rows(store, done), (folder / "report.html").read_text()) == (rows, page)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"schema": "dn2.cleaning_summary", "schema_version": 1}', None], ids=str
)
def test_damaged_summary_says_what_to_do_and_doing_it_helps(store: Store, embedded: Embedded, content: str | None):
    done = dn2.clean(embedded, store, config=AUTO)
    summary = folder_of(done) / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"kept": "many"}) if content is None else content)

    with pytest.raises(SchemaError, match=r"summary\.json.*; delete that file: the cleaning is made again$"):
        dn2.clean(embedded, store, config=AUTO)
    summary.unlink()
    assert dn2.clean(embedded, store, config=AUTO) == done


@pytest.mark.parametrize("rule", ["auto", "paper"])
def test_fewer_than_twenty_different_images_are_not_cleaned(store: Store, rule: str):
    contents = [f"content{row % 19}" for row in range(30)]
    message = r"cleaning file:///normal: got 19 different images, expected at least 20: .*; train without cleaning$"

    for contamination in (None, 0.1):
        config = CleanConfig(rule=rule, contamination=contamination)
        with pytest.raises(BankError, match=message):
            dn2.clean(write_shards(store, mode(30, seed=0, spread=1), contents=contents), store, config=config)
    assert store.names("cleaning") == []

    check_rows(store, dn2.clean(write_shards(store, mode(20, seed=0, spread=1)), store), list(range(20)))


def test_rule_none_has_nothing_to_clean(store: Store, embedded: Embedded):
    with pytest.raises(ConfigError, match="rule: got none, expected paper or auto: there is nothing to clean"):
        dn2.clean(embedded, store, config=CleanConfig())


def test_less_than_the_estimated_contamination_cannot_be_dropped(store: Store, embedded: Embedded):
    message = r"drop_fraction: got 0\.01, expected at least the estimated contamination, 0\.\d+; raise it, or give"
    with pytest.raises(ConfigError, match=message):
        dn2.clean(embedded, store, config=CleanConfig(rule="auto", clusters="drop", drop_fraction=0.01))
    assert store.names("cleaning") == []


def test_paper_needs_all_vectors_in_memory_and_says_so_while_auto_does_not(store: Store, embedded: Embedded):
    with pytest.raises(BankError, match=r"bank of 400 rows of length 64: needs .* expected at most bank_memory_gb"):
        dn2.clean(embedded, store, config=CleanConfig(rule="paper", bank_memory_gb=1e-5))
    assert (
        dn2.clean(embedded, store, config=CleanConfig(rule="auto", clusters="drop", bank_memory_gb=1e-5)).images
        == COUNT
    )


def test_too_many_rejects_stop_after_the_list_is_written(store: Store):
    embedded = write_shards(store, contaminated(), rejected=range(21))

    with pytest.raises(RejectedError, match="got 21 of 400 that cannot be read, expected at most 20; see file:"):
        dn2.clean(embedded, store, config=AUTO)
    path = f"rejects/normal/{embedded.dataset.fingerprint}.parquet"
    assert read_table(store, path, REJECTS).num_rows == 21
    assert dn2.clean(embedded, store, config=AUTO.model_copy(update={"max_rejects": 21})).images == COUNT - 21


def test_dropping_nearly_everything_is_refused(store: Store, embedded: Embedded):
    message = r"drop_fraction: got 0\.9999, which keeps 0 of 400 different images, expected at least 3"
    with pytest.raises(ConfigError, match=message):
        dn2.clean(
            embedded, store, config=CleanConfig(rule="auto", clusters="drop", contamination=0, drop_fraction=0.9999)
        )
    assert (
        dn2.clean(
            embedded, store, config=CleanConfig(rule="auto", clusters="drop", contamination=0, drop_fraction=0.9925)
        ).kept
        == 3
    )
    assert len(store.names("cleaning")) == 1


@pytest.mark.parametrize("config", [AUTO, PAPER], ids=["auto", "paper"])
def test_copies_count_once_and_share_their_fate(store: Store, config: CleanConfig):
    """One image lies there 300 times: it is one of 101 different images, not three quarters of all."""
    vectors = np.concatenate([np.repeat(contaminated()[:1], 300, axis=0), contaminated()[:100]])
    contents = ["copy"] * 300 + [f"{row:x}" for row in range(100)]
    done = dn2.clean(write_shards(store, vectors, contents=contents), store, config=config)
    rows = cleaning_rows(store, done)
    copies = [row for row in rows if number(row) < 300]
    assert len({(row["rank"], row["score"], row["kept"], row["reason"]) for row in copies}) == 1
    assert {row["rank"] for row in rows} == set(range(1, 102))
    different = copies[:1] + [row for row in rows if number(row) >= 300]
    assert sum(not row["kept"] for row in different) == round(done.drop_fraction * 101)


def test_damaged_table_says_what_to_do_and_doing_it_helps(store: Store, embedded: Embedded):
    done = dn2.clean(embedded, store, config=AUTO)
    file, rows = folder_of(done) / "rows.parquet", cleaning_rows(store, done)
    content = bytearray(file.read_bytes())
    content[300:330] = bytes(30)
    file.write_bytes(content)
    with pytest.raises(SchemaError, match=r"rows\.parquet: got a damaged file.*delete that file: the cleaning is made"):
        dn2.fit(embedded, store, bank="b", cleaning=dn2.clean(embedded, store, config=AUTO))
    file.unlink()
    assert dn2.clean(embedded, store, config=AUTO) == done
    assert cleaning_rows(store, done) == rows


def test_guess_is_told_each_time(store: Store, embedded: Embedded, caplog: pytest.LogCaptureFixture):
    for _ in range(2):
        dn2.clean(embedded, store, config=CleanConfig(rule="auto", clusters="drop"))
    dn2.clean(embedded, store, config=AUTO)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "is a guess, from only 400 images; give it if you know it" in told[0]
    assert told[0] == told[1]
