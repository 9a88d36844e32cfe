"""Exact search over a store of a million rows beside FAISS's flat index, the speed of memory, and the peak of the matrix units.

    python -m benchmarks.search [--rows 1000000] [--rounds 7] [--work DIR]

One process opens a store of rows in random directions, float32, 1,024 long, and asks it as `imagebind retrieve` does: through
`retrieval.search`. Every figure is taken in turn with the others, round after round: reading the store with one thread a core, large
float32 matrix products, one query and 256 queries by ours and by `faiss.IndexFlatIP` on the same cores. The answers are checked against
float64 numpy. Memory is measured in processes of their own, one of them with a limit of half the store on what it holds itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.store import append
from imagebind_cli.retrieval.search import Query, search
from imagebind_cli.store import StoreReader, open_store

DIM, MANY, K = 1024, 256, 10
PRODUCTS = 4
"""Products of 4096 x 4096: as much work as 256 queries of a million rows, so that a busy machine slows both alike."""

ASK = """
import resource, sys, time
sys.path[:0] = [sys.argv[1]]
from benchmarks.search import MANY, open_store, queries_of, search
import numpy
words = open("/proc/self/status").read().split()
limit = int(sys.argv[4])
if limit:
    limit += int(words[words.index("VmData:") + 1]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
store = open_store(sys.argv[2])
search([store], queries_of(int(sys.argv[3])), 10)
status = open("/proc/self/status").read().split()
print(int(status[status.index("VmHWM:") + 1]) << 10, int(status[status.index("RssAnon:") + 1]) << 10)
"""


def random_rows(count: int, seed: int) -> np.ndarray:
    """Unit vectors (count, DIM) float32."""
    rows = np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def queries_of(count: int) -> list[Query]:
    """So many queries."""
    return [Query(str(number), row) for number, row in enumerate(random_rows(count, seed=10**6).astype(np.float64))]


def read_all(store: StoreReader, threads: ThreadPoolExecutor) -> None:
    """Read every byte once, on all cores."""
    pieces = (block.reshape(-1).view(np.uint64) for block in store.blocks())
    list(threads.map(np.bitwise_or.reduce, pieces))


def seconds(action: Callable[[], Any]) -> float:
    """How long it takes. Threads of the one before are given the time to fall asleep."""
    time.sleep(0.3)
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def true_top(store: StoreReader, queries: np.ndarray) -> np.ndarray:
    """The top K by float64 numpy, among equal scores the first row: (queries, K)."""
    scores = np.concatenate([queries @ block.astype(np.float64).T for block in store.blocks()], axis=1)
    return np.argsort(-scores, axis=1, kind="stable")[:, :K]


def memory(path: Path, count: int, limit: int = 0) -> tuple[float, float]:
    """Peak resident memory of a process that asks so many queries, the mapped store included, and what it holds itself, in GB."""
    root = str(Path(__file__).parent.parent)
    run = subprocess.run([sys.executable, "-c", ASK, root, str(path), str(count), str(limit)], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr)
    peak, own = (int(number) / 1e9 for number in run.stdout.split())
    return peak, own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ending", default=".h5", help="format of the store")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-search", help="4 KB a row are needed")
    arguments = parser.parse_args()
    import faiss

    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / f"rows-{arguments.rows}{arguments.ending}"
    if not path.exists():
        append(path, arguments.rows, DIM)
    store = open_store(path)
    size = 4 * DIM * len(store)
    cores = len(os.sched_getaffinity(0))
    faiss.omp_set_num_threads(cores)
    flat = faiss.IndexFlatIP(DIM)
    for block in store.blocks():
        flat.add(np.ascontiguousarray(block))
    many = queries_of(MANY)
    rows = np.stack([query.vector for query in many]).astype(np.float32)
    square = random_rows(4096, 1)[:, :DIM].repeat(4, axis=1)  # (4096, 4096)

    answers = search([store], many[:32], K)
    ours = np.array([[hit.row for hit in hits] for hits in answers])
    same = bool((ours == true_top(store, np.stack([query.vector for query in many[:32]]))).all())

    with ThreadPoolExecutor(cores) as threads:
        actions: dict[str, Callable[[], Any]] = {
            "read": lambda: read_all(store, threads),
            "1 query, ours": lambda: search([store], many[:1], K),
            "1 query, FAISS": lambda: flat.search(rows[:1], K),
            "matrix products": lambda: [square @ square for _ in range(PRODUCTS)],
            "256 queries, ours": lambda: search([store], many, K),
            "256 queries, FAISS": lambda: flat.search(rows, K),
        }
        taken: dict[str, list[float]] = {name: [] for name in actions}
        for round in range(arguments.rounds + 1):
            for name, action in actions.items():
                spent = seconds(action)
                if round:  # the first warms caches, mappings and threads
                    taken[name].append(spent)

    best = {name: min(times) for name, times in taken.items()}
    median = {name: statistics.median(times) for name, times in taken.items()}
    share = 2 * len(store) * DIM * MANY / (2 * 4096**3 * PRODUCTS)  # work of the search over that of the products
    one_peak, one_own = memory(path, 1)
    many_peak, many_own = memory(path, MANY)
    _, limited_own = memory(path, MANY, limit=size // 2)
    result = {
        "machine": machine("numpy", "faiss-cpu"),
        "rows": len(store),
        "top 10 as float64 numpy": same,
        "read GB/s": size / best["read"] / 1e9,
        "matrix peak GFLOP/s": 2 * 4096**3 * PRODUCTS / best["matrix products"] / 1e9,
        "1 query, FAISS over ours, medians": median["1 query, FAISS"] / median["1 query, ours"],
        "1 query, FAISS over ours, best": best["1 query, FAISS"] / best["1 query, ours"],
        "1 query, of the reading speed, medians": median["read"] / median["1 query, ours"],
        "1 query, of the reading speed, best": best["read"] / best["1 query, ours"],
        "256 queries, FAISS over ours, medians": median["256 queries, FAISS"] / median["256 queries, ours"],
        "256 queries, FAISS over ours, best": best["256 queries, FAISS"] / best["256 queries, ours"],
        "256 queries, of the matrix peak, medians": share * median["matrix products"] / median["256 queries, ours"],
        "256 queries, of the matrix peak, best": share * best["matrix products"] / best["256 queries, ours"],
        "peak memory over the store, GB, 1 query": one_peak - size / 1e9,
        "peak memory over the store, GB, 256 queries": many_peak - size / 1e9,
        "own memory, GB, 1 query": one_own,
        "own memory, GB, 256 queries": many_own,
        "answers with half the store's size as limit": limited_own < size / 2e9,
        "seconds": taken,
    }
    print(f"{'':<28}{'median s':>10}{'from':>8}{'to':>8}")
    for name, times in taken.items():
        print(f"{name:<28}{median[name]:>10.3f}{min(times):>8.3f}{max(times):>8.3f}")
    for name in list(result)[2:-1]:
        value = result[name]
        print(f"{name:<48}{value if isinstance(value, bool) else format(value, '.3g')}")
    (Path(__file__).parent / "search.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
