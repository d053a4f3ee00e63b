from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dn2
from dn2.neighbors import kmeans
from dn2.neighbors.kmeans import assign, centroids

HALF = np.float16
LOADED = """
import json, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "faiss":
            told.append(os.environ.get("OPENBLAS_CORETYPE"))

told = []
sys.meta_path.insert(0, Watch())
import numpy as np
from threadpoolctl import threadpool_info
from dn2.neighbors.kmeans import load_faiss

early = "faiss" in sys.modules
faiss = load_faiss()
random = np.random.default_rng(0)
bank, queries = (random.normal(size=(count, 96)).astype(np.float32) for count in (3000, 70))
index = faiss.IndexFlatL2(96)
index.add(bank)
found, rows = index.search(queries, 5)
exact = ((queries.astype(float)[:, None] - bank.astype(float)) ** 2).sum(2)
print(json.dumps({
    "early": early,
    "told": told,
    "left": os.environ.get("OPENBLAS_CORETYPE"),
    "same": load_faiss() is faiss is sys.modules["faiss"],
    "architectures": [
        blas["architecture"]
        for blas in threadpool_info()
        if blas["user_api"] == "blas" and "faiss" in blas["filepath"]
    ],
    "rows": bool((rows == exact.argsort(1)[:, :5]).all()),
    "off": float(np.abs(found - np.sort(exact, 1)[:, :5]).max()),
}))
"""


def loaded(**environment: str) -> dict[str, Any]:
    """What becomes of faiss and of the environment in a new process."""
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    command = [sys.executable, "-W", "error", "-c", LOADED]
    output = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    return json.loads(output.stdout)


def has_avx2() -> bool:
    """What Linux says about the processor."""
    return "avx2" in Path("/proc/cpuinfo").read_text().split()


def test_blas_of_faiss_uses_the_vector_units_and_the_environment_is_as_before():
    seen = loaded()

    if has_avx2():
        assert seen["told"] in (["HASWELL"], ["SKYLAKEX"])
        assert seen["architectures"]
        assert "prescott" not in [one.lower() for one in seen["architectures"]]
    else:
        assert seen["told"] == [None]
    assert seen["left"] is None
    assert (seen["rows"], seen["off"] < 1e-3) == (True, True)
    assert (seen["early"], seen["same"]) == (False, True)


def test_processor_without_vector_units_is_left_to_find_out():
    """torch says so when it is told to do without."""
    seen = loaded(ATEN_CPU_CAPABILITY="default")

    assert (seen["told"], seen["left"]) == ([None], None)
    assert seen["rows"]


@pytest.mark.parametrize("value", ["NEHALEM", ""])
def test_what_the_user_has_told_openblas_is_respected_and_kept(value: str):
    seen = loaded(OPENBLAS_CORETYPE=value)

    assert (seen["told"], seen["left"]) == ([value], value)
    if value and has_avx2():
        assert [one.upper() for one in seen["architectures"]] == [value]
    assert seen["rows"]


def test_environment_is_as_before_if_faiss_cannot_be_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setitem(sys.modules, "faiss", None)

    with pytest.raises(ImportError, match="faiss"):
        kmeans.load_faiss()

    assert "OPENBLAS_CORETYPE" not in os.environ


def imported(source: str) -> set[str]:
    """The packages that a module imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    parts = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in plain | parts}


def test_no_other_module_imports_faiss():
    root = Path(dn2.__file__).parent

    found = [path.relative_to(root).as_posix() for path in root.rglob("*.py") if "faiss" in imported(path.read_text())]

    assert found == ["neighbors/kmeans.py"]


def noise(count: int, dim: int = 8, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def error(sample: np.ndarray, centres: np.ndarray) -> float:
    """Mean squared distance to the nearest centre."""
    return float(((sample[:, None] - centres) ** 2).sum(2).min(1).mean())


@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_as_many_centres_as_asked_for(count: int):
    found = centroids(noise(200), count, iterations=3)

    assert (found.shape, found.dtype) == ((count, 8), np.float32)
    assert np.isfinite(found).all()
    assert len(np.unique(found, axis=0)) == count


def test_same_seed_same_centres():
    first, second = (centroids(noise(500), 20, iterations=8, seed=3) for _ in range(2))

    np.testing.assert_array_equal(first, second)


def test_other_seed_other_centres():
    assert not np.array_equal(*(centroids(noise(500), 20, iterations=8, seed=seed) for seed in (0, 1)))


@pytest.mark.parametrize("seed", range(5))
def test_blobs_are_found_wherever_it_begins(seed: int):
    sample = 0.1 * noise(300)
    sample[:40] += 5

    found = centroids(sample, 2, iterations=10, seed=seed)

    wanted = [sample[40:].mean(0), sample[:40].mean(0)]
    np.testing.assert_allclose(found[found[:, 0].argsort()], wanted, atol=1e-4)


def test_every_iteration_lowers_the_error():
    sample = noise(600, 3)

    errors = [error(sample, centroids(sample, 12, iterations=count)) for count in (1, 2, 5, 20)]

    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.95 * errors[0]


def test_one_centre_is_the_mean_of_all_rows():
    """Of more rows than k-means in faiss looks at unless told."""
    sample = noise(3000)

    found = centroids(sample, 1, iterations=2)

    np.testing.assert_allclose(found, sample.mean(0, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 30])
def test_as_many_centres_as_rows_are_the_rows_and_nothing_is_printed(count: int, capfd: pytest.CaptureFixture[str]):
    sample = noise(count)

    found = centroids(sample, count, iterations=4)

    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(sample, axis=0), atol=1e-6)
    assert error(sample, found) < 1e-9
    assert capfd.readouterr() == ("", "")


def test_few_rows_for_each_centre_are_no_reason_to_warn(capfd: pytest.CaptureFixture[str]):
    centroids(noise(50), 20, iterations=4)

    assert capfd.readouterr() == ("", "")


def test_equal_rows_have_centres_where_they_are():
    found = centroids(np.full((50, 4), 3, np.float32), 5, iterations=4)

    np.testing.assert_allclose(found, np.full((5, 4), 3), rtol=0.01)


def test_sample_is_left_as_it_was():
    sample = noise(100)

    centroids(sample, 9, iterations=4)

    np.testing.assert_array_equal(sample, noise(100))


def assigned(vectors: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances = ((vectors.astype(np.float64)[:, None] - centres.astype(np.float64)) ** 2).sum(2)
    return distances.argmin(1), distances.min(1)


@pytest.mark.parametrize("block", [1, 7, 250, 4096])
@pytest.mark.parametrize("count", [1, 40])
def test_rows_are_assigned_to_the_nearest_centre(count: int, block: int, monkeypatch: pytest.MonkeyPatch):
    vectors, centres = noise(251).astype(HALF), noise(count, seed=1)
    monkeypatch.setattr(kmeans, "_BLOCK", block)

    nearest, distances = assign(vectors, centres)

    wanted = assigned(vectors, centres)
    np.testing.assert_array_equal(nearest, wanted[0])
    np.testing.assert_allclose(distances, wanted[1], rtol=1e-4, atol=1e-5)
    assert (nearest.dtype, distances.dtype) == (np.int64, np.float32)


def test_rows_that_are_centres_are_assigned_to_themselves_at_no_negative_distance():
    vectors = (100 * noise(64, 48)).astype(HALF)

    nearest, distances = assign(vectors, vectors.astype(np.float32))

    assert nearest.tolist() == list(range(64))
    assert distances.min() >= 0
    assert distances.max() < 0.5


@pytest.mark.parametrize("mode", ["c", "r"])
def test_memory_mapped_rows_are_assigned(mode: str, tmp_path: Path):
    vectors, centres = noise(100).astype(HALF), noise(9, seed=1)
    np.save(tmp_path / "vectors.npy", vectors)

    nearest, _ = assign(np.load(tmp_path / "vectors.npy", mmap_mode=mode), centres)

    np.testing.assert_array_equal(nearest, assigned(vectors, centres)[0])


def test_no_rows_are_assigned_to_nothing():
    nearest, distances = assign(np.empty((0, 4), HALF), np.ones((3, 4), np.float32))

    assert (nearest.shape, distances.shape) == ((0,), (0,))
