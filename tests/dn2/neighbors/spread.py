"""Rows in all directions, and rows in clusters."""

from __future__ import annotations

import numpy as np

HALF = np.float16


def noise(count: int, dim: int = 8, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(HALF)


def clustered(count: int, *, seed: int, dim: int = 16) -> np.ndarray:
    """(count, dim) vectors in twenty clusters that overlap."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(20, dim))
    return (centres[random.integers(0, 20, count)] + random.normal(size=(count, dim))).astype(HALF)


def squared(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(N, C) squared distances."""
    return ((vectors.astype(np.float64)[:, None] - centres.astype(np.float64)) ** 2).sum(2)
