from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

import dn2
from dn2.evaluation.bricks import blocks
from dn2.evaluation.fashion import write_pictures
from dn2.records import BankVersion, Doubt, Report
from dn2.store.storage import Store
from tests.conftest import Bricks
from tests.dn2.scoring.synthetic import normal_vectors, write_shards


@pytest.fixture
def bank(store: Store) -> BankVersion:
    normal = write_shards(store, normal_vectors(200, seed=0))
    return dn2.fit(normal, store, bank="parts", config=dn2.FitConfig(false_alarm_rate=0.1))


def scored(store: Store, bank: BankVersion, vectors: np.ndarray, **shards: object) -> Report:
    return dn2.score(write_shards(store, vectors, **{"name": "batch", **shards}), store, bank=bank)  # type: ignore[arg-type]


def doubt(report: Report, code: str) -> Doubt:
    (found,) = (one for one in report.doubts if one.code == code)
    return found


def pictures_scored(folder: Path, bricks: Bricks) -> Report:
    embedded = dn2.embed(dn2.ingest(folder, bricks.store), bricks.store, bank=bricks.bank)
    return dn2.score(embedded, bricks.store, bank=bricks.bank)


def test_training_images_in_a_batch_are_known_by_their_bytes(own_bricks: Bricks, tmp_path: Path):
    """Under other names too; the rates are those of the others."""
    for number, path in enumerate(sorted(own_bricks.normal.iterdir())[:10]):
        shutil.copy(path, tmp_path / f"again-{number}.png")
    for kind in ("good-0*", "material-0*"):
        for path in sorted(own_bricks.batch.glob(kind))[:4]:
            shutil.copy(path, tmp_path)
    report = pictures_scored(tmp_path, own_bricks)
    found = doubt(report, "known-images")
    assert found.numbers == {"known": 10, "by_bytes": 10, "nearly": 0, "images": 18}
    assert [uri.rpartition("/")[2] for uri in found.uris] == [f"again-{number}.png" for number in range(10)]
    assert (report.known, report.known_anomalous, report.anomalous, report.anomalous_rate) == (10, 0, 4, 0.5)


def test_training_images_that_were_saved_again_are_nearly_known(own_bricks: Bricks, tmp_path: Path):
    for path in sorted(own_bricks.normal.iterdir())[:6]:
        Image.open(path).save(tmp_path / f"{path.stem}.jpg", quality=97)
    for path in sorted(own_bricks.batch.glob("good-*"))[:14]:
        shutil.copy(path, tmp_path)
    found = doubt(pictures_scored(tmp_path, own_bricks), "known-images")
    assert found.numbers == {"known": 6, "by_bytes": 0, "nearly": 6, "images": 20}
    assert {uri.rpartition(".")[2] for uri in found.uris} == {"jpg"}


@pytest.mark.parametrize("scale", ["none", "local"])
def test_near_images_are_found_whatever_scores_are_relative_to(store: Store, scale: str):
    vectors = normal_vectors(300, seed=0) * np.float16(20)
    config = dn2.FitConfig.model_validate({"scale": scale, "false_alarm_rate": 0.1})
    bank = dn2.fit(write_shards(store, vectors[:200]), store, bank="parts", config=config)
    again = vectors[:10] + np.random.default_rng(0).normal(0, 0.1, (10, 16)).astype(np.float16)
    report = scored(store, bank, np.concatenate([again, vectors[200:]]))
    assert doubt(report, "known-images").numbers == {"known": 10, "by_bytes": 0, "nearly": 10, "images": 110}


def test_images_that_calibrate_a_bank_are_known_as_well(store: Store):
    normal = write_shards(store, normal_vectors(200, seed=0))
    bank = dn2.fit(normal, store, bank="parts", config=dn2.FitConfig(calibration="held-out", false_alarm_rate=0.1))
    report = dn2.score(normal, store, bank=bank)
    assert doubt(report, "known-images").numbers["by_bytes"] == 200
    assert report.anomalous_rate == 0


def test_image_that_was_removed_from_the_bank_is_no_longer_known(store: Store):
    normal = write_shards(store, normal_vectors(200, seed=0))
    bank = dn2.fit(normal, store, bank="parts", config=dn2.FitConfig(false_alarm_rate=0.1))
    (worst, *_) = dn2.score(normal, store, bank=bank).worst
    row = int(worst.uri.rpartition("/")[2].removesuffix(".png"))
    image_id = normal_id(row)
    smaller = dn2.remove(store, [image_id], bank="parts").bank
    assert dn2.score(normal, store, bank=smaller).known == 199


def normal_id(row: int) -> str:
    return hashlib.sha256(f"normal-{row}".encode()).hexdigest()[:32]


def test_another_material_is_another_kind_of_image(own_bricks: Bricks, tmp_path: Path):
    write_pictures(tmp_path / "grass", np.stack(list(blocks(data.grass()).values())[:24]))
    found = doubt(pictures_scored(tmp_path / "grass", own_bricks), "another-kind")
    assert found.numbers["units"] == 24
    assert found.numbers["scores_higher"] > 0.99
    assert "it is not the same kind of image" in found.message


def test_batch_that_lies_left_of_the_calibration(store: Store, bank: BankVersion):
    """Between the normal images, nearer to all of them than they are to each other."""
    middle = np.repeat(normal_vectors(200, seed=0).mean(0, dtype=np.float32)[None], 50, axis=0)
    vectors = (middle + np.random.default_rng(0).normal(0, 0.05, middle.shape)).astype(np.float16)
    found = doubt(scored(store, bank, vectors), "another-kind")
    assert found.numbers["scores_higher"] < 0.05
    assert "scores lower than" in found.message


@pytest.mark.parametrize("odd", [0, 20, 80])
def test_batch_of_normal_images_and_some_anomalies_is_of_the_same_kind(store: Store, bank: BankVersion, odd: int):
    vectors = normal_vectors(100, seed=1)
    vectors[:odd] *= 4
    assert "another-kind" not in [one.code for one in scored(store, bank, vectors).doubts]


def test_one_burst_of_an_odd_part_counts_once(store: Store, bank: BankVersion):
    """Named as a group, with the same bytes, or found to be near copies; as many images apart are another kind."""
    random = np.random.default_rng(3)
    centres = 4 * normal_vectors(5, seed=2).astype(np.float32)
    burst = (centres.repeat(8, 0) + random.normal(0, 0.02, (40, 16))).astype(np.float16)
    apart = (4 * normal_vectors(40, seed=4).astype(np.float32)).astype(np.float16)
    told = {
        "group": scored(store, bank, apart, groups=["g"] * 40, name="group"),
        "bytes": scored(store, bank, apart[:1].repeat(40, 0), contents=["c"] * 40, name="bytes"),
        "near": scored(store, bank, np.concatenate([burst, normal_vectors(3, seed=5)]), name="near"),
        "apart": scored(store, bank, apart, name="apart"),
    }
    found = {name: "another-kind" in [one.code for one in report.doubts] for name, report in told.items()}
    assert found == {"group": False, "bytes": False, "near": False, "apart": True}


def test_summary_lists_doubts_of_batch_and_bank(own_bricks: Bricks):
    report = pictures_scored(own_bricks.normal, own_bricks)
    summary = json.loads((Path(report.html.removeprefix("file://")).parent / "summary.json").read_text())
    told = json.loads(json.dumps([asdict(one) for one in report.doubts]))
    assert summary["doubts"] == told
    assert [one["code"] for one in told] == ["known-images", "rate-not-kept"]
    assert summary["warnings"] == [one.message for one in report.doubts] == list(report.warnings)
    assert [one["code"] for one in summary["bank_version"]["doubts"]] == ["rate-not-kept"]
    assert (summary["known"], summary["known_anomalous"]) == (32, 0)


def test_names_in_doubts_move_no_cursor(own_bricks: Bricks, tmp_path: Path):
    shutil.copy(next(own_bricks.normal.iterdir()), tmp_path / "a\x1b[2J\nb.png")
    report = pictures_scored(tmp_path, own_bricks)
    assert all(character.isprintable() for one in report.doubts for character in one.message)
    page = Path(report.html.removeprefix("file://")).read_text()
    assert "<code>known-images</code>" in page
    assert "<div><b>1</b>in the bank already</div>" in page


def test_nearness_that_is_met_by_chance_is_none(store: Store):
    """In two dimensions every eighth image is so near to one of the bank."""
    flat = np.random.default_rng(0).normal(5, 1, (900, 2)).astype(np.float16)
    bank = dn2.fit(write_shards(store, flat[:600]), store, bank="flat", config=dn2.FitConfig(false_alarm_rate=0.1))
    assert [one.code for one in scored(store, bank, flat[600:]).doubts] == []


def test_report_is_decided_anew_without_the_embeddings_of_its_batch(store: Store, bank: BankVersion):
    """What they would tell is not told: the bytes, and what is near to what."""
    far = (4 * normal_vectors(40, seed=4).astype(np.float32)).astype(np.float16)
    first = scored(store, bank, far, shard_rows=15)
    for path in Path(store.uri.removeprefix("file://")).glob("embeddings/*/batch/*"):
        path.unlink()
    again = dn2.rethreshold(first, config=dn2.ScoreConfig(threshold=dn2.ThresholdConfig(budget=3)))
    assert (again.anomalous, [one.code for one in again.doubts]) == (3, ["another-kind"])
