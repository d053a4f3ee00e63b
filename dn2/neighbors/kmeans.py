"""K-means: the one module that imports faiss.

The OpenBLAS inside faiss's wheels is older than today's processors, takes them for ones without vector units, and is
then many times slower than it could be. So it is told what they are before it is loaded, unless the user has told it.
"""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch

from dn2.neighbors.products import centred, tensor

_CORES = {
    "AVX512": "SKYLAKEX",
    "AVX2": "HASWELL",
}  # torch's names of what a processor can, and OpenBLAS's of processors
_BLOCK = 4096  # rows assigned at a time


def load_faiss() -> ModuleType:
    """Return faiss, whose BLAS uses what this processor can."""
    told, core = os.environ.get("OPENBLAS_CORETYPE"), _CORES.get(torch.backends.cpu.get_cpu_capability())
    if told is None and core is not None:
        os.environ["OPENBLAS_CORETYPE"] = core
    try:
        import faiss
    finally:
        if told is None:
            os.environ.pop("OPENBLAS_CORETYPE", None)
    module: ModuleType = faiss
    return module


def centroids(
    sample: npt.NDArray[np.float32], count: int, *, iterations: int, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Return (count, D) float32 centres of k-means.

    Args:
        sample: (N, D) float32, N >= count.
        count: how many.
        iterations: of Lloyd's algorithm.
        seed: of the rows that it begins with.
    """
    kmeans = load_faiss().Kmeans(
        sample.shape[1],
        count,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),  # the sample is bounded already
    )
    kmeans.train(sample)
    found: npt.NDArray[np.float32] = kmeans.centroids.copy()
    return found


def assign(
    vectors: npt.NDArray[np.float16], centres: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the nearest centre of each row, (N,) int64, and its squared distance, (N,) float32, rounded.

    Args:
        vectors: (N, D) float16; may be memory-mapped.
        centres: (C, D) float32.
    """
    nearest, distances = np.empty(len(vectors), np.int64), np.empty(len(vectors), np.float32)
    wanted, middle = centred(torch.from_numpy(centres))
    norms = (wanted * wanted).sum(1)
    for low in range(0, len(vectors), _BLOCK):
        rows = tensor(vectors[low : low + _BLOCK]).float() - middle
        found = torch.addmm(norms, rows, wanted.T, alpha=-2).min(1)
        nearest[low : low + _BLOCK] = found.indices.numpy()
        distances[low : low + _BLOCK] = (found.values + (rows * rows).sum(1)).clamp_min(0).numpy()
    return nearest, distances
