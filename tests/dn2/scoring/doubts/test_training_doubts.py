from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import dn2
from dn2.records import BankVersion
from dn2.scoring.doubts.training import far_out
from dn2.store.storage import Store
from tests.dn2.scoring.synthetic import normal_vectors, write_shards


def trained(store: Store, vectors: np.ndarray, *, far: float = 0.01, **shards: object) -> BankVersion:
    embedded = write_shards(store, vectors, **shards)  # type: ignore[arg-type]
    return dn2.fit(embedded, store, bank="parts", config=dn2.FitConfig(false_alarm_rate=far))


def codes(made: BankVersion) -> list[str]:
    return [doubt.code for doubt in made.doubts]


def with_far(count: int, far: int) -> np.ndarray:
    """Normal vectors, and as many far from them and from each other."""
    vectors = normal_vectors(count + far, seed=0)
    vectors[count:] *= np.linspace(3, 5, far)[:, None]
    return vectors


def test_far_images_raise_the_threshold_and_are_named(store: Store):
    """24 among 424: more than the rate allows, so the threshold lies among them."""
    bank = trained(store, with_far(400, 24))
    (doubt,) = bank.doubts
    clean = trained(store, normal_vectors(400, seed=0), name="clean")
    assert doubt.code == "far-images"
    assert doubt.numbers["far"] == pytest.approx(24, abs=2)
    assert doubt.numbers["threshold"] == bank.threshold > 3 * clean.threshold
    assert doubt.numbers["threshold_without"] == pytest.approx(clean.threshold, rel=0.05)
    assert len(doubt.uris) == 10
    assert {int(uri.rpartition("/")[2].removesuffix(".png")) for uri in doubt.uris} <= set(range(400, 424))
    assert f"from {doubt.numbers['threshold_without']:.4g} to {bank.threshold:.4g}" in doubt.message


def test_single_far_image_is_told_of_where_it_sets_the_threshold(store: Store):
    """With fewer than 99 images the threshold is the largest score; with more one image changes nothing."""
    few, many = normal_vectors(61, seed=0), normal_vectors(301, seed=0)
    few[-1] *= 8
    many[-1] *= 8
    assert codes(trained(store, few)) == ["rate-not-kept", "far-images"]
    assert codes(trained(store, many, name="many")) == []


@pytest.mark.parametrize("count", [30, 100, 1000])
def test_scores_with_a_long_tail_are_not_far_out(count: int):
    """Lognormal ones, a spread of 2.2 in squared distances; over many draws."""
    random = np.random.default_rng(0)
    draws = [far_out(random.lognormal(0, 0.8, count).astype(np.float32)).any() for _ in range(400)]
    assert np.mean(draws) <= 0.02


def test_equal_scores_have_no_tail():
    assert not far_out(np.zeros(50, np.float32)).any()
    assert not far_out(np.full(50, 3, np.float32)).any()
    assert not far_out(np.array([1.0, 2.0], np.float32)).any()


def test_order_of_the_images_makes_no_difference():
    random = np.random.default_rng(1)
    scores = np.concatenate([random.lognormal(0, 0.3, 200), [30, 40, 50]]).astype(np.float32)
    order = random.permutation(len(scores))
    np.testing.assert_array_equal(far_out(scores)[order], far_out(scores[order]))
    assert far_out(scores).nonzero()[0].tolist() == [200, 201, 202]


def test_bank_of_few_units(store: Store):
    groups = [f"part-{row // 10}" for row in range(150)]
    bank = trained(store, normal_vectors(150, seed=0), far=0.1, groups=groups)
    doubt = next(one for one in bank.doubts if one.code == "few-units")
    assert doubt.numbers == {"units": 15, "images": 150, "expected": 20}
    groups = [f"part-{row // 10}" for row in range(250)]
    assert "few-units" not in codes(trained(store, normal_vectors(250, seed=0), far=0.1, groups=groups, name="more"))


def test_what_a_small_bank_cannot_promise_and_images_all_alike(store: Store, caplog: pytest.LogCaptureFixture):
    bank = trained(store, normal_vectors(30, seed=0))
    (doubt,) = bank.doubts
    assert (doubt.code, doubt.numbers) == (
        "rate-not-kept",
        {"calibrated_by": 30, "asked": 0.01, "promised": 1 / 31, "needed": 99},
    )
    assert caplog.messages == [f"bank parts: {doubt.message} [rate-not-kept]"]
    alike = trained(store, np.ones((40, 16), np.float16), far=0.1, name="alike")
    assert "no-differences" in codes(alike)


def test_doubts_lie_in_the_version_and_are_shown(store: Store):
    bank = trained(store, with_far(400, 24))
    folder = Path(store.uri.removeprefix("file://")) / "banks" / "parts" / "versions"
    (told,) = json.loads((folder / f"{bank.version}.json").read_text())["doubts"]
    assert (told["code"], told["numbers"]["far"], len(told["uris"])) == (
        "far-images",
        bank.doubts[0].numbers["far"],
        10,
    )
    assert dn2.open_bank(store, "parts") == bank
    (shown,) = dn2.show(store).banks[0].versions
    assert isinstance(shown.made, BankVersion)
    assert shown.made.doubts == bank.doubts


def test_bank_that_grows_or_shrinks_is_judged_anew(store: Store):
    few = trained(store, normal_vectors(15, seed=0), far=0.1)
    assert codes(few) == ["few-units"]
    more = write_shards(store, normal_vectors(30, seed=1), name="more")
    assert codes(dn2.add(more, store, bank="parts").bank) == []
    far = trained(store, with_far(400, 24), name="far")
    assert codes(far) == ["far-images"]
    ids = [hashlib.sha256(f"far-{row}".encode()).hexdigest()[:32] for row in range(400, 424)]
    assert codes(dn2.remove(store, ids, bank="parts").bank) == []


def test_unit_of_more_than_a_tenth_of_the_images(store: Store):
    copies = np.concatenate([normal_vectors(200, seed=0), np.repeat(normal_vectors(1, seed=1), 50, axis=0)])
    copies[200:] += np.random.default_rng(0).normal(0, 0.001, copies[200:].shape).astype(np.float16)
    bank = trained(store, copies)
    doubt = next(one for one in bank.doubts if one.code == "large-unit")
    assert doubt.numbers == {"images": 250, "of_unit": 50}
    assert len(doubt.uris) == 10
    few = np.concatenate([copies[:200], copies[200:215]])
    assert "large-unit" not in codes(trained(store, few, name="few"))
