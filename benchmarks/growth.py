"""Growth: the processor time and memory of each command against its rows, from a thousand to a million.

    python -m benchmarks.growth [--largest 1000000] [--commands embed,merge] [--limit 240] [--work DIR]

Each command is a process of its own. Its seconds are those of all processors that it and the processes it starts take, user and system; its memory is
the largest resident set of any of them, mapped pages of its files among it. A size is left out where the one before it says that it would take longer
than `--limit`. The exponent is that of the last two sizes, after the seconds of a run on ten rows are subtracted: 1 is as the input grows.
Those of one input run one after the other; commands that are not named keep their figures of the last run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import machine
from imagebind_cli.store import Row, Stamp, Store

RESULTS = Path(__file__).with_suffix(".json")
PROGRAM = (sys.executable, "-m", "imagebind_cli")
SIZES = tuple(10**power for power in range(3, 7))
START = 10  # rows of the run that tells what starting takes
DIM, TOPICS, QUERIES, PARTS, BLOCK = 256, 1000, 256, 4, 10_000
PROVENANCE = {"model": "tiny", "weights": "", "modality": "image", "pool": "mean", "options": {}, "dim": DIM, "array": "float16"}


def vectors(rows: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield unit vectors in blocks: each around one of a thousand directions, with a cosine of 0.7 to it."""
    topics = np.random.default_rng(TOPICS).standard_normal((TOPICS, DIM), np.float32)
    for start in range(0, rows, BLOCK):
        random = np.random.default_rng((seed, start))
        count = min(BLOCK, rows - start)
        block = topics[random.integers(0, TOPICS, count)] + random.standard_normal((count, DIM), np.float32)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def write_store(path: Path, rows: int, seed: int = 0) -> None:
    """Write a store of vectors by rule."""
    number = 0
    with Store(path, PROVENANCE) as store:
        for block in vectors(rows, seed):
            for vector in block:
                store.append([Row(f"photos/{seed}/{number // 1000:05}/{number:08}.jpg", vector, stamp=Stamp(number, number))])
                number += 1


def write_sentences(folder: Path, rows: int) -> None:
    """Write a manifest of sentences."""
    with open(folder / "texts.jsonl", "w") as file:
        file.writelines(json.dumps({"id": f"{row}", "text": f"a picture of {row} birds"}) + "\n" for row in range(rows))


def write_recordings(folder: Path, rows: int) -> None:
    """Write recordings of one second, a CSV each."""
    header = "t,acc_x (m/s^2),acc_y (m/s^2),acc_z (m/s^2),gyro_x (rad/s),gyro_y (rad/s),gyro_z (rad/s)"
    for row in range(rows):
        path = folder / "imu" / f"{row // 1000:04}" / f"{row:07}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        readings = np.random.default_rng(row).standard_normal((50, 6))
        np.savetxt(path, np.column_stack([np.arange(50) / 50, readings]), "%.3f", ",", header=header, comments="")


def write_one(folder: Path, rows: int) -> None:
    """Write one store, and queries."""
    write_store(folder / "photos.store", rows)
    queries = next(vectors(QUERIES, 1))
    np.save(folder / "one.npy", queries[:1])
    np.save(folder / "many.npy", queries)


def write_parts(folder: Path, rows: int) -> None:
    """Write the same number of rows in several stores."""
    for part in range(PARTS):
        write_store(folder / f"part-{part}.store", rows // PARTS + (part < rows % PARTS), part)


EMBED = ("embed", "text", "--manifest", "texts.jsonl", "-o", "texts.store", "--model", "tiny", "--device", "cpu")
RETRIEVE = ("retrieve", "photos.store")
INSPECT, MERGE = (
    ("store", "inspect", "photos.store"),
    ("store", "merge", *(f"part-{part}.store" for part in range(PARTS)), "-o", "all.store"),
)
COMMANDS: list[tuple[Callable[[Path, int], None], dict[str, tuple[str, ...]]]] = [
    (write_sentences, {"embed text, tiny": EMBED, "embed text, all done": EMBED}),
    (write_recordings, {"preprocess imu": ("preprocess", "imu", "imu", "-o", "imu-%06d.tar", "--model", "tiny")}),
    (write_parts, {"store merge": MERGE, "store merge, all done": MERGE}),
    (write_one, {"store inspect": INSPECT}),
    (
        write_one,
        {
            "retrieve, 1 query": (*RETRIEVE, "--vector", "one.npy"),
            f"retrieve, {QUERIES} queries": (*RETRIEVE, "--queries", "many.npy"),
            "store map": ("store", "map", "photos.store", "-o", "map.html"),
            "store export .npy": ("store", "export", "photos.store", "-o", "photos.npy"),
            "store check": ("store", "check", "photos.store"),
        },
    ),
]
"""The writer of an input, and the commands that run on it one after the other."""


class Cost(NamedTuple):
    """Processor seconds, and the largest resident set in MiB."""

    seconds: float
    memory: float


def measure(folder: Path, arguments: tuple[str, ...]) -> Cost:
    """Run a command in a folder.

    Raises:
        RuntimeError: it failed.
    """
    with open(folder / "stderr", "wb") as stderr:
        process = subprocess.Popen((*PROGRAM, *arguments), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}: {(folder / 'stderr').read_text()[-2000:]}")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return Cost(round(usage.ru_utime + usage.ru_stime, 2), round(usage.ru_maxrss / unit, 1))


@dataclass(frozen=True)
class Growth:
    """The costs of a command by its rows, the smallest number first, which is what starting takes."""

    costs: dict[int, Cost]

    def beyond_start(self, rows: int) -> float:
        """Return the seconds of a size less those of starting; at least 10 ms, below which they are noise."""
        return max(0.01, self.costs[rows].seconds - self.costs[START].seconds)

    @property
    def exponent(self) -> float:
        """The power of the rows by which the seconds grow between the last two sizes; 1 where there is only one."""
        *_, before, last = (START, *self.costs)
        return 1.0 if before == START else math.log(self.beyond_start(last) / self.beyond_start(before), last / before)

    def expected(self, rows: int) -> float:
        """Return the seconds that a larger size is expected to take; 0 where none was measured."""
        last = max(self.costs, default=0)
        if not last:
            return 0.0
        return self.costs[START].seconds + (0 if last == START else self.beyond_start(last) * (rows / last) ** max(1.0, self.exponent))

    def as_json(self) -> dict[str, Any]:
        """Return the figures."""
        return {"exponent": round(self.exponent, 2), **{f"{rows}": cost._asdict() for rows, cost in self.costs.items()}}


def grow(
    work: Path, prepare: Callable[[Path, int], None], commands: dict[str, tuple[str, ...]], largest: int, limit: float
) -> Iterator[dict[str, Growth]]:
    """Measure commands at each size up to the largest that takes none of them longer than the limit; yield their growths after each size."""
    growths = {name: Growth({}) for name in commands}
    for rows in (START, *(size for size in SIZES if size <= largest)):
        slowest, expected = max(((name, growth.expected(rows)) for name, growth in growths.items()), key=lambda each: each[1])
        if expected > limit:
            print(f"{slowest}: {rows:,} rows would take about {expected:,.0f} s", flush=True)
            break
        folder = work / f"{rows}"
        folder.mkdir()
        prepare(folder, rows)
        for name, arguments in commands.items():
            growths[name].costs[rows] = cost = measure(folder, arguments)
            print(f"{name}: {rows:,} rows: {cost.seconds} s, {cost.memory:,} MiB", flush=True)
        shutil.rmtree(folder)
        yield growths


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the figures as a table: seconds and MiB at each size."""
    lines = [f"| | start | {' | '.join(f'{size:,}' for size in SIZES)} | exponent |", "|---" * (len(SIZES) + 3) + "|"]
    for name, figures in results.items():
        cells = [figures.get(str(rows)) for rows in (START, *SIZES)]
        shown = (f"{cell['seconds']:.1f} s, {cell['memory']:,.0f} MiB" if cell else "" for cell in cells)
        lines.append(f"| `{name}` | {' | '.join(shown)} | {figures['exponent']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    names = [name for _, commands in COMMANDS for name in commands]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="rows")
    parser.add_argument("--commands", default="", help=f"words in some of: {'; '.join(names)}")
    parser.add_argument("--limit", type=float, default=240, help="processor seconds that one run may take")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-growth")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True)
    results = json.loads(RESULTS.read_text())["commands"] if RESULTS.exists() else {}
    try:
        for prepare, commands in COMMANDS:
            if any(word in name for word in chosen.commands.split(",") for name in commands):
                for growths in grow(chosen.work, prepare, commands, chosen.largest, chosen.limit):
                    results |= {name: growth.as_json() for name, growth in growths.items()}
                    results = {name: results[name] for name in names if name in results}
                    RESULTS.write_text(json.dumps({"machine": machine("numpy", "torch"), "commands": results}, indent=1) + "\n")
    finally:
        shutil.rmtree(chosen.work)
    print(table(results))


if __name__ == "__main__":
    main()
