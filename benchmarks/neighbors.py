"""How fast is the search for neighbours, and when do cells pay off? `make bench-neighbors`: 15 minutes on two cores.

Embeddings of length 1,280, k = 2, squared L2. All times are wall-clock times of all cores. faiss's BLAS is told which
processor this is, as dn2 does it; scikit-learn's knows.

**60,000 rows**, the training images of Fashion-MNIST, and the first 2,000 test images: exact search by dn2 on float16,
`IndexFlatL2` of faiss, brute force of scikit-learn, and bare matrix products of the same blocks in float32, whose
result nobody looks at. All take turns; medians of five rounds. `exact_vs_...` is the other's time divided by ours:
above 1, ours is faster. The best peer is the faster of faiss and scikit-learn.

**1,000,000 rows**, made of training images: (1 - w) a + w b + 0.15 s e with a and b drawn from them, w uniform in
[0, 0.3], s the standard deviation of each dimension, e normal. The queries are all 10,000 test images.

* `exact_vs_matmul_1m`: exact search and bare products take turns, block of queries by block; of the products, the
  conversion of blocks to float32 is not counted;
* `ivf_build_minutes`: k-means, rows written cell by cell, and nprobe chosen for a recall of 0.99 with 1,000 other made
  rows. No test image has a part in it;
* `ivf_vs_exact_1m`, `ivf_recall_1m`: time of exact search divided by that of cells (median of 3), and the share of the
  2 nearest rows that these find, all queries at once; `..._batch2000`: 2,000 at a time, medians of 3 such batches;
* `faiss_ivf_...`: the same cells in faiss, with float16 rows and the same nprobe; 2,000 queries, once;
* `ivf_peak_memory_vs_vectors`: the most anonymous memory of a new process that builds and searches (files that are
  mapped do not count: the system may drop them), in multiples of the vectors' size.

**When cells pay off.** `costs` in the results has the time of a query, in batches of 2,000, and of the building for
three sizes. `crossover` is the number of queries from which building cells pays off. `auto_worst_ratio`: the time of
what `choose_index` takes divided by that of the better of both, the worst of the three sizes and 1,000, 10,000, 100,000
and 1,000,000 expected queries.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fashion import FOLDER, Embeddings, load
from benchmarks.neighbor_data import (
    BUILD_FILE,
    CELLS_FILE,
    CHUNK,
    QUERIES,
    QUERIES_FILE,
    RECALL,
    ROWS,
    ROWS_FILE,
    Built,
    K,
    build,
    made_rows,
    mapped,
    recall_of,
    say,
)
from benchmarks.results import write_results
from dn2.neighbors import exact, ivf
from dn2.neighbors.choice import choose_index
from dn2.neighbors.kmeans import load_faiss
from dn2.neighbors.products import Neighbors, Rows, tensor

ROUNDS, LONG_ROUNDS = 5, 3  # the latter with a million rows
BATCH = QUERIES // 5
SIZES = (ROWS // 100, ROWS // 10, ROWS)
EXPECTED = (1_000, 2_000, 5_000, 10_000, 100_000, 1_000_000)  # queries
QUERY_BLOCK, ROW_BLOCK = 2048, 5120  # what exact search takes at a time
PAUSE = 0.05  # seconds between two looks at another process's memory


@dataclass(frozen=True, slots=True)
class Cost:
    """What exact search and cells take for a number of rows, and how much of the nearest the cells find."""

    rows: int
    exact_ms: float  # per query
    ivf_ms: float
    build_seconds: float
    nlist: int
    nprobe: int
    recall: float

    def total(self, index: str, queries: int) -> float:
        """Return the seconds of an index, exact or ivf, and so many queries."""
        return queries * self.exact_ms / 1e3 if index == "exact" else self.build_seconds + queries * self.ivf_ms / 1e3

    def crossover(self) -> int | None:
        """Return the number of queries from which cells take less time, building included; None if they never do."""
        saved = (self.exact_ms - self.ivf_ms) / 1e3
        return round(self.build_seconds / saved) if saved > 0 else None


def main() -> None:
    """Measure, print and keep the figures."""
    if sys.argv[1:] == ["--memory"]:
        return build_and_search()
    data = load()
    figures, about = small_bank(data)
    vectors = made_rows(data.train)
    queries = data.test[:QUERIES]
    np.save(QUERIES_FILE, queries)
    bank, held_out = vectors[:ROWS], vectors[ROWS:]
    truth, exact_seconds, matmul_seconds = exact_and_products(queries, bank)
    figures["exact_vs_matmul_1m"] = matmul_seconds / exact_seconds
    figures["ivf_peak_memory_vs_vectors"] = peak_memory() / bank.nbytes
    built = Built.load(BUILD_FILE)
    figures["ivf_build_minutes"] = built.seconds / 60
    figures |= all_at_once(queries, built, truth, exact_seconds)
    figures |= faiss_cells(queries[:BATCH], built, truth[:BATCH], exact_seconds / len(queries))
    costs = [small_cost(queries, bank[:rows], held_out) for rows in SIZES[:-1]]
    costs.append(cost(queries, bank, mapped(CELLS_FILE), built, LONG_ROUNDS))
    figures["ivf_vs_exact_1m_batch2000"] = costs[-1].exact_ms / costs[-1].ivf_ms
    figures["ivf_recall_1m_batch2000"] = costs[-1].recall
    choices = chosen(costs, bank.shape[1])
    figures["auto_worst_ratio"] = max(choice["ratio"] for choice in choices)
    write_results("neighbors", figures, about | about_cells(built, queries, exact_seconds) | tables(costs, choices))


def small_bank(data: Embeddings) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures of exact search among the training images, and the seconds behind them."""
    from sklearn.neighbors import NearestNeighbors  # here: the process whose memory is measured needs none of it

    queries = data.test[:BATCH]
    wide, wide_queries = (tensor(part).float().numpy() for part in (data.train, queries))
    flat = load_faiss().IndexFlatL2(wide.shape[1])
    flat.add(wide)
    brute = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(wide)
    contestants: dict[str, Callable[[], Any]] = {
        "ours": lambda: exact.search(queries, data.train, K).rows,
        "faiss": lambda: flat.search(wide_queries, K)[1],
        "sklearn": lambda: brute.kneighbors(wide_queries)[1],
        "matmul": lambda: products_of(wide_queries, wide),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    found = {}
    for number in range(ROUNDS):
        say(f"{len(wide):,} rows, round {number + 1} of {ROUNDS}")
        for name, run in contestants.items():
            found[name], took = timed(run)
            seconds[name].append(took)
    median = {name: float(np.median(took)) for name, took in seconds.items()}
    figures = {
        "exact_vs_best_peer": min(median["faiss"], median["sklearn"]) / median["ours"],
        "exact_vs_sklearn": median["sklearn"] / median["ours"],
        "exact_vs_matmul_60k": median["matmul"] / median["ours"],
    }
    agreement = {name: float((found[name] == found["ours"]).mean()) for name in ("faiss", "sklearn")}
    return figures, {"seconds_60k": rounded(median), "same_rows_as_ours_60k": agreement}


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a function returns, and how many seconds it takes."""
    began = time.perf_counter()
    found = run()
    return found, time.perf_counter() - began


def products_of(queries: np.ndarray, bank: np.ndarray) -> float:
    """Return the seconds of the bare products of (Q, D) and (N, D), in the blocks of exact search.

    Of float16 blocks, the conversion to float32 is not counted.
    """
    seconds, memory = 0.0, torch.empty(QUERY_BLOCK * ROW_BLOCK)
    for start in range(0, len(queries), QUERY_BLOCK):
        left = tensor(queries[start : start + QUERY_BLOCK]).float()
        for low in range(0, len(bank), ROW_BLOCK):
            right = tensor(bank[low : low + ROW_BLOCK]).float()
            out = memory[: len(left) * len(right)].view(len(left), len(right))
            began = time.perf_counter()
            torch.mm(left, right.T, out=out)
            seconds += time.perf_counter() - began
    return seconds


def exact_and_products(queries: np.ndarray, bank: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return the (Q, K) nearest rows, the seconds of exact search, and those of the bare products."""
    rows, exact_seconds, matmul_seconds = [], 0.0, 0.0
    for start in range(0, len(queries), QUERY_BLOCK):
        say(f"{len(bank):,} rows, exact search from query {start:,}")
        block = queries[start : start + QUERY_BLOCK]
        found, took = timed(lambda block=block: exact.search(block, bank, K))
        rows.append(found.rows)
        exact_seconds += took
        matmul_seconds += products_of(block, bank)
    return np.concatenate(rows), exact_seconds, matmul_seconds


def build_and_search() -> None:
    """Make the cells, search them once, and hand them over in a file: in a process of its own."""
    vectors = mapped(ROWS_FILE)
    built = build(vectors[:ROWS], vectors[ROWS:], CELLS_FILE)
    built.save(BUILD_FILE)
    search_cells(np.load(QUERIES_FILE), mapped(CELLS_FILE), built)


def search_cells(queries: np.ndarray, by_cell: np.ndarray, built: Built) -> Neighbors:
    """Return the nearest rows that the cells have; their numbers are those of the bank, not of the cells."""
    found = ivf.search(queries, Rows(by_cell), built.cells, K, nprobe=built.nprobe)
    return Neighbors(built.order[found.rows], found.distances)


def peak_memory() -> int:
    """Return the most anonymous memory, in bytes, of a process that builds and searches."""
    say(f"{ROWS:,} rows, building cells and searching them, for their time and memory")
    BUILD_FILE.unlink(missing_ok=True)
    peak = 0
    command = [sys.executable, "-m", "benchmarks.neighbors", "--memory"]
    with subprocess.Popen(command) as process:  # noqa: S603  (our own)
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(PAUSE)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
    return peak


def anonymous(process: int) -> int:
    """Return the anonymous memory of a process in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def all_at_once(queries: np.ndarray, built: Built, truth: np.ndarray, exact_seconds: float) -> dict[str, float]:
    """Return the figures of the cells, all queries at once."""
    by_cell, seconds = mapped(CELLS_FILE), []
    for number in range(LONG_ROUNDS):
        say(f"{len(by_cell):,} rows, searching cells, round {number + 1} of {LONG_ROUNDS}")
        found, took = timed(lambda: search_cells(queries, by_cell, built))
        seconds.append(took)
    return {
        "ivf_vs_exact_1m": exact_seconds / float(np.median(seconds)),
        "ivf_recall_1m": recall_of(truth, found.rows),
    }


def faiss_cells(queries: np.ndarray, built: Built, truth: np.ndarray, exact_seconds: float) -> dict[str, float]:
    """Return the figures of the same cells in faiss; `exact_seconds` are those of one query."""
    faiss, by_cell = load_faiss(), mapped(CELLS_FILE)
    say(f"{len(by_cell):,} rows, filling faiss's cells")
    dim, nlist = by_cell.shape[1], len(built.cells.centroids)
    quantizer = faiss.IndexFlatL2(dim)
    quantizer.add(built.cells.centroids)
    half, no_residuals = faiss.ScalarQuantizer.QT_fp16, False
    index = faiss.IndexIVFScalarQuantizer(quantizer, dim, nlist, half, faiss.METRIC_L2, no_residuals)
    index.train(built.cells.centroids)  # float16 needs none: it only says that it is ready
    index.nprobe = built.nprobe
    cell = np.repeat(np.arange(nlist), np.diff(built.cells.starts))
    for low in range(0, len(by_cell), CHUNK):
        block = tensor(by_cell[low : low + CHUNK]).float().numpy()
        ids, cells = built.order[low : low + CHUNK], cell[low : low + CHUNK]
        index.add_core(len(block), *(faiss.swig_ptr(part) for part in (block, ids, cells)))
    wide = tensor(queries).float().numpy()
    say(f"{len(by_cell):,} rows, searching faiss's cells")
    (_, rows), took = timed(lambda: index.search(wide, K))
    return {
        "faiss_ivf_vs_exact_1m": exact_seconds / (took / len(queries)),
        "faiss_ivf_recall_1m": recall_of(truth, rows),
    }


def small_cost(queries: np.ndarray, vectors: np.ndarray, held_out: np.ndarray) -> Cost:
    """Return what some of the rows cost, with cells made for them."""
    say(f"{len(vectors):,} rows, building cells")
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        path = Path(folder) / "cells.npy"
        built = build(vectors, held_out, path)
        return cost(queries, vectors, mapped(path), built, ROUNDS)


def cost(queries: np.ndarray, vectors: np.ndarray, by_cell: np.ndarray, built: Built, rounds: int) -> Cost:
    """Return what exact search and cells cost; each round takes another batch of the queries."""
    seconds, recalls = [], []
    for number in range(rounds):
        say(f"{len(vectors):,} rows, batch {number + 1} of {rounds}")
        batch = queries[number * BATCH : (number + 1) * BATCH]
        true, slow = timed(lambda batch=batch: exact.search(batch, vectors, K))
        found, fast = timed(lambda batch=batch: search_cells(batch, by_cell, built))
        seconds.append((slow, fast))
        recalls.append(recall_of(true.rows, found.rows))
    slow, fast = 1e3 / BATCH * np.median(seconds, axis=0)
    nlist = len(built.cells.centroids)
    return Cost(len(vectors), float(slow), float(fast), built.seconds, nlist, built.nprobe, float(np.mean(recalls)))


def chosen(costs: list[Cost], dim: int) -> list[dict[str, Any]]:
    """Return what `choose_index` takes for each size and number of queries, and its time over that of the better."""
    found = []
    for one in costs:
        for queries in EXPECTED:
            index = choose_index(one.rows, dim, index="auto", expected_queries=queries).index.name
            ratio = one.total(index, queries) / min(one.total(name, queries) for name in ("exact", "ivf"))
            found.append({"rows": one.rows, "expected_queries": queries, "index": index, "ratio": ratio})
    return found


def about_cells(built: Built, queries: np.ndarray, exact_seconds: float) -> dict[str, Any]:
    """Return what the figures of the million rows rest on."""
    faiss = load_faiss()
    return {
        "rows": ROWS,
        "queries": len(queries),
        "batch": BATCH,
        "k": K,
        "target_recall": RECALL,
        "nlist": len(built.cells.centroids),
        "nprobe": built.nprobe,
        "exact_1m_ms_per_query": rounded({"": 1e3 * exact_seconds / len(queries)})[""],
        "faiss": f"{faiss.__version__}, {faiss.SIMDConfig.get_level_name()}",
    }


def tables(costs: list[Cost], choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the costs and choices, rounded, for the results."""
    return {
        "costs": [rounded(asdict(one)) | {"crossover": one.crossover()} for one in costs],
        "choices": [rounded(choice) for choice in choices],
    }


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Return values, those with a fraction with four digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in values.items()}


if __name__ == "__main__":
    main()
