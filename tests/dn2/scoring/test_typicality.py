from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from dn2.neighbors.bank import prepared
from dn2.scoring.typicality import Block, Sample, drop_for, estimated_contamination, oddities
from tests.dn2.scoring.synthetic import clusters, mode


def unit(*parts: np.ndarray) -> np.ndarray:
    return prepared(np.concatenate(parts).astype(np.float32), "cosine")


def sample_of(vectors: np.ndarray, contents: np.ndarray | None = None) -> Sample:
    names = np.arange(len(vectors))
    return Sample(vectors, np.stack([names, names if contents is None else contents]))


def odd(vectors: np.ndarray, sample: Sample | None = None) -> np.ndarray:
    """Return (N,) float32 oddities of the images, by default among themselves."""
    sample = sample_of(vectors) if sample is None else sample
    own = sample.keys if len(vectors) == len(sample.vectors) else np.stack([np.arange(len(vectors)) + 10**6] * 2)
    return np.concatenate(list(oddities([(vectors, own)], sample)))


def found(scores: np.ndarray, impurities: np.ndarray) -> float:
    """Return which share of the impurities is among as many oddest images."""
    oddest = np.argsort(-scores, kind="stable")[: impurities.sum()]
    return float(impurities[oddest].mean())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "size"), [(10, 4), (4, 10), (1, 20)])
def test_small_tight_clusters_are_odder_than_one_large_mode(seed: int, count: int, size: int):
    """Each other's nearest: by the distance to the two nearest others they are the most normal of all."""
    normal = mode(760, seed=seed, spread=0.8)
    vectors = unit(normal, clusters(count, size, seed=1000 + seed))
    impurities = np.arange(len(vectors)) >= 760

    assert found(odd(vectors), impurities) == 1

    distances = sample_of(vectors).distances
    assert found(np.sort(distances, axis=1)[:, :2].mean(axis=1), impurities) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_small_tight_clusters_are_odder_than_two_modes_of_different_spread(seed: int):
    vectors = unit(
        mode(400, seed=seed, spread=0.3), mode(360, seed=seed + 50, spread=0.9), clusters(4, 10, seed=1000 + seed)
    )

    assert found(odd(vectors), np.arange(800) >= 760) >= 0.95


@pytest.mark.parametrize("seed", range(3))
def test_spread_out_mode_is_dropped_about_as_often_as_a_tight_one(seed: int):
    """Of both at most 35 % and 15 points more of one than of the other go when a quarter of all images does.

    By the distance to the two nearest others only images of the spread-out mode would go.
    """
    vectors = unit(mode(400, seed=seed, spread=0.3), mode(400, seed=seed + 50, spread=0.9))
    scores = odd(vectors)
    dropped = np.zeros(800, bool)
    dropped[np.argsort(-scores, kind="stable")[:200]] = True
    tight, diffuse = dropped[:400].mean(), dropped[400:].mean()

    assert max(tight, diffuse) < 0.35
    assert abs(diffuse - tight) < 0.15

    nearest = np.sort(sample_of(vectors).distances, axis=1)[:, :2].mean(axis=1)
    assert (np.argsort(-nearest)[:200] >= 400).all()


def test_what_lies_in_no_ball_is_odder_than_all_else_and_the_farther_the_odder():
    vectors = unit(mode(300, seed=0, spread=0.5))
    center = vectors.astype(np.float64).mean(0)
    opposite, aside = -center, np.roll(center, 1)
    strangers = unit(np.stack([center, aside, opposite]))

    scores = odd(strangers, sample_of(vectors))

    assert scores[0] < 1 < scores[1] < scores[2]


@pytest.mark.parametrize("seed", range(3))
def test_clean_images_are_estimated_to_be_nearly_clean(seed: int):
    for vectors in (
        unit(mode(800, seed=seed, spread=0.8)),
        unit(mode(400, seed=seed, spread=0.3), mode(400, seed=seed + 50, spread=0.9)),
    ):
        assert estimated_contamination(sample_of(vectors)) < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_estimate_grows_with_the_share_of_clusters(seed: int):
    normal = mode(800, seed=seed, spread=0.8)
    estimates = [
        estimated_contamination(sample_of(unit(normal, *([clusters(count, 8, seed=1000 + seed)] if count else []))))
        for count in (0, 2, 5, 10, 20)
    ]

    assert estimates == sorted(estimates)
    assert len(set(estimates)) == 5
    assert 0 <= estimates[0] < 0.01 < estimates[1]
    assert estimates[-1] <= 0.5


def test_copies_of_an_image_do_not_make_a_cluster():
    """An image that was stored ten times has no other near it; ten that only look alike are a cluster."""
    strangers = np.concatenate([mode(1, seed=seed, spread=0.2) for seed in (7, 8, 9)])
    vectors = unit(mode(300, seed=0, spread=0.5), np.repeat(strangers, 10, axis=0))
    contents = np.concatenate([np.arange(300), 300 + np.arange(30) // 10])

    alike, copies = sample_of(vectors), sample_of(vectors, contents)

    assert np.isinf(copies.distances[300:310, 300:310]).all()
    assert estimated_contamination(alike) > 0.05
    assert estimated_contamination(copies) == 0


def cut(vectors: np.ndarray, keys: np.ndarray, size: int) -> Iterator[Block]:
    for start in range(0, len(vectors), size):
        yield vectors[start : start + size], keys[:, start : start + size]


@pytest.mark.parametrize("size", [1, 7, 100, 333, 1100])
def test_result_does_not_depend_on_how_the_images_are_cut_into_blocks(size: int):
    vectors = unit(np.abs(mode(850, seed=1, spread=1.0)), np.abs(clusters(5, 10)))
    sample = sample_of(vectors)

    parts = np.concatenate(list(oddities(cut(vectors, sample.keys, size), sample)))

    np.testing.assert_allclose(parts, odd(vectors, sample), atol=1e-6)


def test_no_images_and_empty_blocks_give_no_scores():
    vectors = unit(mode(50, seed=0, spread=0.5))
    sample = sample_of(vectors)
    assert list(oddities([], sample)) == []
    nothing = list(oddities([(vectors[:0], sample.keys[:, :0])], sample))
    assert [(part.shape, part.dtype) for part in nothing] == [((0,), np.dtype(np.float32))]


def test_half_of_the_sample_is_typical_and_no_cluster_is_in_it():
    vectors = unit(mode(301, seed=0, spread=0.8), clusters(3, 10))
    half = sample_of(vectors).typical_half(0.1)
    assert (half.shape, int(half.sum()), int(half[301:].sum())) == ((331,), 166, 0)


@pytest.mark.parametrize(("contamination", "drop"), [(0.0, 0.25), (0.01, 0.35), (0.035, 0.6), (0.1, 0.6), (0.5, 0.6)])
def test_share_to_drop_grows_from_a_quarter_to_six_tenths(contamination: float, drop: float):
    assert drop_for(contamination) == pytest.approx(drop)
