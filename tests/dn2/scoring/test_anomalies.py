"""Confirmed anomalies never enter a bank, and tell what it finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

import dn2
from dn2 import layout
from dn2.config import FitConfig
from dn2.errors import BankError, ConfigError, NotFoundError
from dn2.records import Embedded
from dn2.scoring.scores import mean_distance
from dn2.store.schemas import ANOMALIES
from dn2.store.storage import Store
from dn2.store.tables import read_table
from dn2.upkeep.needed import needed_by_banks
from tests.dn2.groups.synthetic import normal_groups, write_groups
from tests.dn2.neighbors.oracle import brute_force
from tests.dn2.scoring.synthetic import modified, normal_vectors, write_shards
from tests.dn2.scoring.test_grow import image_id

CONFIG = FitConfig(index="exact", false_alarm_rate=0.1)
ODD = (normal_vectors(20, seed=5).astype(np.float32) + np.linspace(0, 1.5, 20)[:, None]).astype(np.float16)


def train(store: Store, **how: object) -> dn2.BankVersion:
    return dn2.fit(write_shards(store, normal_vectors(60, seed=0)), store, bank="parts", config=CONFIG, **how)


def odd(store: Store) -> Embedded:
    return write_shards(store, ODD, name="odd", shard_rows=8)


def listed(tmp_path: Path, *lines: str) -> str:
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n\n")
    return str(tmp_path / "list.txt")


def test_share_above_the_threshold_is_told(store: Store, tmp_path: Path):
    record = train(store)
    odd(store)
    made = dn2.anomalies(store, bank="parts", file=listed(tmp_path, *(image_id("odd", row) for row in range(20))))

    scores = mean_distance(brute_force(ODD, normal_vectors(60, seed=0), 2)[1])
    expected = int((scores > np.float32(record.threshold)).sum())
    assert 0 < expected < 20
    assert (made.bank, made.changed, made.scored, made.found, made.missing) == (record, 20, 20, expected, 0)
    assert made.uris == tuple(f"file:///odd/{row}.png" for row in range(20))
    again = dn2.anomalies(store, bank="parts")
    assert (again.uris, again.changed, again.found) == (made.uris, 0, expected)


def test_they_are_left_out_of_training_and_adding_by_their_bytes(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    before = train(store)
    odd(store)
    dn2.anomalies(store, bank="parts", file=listed(tmp_path, "file:///odd/1.png", "file:///odd/2.png"))
    renamed = write_shards(store, ODD[:5], name="more", contents=[f"odd-{row}" for row in range(5)])

    growth = dn2.add(renamed, store, bank="parts")
    assert (growth.added, growth.anomalies, growth.copies) == (3, 2, 0)
    assert growth.bank.rows == before.rows + 3

    trained = dn2.fit(renamed, store, bank="parts", config=CONFIG)
    assert (trained.rows, trained.calibration_rows) == (3, 3)
    assert "bank parts: 2 of the training images are kept as anomalies and left out" in caplog.text
    other = dn2.fit(renamed, store, bank="others", config=CONFIG)
    assert (other.rows, other.version == trained.version) == (5, False)


def test_they_are_held_out_of_calibration_too(store: Store, tmp_path: Path):
    train(store)
    vectors = np.concatenate([normal_vectors(60, seed=0), ODD])
    both = write_shards(store, vectors, name="both")
    dn2.anomalies(store, bank="parts", file=listed(tmp_path, *(f"file:///both/{row}.png" for row in range(60, 80))))
    held = dn2.fit(both, store, bank="parts", config=CONFIG.model_copy(update={"calibration": "held-out"}))
    assert (held.rows, held.calibration_rows) == (48, 12)


def test_name_of_a_version_changes_only_if_one_is_among_its_images(store: Store, tmp_path: Path):
    before = train(store)
    odd(store)
    dn2.anomalies(store, bank="parts", file=listed(tmp_path, "file:///odd/1.png"))
    assert train(store) == before
    dn2.anomalies(store, bank="parts", file=listed(tmp_path, "file:///normal/7.png"))
    after = train(store)
    assert (after.rows, after.version == before.version) == (59, False)
    assert train(store) == after
    dn2.anomalies(store, bank="parts", file=listed(tmp_path, "file:///normal/7.png"), remove=True)
    assert train(store) == before


def test_one_that_is_in_the_bank_is_named(store: Store, tmp_path: Path):
    train(store)
    made = dn2.anomalies(store, bank="parts", file=listed(tmp_path, "file:///normal/7.png"))
    assert made.in_bank == (image_id("normal", 7),)
    dn2.remove(store, made.in_bank, bank="parts")
    assert dn2.anomalies(store, bank="parts").in_bank == ()
    back = dn2.add(write_shards(store, normal_vectors(60, seed=0)), store, bank="parts")
    assert (back.added, back.anomalies, back.known) == (0, 1, 59)


def test_file_that_is_not_embedded_is_kept_by_its_bytes_and_found_when_it_is(store: Store, tmp_path: Path):
    train(store)
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "a.png").write_text("odd-19")
    made = dn2.anomalies(store, bank="parts", file=listed(tmp_path, "seen/a.png"))
    assert (made.scored, made.missing, made.uris) == (0, 1, (f"file://{tmp_path}/seen/a.png",))

    odd(store)
    again = dn2.anomalies(store, bank="parts")
    assert (again.scored, again.found, again.missing, again.uris) == (1, 1, 0, made.uris)


def test_report_names_those_that_it_flagged(store: Store, tmp_path: Path):
    train(store)
    report = dn2.score(odd(store), store, bank="parts")
    part = f"{report.uri}/part-00001.parquet"
    rows = pq.read_table(part.removeprefix("file://")).to_pylist()
    flagged = tuple(row["uri"] for row in rows if row["is_anomaly"] or row["selected"])
    assert 0 < len(flagged) < len(rows) or len(flagged) == 8
    made = dn2.anomalies(store, bank="parts", file=part)
    assert (made.uris, made.found) == (flagged, sum(row["is_anomaly"] for row in rows))


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("column", ["image_id", "uri"])
def test_every_row_of_another_table_counts(store: Store, tmp_path: Path, kind: str, column: str):
    train(store)
    odd(store)
    values = {"image_id": [image_id("odd", 3), None], "uri": ["file:///odd/3.png", None]}[column]
    table = pa.table({column: values, "verdict": ["scratch", "dent"]})
    path = str(tmp_path / f"list.{kind}")
    pq.write_table(table, path) if kind == "parquet" else pc.write_csv(table, path)
    assert dn2.anomalies(store, bank="parts", file=path).uris == ("file:///odd/3.png",)


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        ([], ConfigError, r"file .*/list\.txt: got no image, expected paths, URIs or image ids"),
        (
            ["nothing.png", "file:///odd/3.png"],
            NotFoundError,
            r"got 1 images that are neither embedded in store .*/nothing\.png; exp",
        ),
        (["0" * 32], NotFoundError, rf"can be read: {'0' * 32}; expected"),
        (["s3://user:secret@bucket/x"], ConfigError, "password"),
    ],
)
def test_what_names_no_image_is_refused_and_nothing_is_kept(
    store: Store, tmp_path: Path, lines: list[str], error: type[Exception], message: str
):
    train(store)
    odd(store)
    with pytest.raises(error, match=message):
        dn2.anomalies(store, bank="parts", file=listed(tmp_path, *lines))
    assert not store.exists(layout.bank_anomalies("parts"))


def test_only_what_is_kept_can_be_removed(store: Store, tmp_path: Path):
    train(store)
    odd(store)
    dn2.anomalies(store, bank="parts", file=listed(tmp_path, "file:///odd/1.png", "file:///odd/2.png"))
    with pytest.raises(NotFoundError, match=r"got 1 images that are not kept as anomalies: file:///odd/3\.png; dn2"):
        dn2.anomalies(store, bank="parts", file=listed(tmp_path, "file:///odd/3.png"), remove=True)
    with pytest.raises(ConfigError, match="remove: got no file"):
        dn2.anomalies(store, bank="parts", remove=True)
    left = dn2.anomalies(store, bank="parts", file=listed(tmp_path, image_id("odd", 1)), remove=True)
    assert (left.uris, left.changed) == (("file:///odd/2.png",), 1)


def test_nothing_is_written_when_nothing_changes(store: Store, tmp_path: Path):
    train(store)
    odd(store)
    file = listed(tmp_path, "file:///odd/1.png")
    dn2.anomalies(store, bank="parts", file=file)
    before = modified(tmp_path / "store")
    assert dn2.anomalies(store, bank="parts", file=file).changed == 0
    assert dn2.anomalies(store, bank="parts").changed == 0
    assert modified(tmp_path / "store") == before


def test_their_shards_stay_when_a_store_is_pruned(store: Store, tmp_path: Path):
    train(store)
    shards = {one.path for one in odd(store).shards}
    assert not shards & needed_by_banks(store).shards
    dn2.anomalies(store, bank="parts", file=listed(tmp_path, "file:///odd/1.png", "file:///odd/9.png"))
    (tmp_path / "new.png").write_text("never embedded")
    dn2.anomalies(store, bank="parts", file=listed(tmp_path, "new.png"))
    kept = set(read_table(store, layout.bank_anomalies("parts"), ANOMALIES)["shard"].to_pylist())
    assert len(kept) == 3
    assert kept - {None} == shards & needed_by_banks(store).shards


def test_bank_of_groups_keeps_none(store: Store):
    groups = write_groups(store, normal_groups([4] * 12, seed=0))
    dn2.fit_groups(groups, store, bank="lots", config=dn2.GroupFitConfig(false_alarm_rate=0.2))
    with pytest.raises(BankError, match="got a bank of groups"):
        dn2.anomalies(store, bank="lots")
