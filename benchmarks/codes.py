"""Exact search by int8 codes beside exact search of the rows, FAISS's flat index and its 8-bit one, in one process and in turns.

    python -m benchmarks.codes [--rows 1000000] [--dim 1024] [--turns 5] [--check 10000] [--work DIR]

Rows are of a thousand clusters around a common direction, with coordinates of very different spreads, as the vectors of trained encoders are.
Times are of all cores, in seconds and in processor time, which other work on the machine disturbs less. One query is also timed after the kernel
was told to drop the pages of the store and its codes, as for a store that memory does not hold. The answers to `--check` further queries
are compared with those of an exact search, rows and scores.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.machine import machine
from benchmarks.rounded import drop
from imagebind_cli.retrieval.codes import CodeSearch
from imagebind_cli.similarity import GROUP, top_k
from imagebind_cli.store import Row, Store, open_store

K, MANY, BLOCK = 10, 256, 50_000


def clustered(count: int, dim: int, seed: int) -> np.ndarray:
    """Unit vectors (count, dim) float32."""
    random, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    centres = fixed.standard_normal((1000, dim), dtype=np.float32)
    common, spread = fixed.standard_normal(dim), fixed.lognormal(0, 0.7, dim)
    rows = centres[random.integers(0, 1000, count)] + 0.7 * random.standard_normal((count, dim), dtype=np.float32) + 3 * common
    return np.asarray(rows * spread / np.linalg.norm(rows * spread, axis=1, keepdims=True), np.float32)


def cold_seconds(work: Path, turns: int, ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each way, the pages of all files in a folder dropped before each run."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            drop(work)
            started = time.perf_counter()
            way()
            spent[name].append(time.perf_counter() - started)
    return {name: median(times) for name, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--check", type=int, default=10_000, help="queries whose answers are compared")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-codes")
    arguments = parser.parse_args()
    import faiss

    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / f"rows-{arguments.rows}-{arguments.dim}.npy"
    if not path.exists():
        made = {"modality": "image", "model": "clusters", "weights": "", "dim": arguments.dim, "array": "float32", "dtype": "float32"}
        with Store(path, made) as store:
            for start in range(0, arguments.rows, BLOCK):
                rows = clustered(min(BLOCK, arguments.rows - start), arguments.dim, start)
                for number, row in enumerate(rows, start):
                    store.append([Row(f"{number:09}", row)])
    reader = open_store(path)
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    faiss.omp_set_num_threads(cores)
    flat, eight = (
        faiss.IndexFlatIP(arguments.dim),
        faiss.IndexScalarQuantizer(arguments.dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT),
    )
    eight.train(clustered(BLOCK, arguments.dim, 0))
    for block in reader.blocks():
        flat.add(np.ascontiguousarray(block))
        eight.add(np.ascontiguousarray(block))

    def names(rows: np.ndarray) -> list[str]:
        return [reader.id(row) for row in rows.tolist()]

    queries = clustered(max(arguments.check, MANY), arguments.dim, 10**9).astype(np.float64)
    search = CodeSearch(print)
    began = time.perf_counter()
    search(reader, queries[:1], K)
    result: dict[str, object] = {"machine": machine("numpy", "torch", "faiss-cpu"), "made in s": time.perf_counter() - began}
    ways = {
        "codes": lambda some: search(reader, some, K),
        "rows": lambda some: top_k(reader.blocks(), some, K, names),
        "FAISS flat": lambda some: flat.search(some.astype(np.float32), K),
        "FAISS SQ8": lambda some: eight.search(some.astype(np.float32), K),
    }
    for count in (1, 8, MANY):
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for turn in range(arguments.turns + 1):
            for name, way in ways.items():
                started = time.perf_counter(), time.process_time()
                way(queries[:count])
                if turn:  # the first warms caches and threads
                    spent[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
        seconds = {name: [median(times) for times in zip(*turns, strict=True)] for name, turns in spent.items()}
        result[f"{count} queries: seconds, processor seconds"] = seconds
        for name, (wall, processor) in seconds.items():
            faster = seconds["FAISS flat"][0] / wall, seconds["FAISS flat"][1] / processor
            print(
                f"{count:>4} {name:<12}{wall:>9.3f} s{processor:>9.3f} s of processors; FAISS flat over it {faster[0]:.2f}, {faster[1]:.2f}",
                flush=True,
            )
    cold = cold_seconds(arguments.work, arguments.turns, {name: partial(ways[name], queries[:1]) for name in ("codes", "rows")})
    result["1 query, nothing in the page cache: seconds"] = cold
    print(f"1 query, nothing in the page cache: codes {cold['codes']:.2f} s, rows {cold['rows']:.2f} s", flush=True)
    differing = 0
    for start in range(0, arguments.check, GROUP):
        some = queries[start : min(start + GROUP, arguments.check)]
        same = [(ours == rows).all(axis=1) for ours, rows in zip(search(reader, some, K), ways["rows"](some), strict=True)]
        differing += int((~(same[0] & same[1])).sum())
    result["answers that differ"] = [differing, arguments.check]
    print(f"answers that differ: {differing} of {arguments.check}")
    (Path(__file__).parent / "codes.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
