"""Stores at size: what a row costs to append from the first to the last, to open a store, to find out what is done already, and to read it.

    python -m benchmarks.store [--rows 1000000] [--dim 1024] [--work DIR] [--files]

One store at a time lies on the disk, 4 GB at the default size, and is removed. `--files` adds a folder of as many empty files, and goes
through it as `embed` does that has done them all. `write alone` is the same bytes appended to a plain file with the same waits for the disk.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imagebind_cli.store import Row, Stamp, Store, open_store

MADE = {"model": "m", "weights": "0", "modality": "image", "pool": "mean"}
BATCH = 1000


def identifier(row: int) -> str:
    return f"photos/{row // 1000:06}/{row:09}.jpg"


def append(path: Path, rows: int, dim: int) -> list[float]:
    """Seconds for each tenth of the rows, in random directions, one item at a time as `embed` does. Drawing them is not counted."""
    random = np.random.default_rng(0)
    seconds = np.zeros(10)
    with Store(path, MADE | {"dim": dim}) as store:
        for start in range(0, rows, BATCH):
            vectors = random.standard_normal((min(BATCH, rows - start), dim), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            started = time.perf_counter()
            for row, vector in enumerate(vectors, start):
                store.append([Row(identifier(row), vector, stamp=Stamp(row, row))])
            seconds[10 * start // rows] += time.perf_counter() - started
    return seconds.tolist()


def write_alone(path: Path, rows: int, dim: int) -> float:
    """Seconds to append as many bytes, and to wait for the disk as often."""
    block = bytes(1024 * (4 * dim + 100))
    started = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for _ in range(rows // 1024):
            file.write(block)
            os.fsync(file.fileno())
    return time.perf_counter() - started


OPEN = """
import sys, time
import h5py, numpy
from imagebind_cli.store import open_store
import imagebind_cli.store.hdf5, imagebind_cli.store.folder
started = time.perf_counter()
reader = open_store(sys.argv[1])
len(reader), reader.provenance, reader.dim
print(time.perf_counter() - started)
"""


def opened(path: Path) -> float:
    """Seconds to open a store in a new process, beyond its imports: the median of five."""
    times = [float(subprocess.check_output([sys.executable, "-c", OPEN, path])) for _ in range(5)]
    return statistics.median(times)


def resumed(path: Path, rows: int, dim: int) -> tuple[float, float]:
    """Seconds to open a store for going on, and to ask for every input whether it is done."""
    started = time.perf_counter()
    with Store(path, MADE | {"dim": dim}) as store:
        ready = time.perf_counter()
        done = sum(Stamp(row, row) == store.stamp(identifier(row)) for row in range(rows))
        assert done == rows
        return ready - started, time.perf_counter() - ready


def read(path: Path) -> tuple[float, float]:
    """Seconds to add up every vector where it lies, and to have every id."""
    reader = open_store(path)
    started = time.perf_counter()
    ones = np.ones(reader.dim, np.float32)
    for block in reader.blocks():
        block @ ones
    between = time.perf_counter()
    assert len(reader.ids) == len(reader)
    return between - started, time.perf_counter() - between


def through_files(path: Path, folder: Path, rows: int, dim: int) -> float:
    """Seconds that `embed` takes to find that every file of a folder is done, without loading a model."""
    from imagebind_cli.corpus.resume import Resume
    from imagebind_cli.events import Listener
    from imagebind_cli.sources import from_arguments

    with Store(path, MADE | {"dim": dim}) as store:
        vector = np.ones(dim, np.float32) / dim**0.5
        for name in files_of(folder, rows):
            status = os.stat(name)
            store.append([Row(name, vector, stamp=Stamp(status.st_size, status.st_mtime_ns))])
    started = time.perf_counter()
    with Store(path, MADE | {"dim": dim}) as store:
        listener = Listener()
        resume = Resume(listener, "image", store=store)
        assert list(resume.choose(from_arguments([str(folder)], ("image",), io.BytesIO(), skips=resume.skips))) == []
        assert listener.skipped == rows
    return time.perf_counter() - started


def files_of(folder: Path, rows: int) -> Iterator[str]:
    for row in range(rows):
        yield f"{folder}/{row // 1000:06}/{row:09}.jpg"


def measured(path: Path, rows: int, dim: int, alone: float) -> dict[str, object]:
    """Every figure of one store, which is made."""
    tenths = append(path, rows, dim)
    open_seconds, (ready, scan), (vectors, ids) = opened(path), resumed(path, rows, dim), read(path)
    return {
        "append, s": sum(tenths),
        "append, over writing alone": sum(tenths) / alone,
        "last tenth over first tenth": tenths[-1] / tenths[0],
        "open, s": open_seconds,
        "open to go on, s": ready,
        "resume scan, s": scan,
        "read vectors, GB/s": 4e-9 * rows * dim / vectors,
        "read ids, s": ids,
        "tenths, s": [round(seconds, 2) for seconds in tenths],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-store-benchmark")
    parser.add_argument("--files", action="store_true")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True)
    results: dict[str, dict[str, object]] = {}
    try:
        alone = write_alone(chosen.work / "alone", chosen.rows, chosen.dim)
        (chosen.work / "alone").unlink()
        print(f"{chosen.rows:,} rows of {chosen.dim} float32; written alone: {alone:.1f} s")
        for ending in (".h5", ".store"):
            path = chosen.work / f"bench{ending}"
            results[ending] = measured(path, chosen.rows, chosen.dim, alone)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if chosen.files:
            folder = chosen.work / "files"
            for name in files_of(folder, chosen.rows):
                os.makedirs(os.path.dirname(name), exist_ok=True)
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
            path = chosen.work / "files.h5"
            results[".h5"]["resume over files, s"] = through_files(path, folder, chosen.rows, 4)
    finally:
        shutil.rmtree(chosen.work)
    for name in results[".h5"]:
        print(f"{name:<32}", *(f"{ending} {row.get(name, '')!s:<24.24}" for ending, row in results.items()))
    (Path(__file__).parent / "store.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
