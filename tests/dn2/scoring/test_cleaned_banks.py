"""Banks of training images that were cleaned."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dn2
from dn2.config import CleanConfig, FitConfig
from dn2.errors import BankError, ConfigError, NotFoundError
from dn2.neighbors.bank import Bank
from dn2.records import Embedded
from dn2.scoring.calibration import Calibration
from dn2.store.schemas import CALIBRATION
from dn2.store.storage import Store
from dn2.store.tables import read_table
from tests.conftest import Bricks
from tests.dn2.neighbors.oracle import brute_force, rows_of, vectors_of
from tests.dn2.scoring.impure import (
    AUTO,
    COUNT,
    cleaning_rows,
    contaminated,
    folder_of,
    number,
)
from tests.dn2.scoring.synthetic import clusters, mode, write_shards


def calibration_of(store: Store, record: dn2.BankVersion) -> dict[str, float]:
    table = read_table(store, f"banks/{record.name}/versions/{record.version}.calibration.parquet", CALIBRATION)
    return dict(zip(table["image_id"].to_pylist(), table["score"].to_pylist(), strict=True))


def test_bank_holds_the_kept_images_and_the_others_still_calibrate_it(store: Store, embedded: Embedded):
    plain = dn2.fit(embedded, store, bank="parts")
    done = dn2.clean(embedded, store, config=AUTO)
    rows = cleaning_rows(store, done)

    record = dn2.fit(embedded, store, bank="parts", cleaning=done)
    bank = Bank.open(store, record, memory_gb=1)
    kept = [number(row) for row in rows if row["kept"]]

    assert [number(row) for row in rows_of(bank).to_pylist()] == kept
    np.testing.assert_array_equal(vectors_of(bank), contaminated()[kept])
    assert (record.rows, record.dropped, record.contamination) == (done.kept, done.dropped, 0.05)
    assert record.cleaning == f"cleaning/{done.fingerprint}"
    assert store.exists(f"{record.cleaning}/summary.json")
    assert (plain.cleaning, plain.dropped, plain.contamination, plain.rows) == (None, 0, 0.0, COUNT)
    assert record.version != plain.version
    assert dn2.open_bank(store, "parts") == record
    assert dn2.fit(embedded, store, bank="parts", cleaning=done) == record

    scores = calibration_of(store, record)
    assert len(scores) == record.calibration_rows == COUNT - round(0.05 * COUNT)
    of_margin = {row["image_id"] for row in rows if row["reason"] == "margin"}
    assert len(of_margin & scores.keys()) > len(of_margin) / 2
    assert record.threshold == Calibration.read(store, "parts", record.version).threshold(0.01)[0]


def test_calibration_scores_are_distances_to_the_nearest_kept_others(store: Store, embedded: Embedded):
    done = dn2.clean(embedded, store, config=AUTO)
    rows, vectors = cleaning_rows(store, done), contaminated()
    kept = [number(row) for row in rows if row["kept"]]
    _, distances = brute_force(vectors, vectors[kept], 2, np.arange(COUNT)[None], np.array(kept)[None])
    naive = dict(zip([row["image_id"] for row in rows], distances.mean(axis=1), strict=True))

    scores = calibration_of(store, dn2.fit(embedded, store, bank="parts", cleaning=done))

    assert scores == pytest.approx({name: naive[name] for name in scores}, rel=1e-5)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_held_out_images_calibrate_a_cleaned_bank(store: Store, embedded: Embedded, metric: str):
    config = FitConfig(calibration="held-out", metric=metric)
    done = dn2.clean(embedded, store, config=AUTO)
    apart = COUNT // 5

    record = dn2.fit(embedded, store, bank="parts", config=config, cleaning=done)
    held_out = set(calibration_of(store, record))
    in_bank = set(rows_of(Bank.open(store, record, memory_gb=1))["image_id"].to_pylist())
    kept = {row["image_id"] for row in cleaning_rows(store, done) if row["kept"]}

    assert (record.calibration, record.calibration_rows) == ("held-out", apart - round(0.05 * apart))
    assert not held_out & in_bank
    assert in_bank < kept
    assert len(kept - in_bank) <= apart


def test_cleaning_of_other_images_is_refused(store: Store, embedded: Embedded):
    """Also where the one's images are all among the other's."""
    other = write_shards(store, contaminated(seed=1), name="other")
    fewer = write_shards(store, contaminated(), superseded=[5], shard_rows=150)
    for mine, theirs in [(embedded, other), (embedded, fewer), (fewer, embedded)]:
        done = dn2.clean(theirs, store, config=AUTO)
        message = rf"cleaning {done.uri}: got one of other images, expected that of the {mine.embedded} images to fit"
        with pytest.raises(ConfigError, match=message):
            dn2.fit(mine, store, bank="parts", cleaning=done)
    assert store.names("banks") == []


def test_cleaning_whose_rows_are_gone_is_not_found(store: Store, embedded: Embedded):
    done = dn2.clean(embedded, store, config=AUTO)
    (folder_of(done) / "rows.parquet").unlink()

    with pytest.raises(NotFoundError, match=rf"no file 'cleaning/{done.fingerprint}/rows\.parquet'"):
        dn2.fit(embedded, store, bank="parts", cleaning=done)
    assert store.names("banks") == []


def test_too_few_kept_images_for_k_are_refused_by_name(store: Store, embedded: Embedded):
    config = CleanConfig(rule="auto", clusters="drop", contamination=0, drop_fraction=0.99)
    done = dn2.clean(embedded, store, config=config)

    with pytest.raises(BankError, match="k: got 4 with 4 different normal images in the bank, expected at least 5"):
        dn2.fit(embedded, store, bank="parts", config=FitConfig(k=4), cleaning=done)


def test_bank_version_that_knows_of_no_cleaning_still_opens_and_scores(store: Store, embedded: Embedded):
    record = dn2.fit(embedded, store, bank="parts")
    file = Path(store.uri.removeprefix("file://"), f"banks/parts/versions/{record.version}.json")
    document = json.loads(file.read_bytes())
    for name in ("cleaning", "dropped", "contamination"):
        del document[name]
    file.write_text(json.dumps(document))

    assert dn2.open_bank(store, "parts") == record
    assert dn2.fit(embedded, store, bank="parts") == record
    batch = write_shards(store, contaminated(seed=1), name="batch")
    assert dn2.score(batch, store, bank="parts").scored == COUNT


def test_cleaned_bank_finds_the_impurities_that_an_uncleaned_one_has_learnt(store: Store, embedded: Embedded):
    """More of the same clusters come later: to the uncleaned bank they are normal."""
    config = FitConfig(metric="cosine")
    clean = dn2.fit(embedded, store, bank="clean", config=config, cleaning=dn2.clean(embedded, store, config=AUTO))
    dirty = dn2.fit(embedded, store, bank="dirty", config=config)
    more = clusters(4, 30)
    batch = write_shards(store, np.concatenate([more, mode(100, seed=0, spread=0.8)]).astype(np.float16), name="batch")

    shown = dn2.ScoreConfig(report_images=0)
    flagged = {one.name: dn2.score(batch, store, bank=one, config=shown).anomalous for one in (clean, dirty)}

    assert flagged["clean"] >= len(more)
    assert flagged["dirty"] < len(more) / 10


def test_real_pictures_of_which_some_are_broken(own_bricks: Bricks):
    """The demo's batch: intact wall and defects, and three files that cannot be read."""
    embedded = dn2.embed(dn2.ingest(own_bricks.batch, own_bricks.store), own_bricks.store)
    store = Store.open(own_bricks.store)

    done = dn2.clean(embedded, store)

    rows = cleaning_rows(store, done)
    assert (done.images, len(rows)) == (160, 160)
    assert Counter(row["reason"] is None for row in rows) == Counter({True: done.kept, False: done.dropped})
    assert {row["uri"] for row in rows} < {f"file://{path}" for path in own_bricks.batch.iterdir()}
    record = dn2.fit(embedded, store, bank="cleaned", cleaning=done)
    assert (record.rows, record.rejected) == (done.kept, 3)
    assert replace(record, version="") != replace(own_bricks.bank, version="")
