"""`imagebind embed --engine ray` against one process and against `--shard`, and where a cluster stops scaling.

    python -m benchmarks.cluster [--turns 3] [--small 1000] [--large 9000] [--work DIR]

Rates are of additional sentences: (large - small) / (seconds of large - seconds of small), so that starting does not count; the ways take turns on
the same cores, one of each for each core. The driver's costs are measured on the real loop, with actors that take a virtual time in place of
Ray's, and on Ray's own calls; from both follow the rates of up to 1,000 actors. Listing, dividing, opening and merging are measured in rows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.machine import machine
from imagebind_cli.corpus.blocks import BLOCK_ITEMS, Blocks, ShareBlock
from imagebind_cli.corpus.ray_actors import BlockAnswer, _Pool
from imagebind_cli.corpus.resume import distinct
from imagebind_cli.events import Listener
from imagebind_cli.sources import Inputs, Item
from imagebind_cli.store import Row, Store, open_store
from imagebind_cli.store.maintenance import merge

PROGRAM = (sys.executable, "-m", "imagebind_cli", "embed", "text", "--model", "tiny", "--device", "cpu", "--workers", "1")
RATES = (50, 500, 5000)  # rows a second of one actor
ACTORS = (1, 10, 100, 300, 1000)


def seconds(folder: Path, lines: Path, *ways: tuple[str, ...]) -> float:
    """Run some commands at once, each on the same sentences, and return how long all take."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    started = time.monotonic()
    running = []
    for way in ways:
        with open(lines, "rb") as stdin:
            running.append(subprocess.Popen((*PROGRAM, "-o", "out.store", *way), cwd=folder, stdin=stdin, stderr=subprocess.DEVNULL))
    if any(process.wait() for process in running):
        raise RuntimeError(f"a run of {ways} failed")
    return time.monotonic() - started


def rates(work: Path, turns: int, small: int, large: int) -> dict[str, Any]:
    """Measure the rates of the three ways in turns."""
    import ray

    cores = os.cpu_count() or 1
    context = ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ways: dict[str, list[tuple[str, ...]]] = {
        "one process": [()],
        "--shard": [("--shard", f"{number + 1}/{cores}") for number in range(cores)],
        "--engine ray": [("--engine", "ray", "--ray-address", context.address_info["address"])],
    }
    for count in (small, large):
        (work / str(count)).write_text("".join(f"sentence {number}\n" for number in range(count)))
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, commands in ways.items():
            first, second = (seconds(work / "out", work / str(count), *commands) for count in (small, large))
            measured[name].append((large - small) / (second - first))
            print(name, round(measured[name][-1]), "rows a second", flush=True)
    ray.shutdown()
    return {
        "cores": cores,
        "rows a second": {name: [round(rate) for rate in found] for name, found in measured.items()},
        "ray to shard": round(statistics.median(measured["--engine ray"]) / statistics.median(measured["--shard"]), 3),
    }


def ray_call() -> dict[str, float]:
    """Measure Ray's share of the driver's time for a block: a call with its items, the wait for it, and its answer."""
    import ray

    @ray.remote
    class Nothing:
        def run(self, block: ShareBlock) -> BlockAnswer:
            return BlockAnswer(tuple(("succeeded", item.id) for item in block.items))

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    actor, block = Nothing.remote(), ShareBlock(0, tuple(Item(f"photos/{n:08}.jpg", f"photos/{n:08}.jpg") for n in range(BLOCK_ITEMS)))  # type: ignore[attr-defined]
    ray.get(actor.run.remote(block))
    began = time.process_time()
    for _ in range(200):
        answer = actor.run.remote(block)
        ray.wait([answer], num_returns=1)
        ray.get(answer)
    took = (time.process_time() - began) / 200
    ray.shutdown()
    return {"ms a block": round(1e3 * took, 2), "bytes a block": len(pickle.dumps(block))}


EMPTY, FULL = BlockAnswer(), BlockAnswer(tuple(("succeeded", "") for _ in range(BLOCK_ITEMS)))


class Virtual:
    """Ray with actors that take a virtual time for a block. The driver's own time is real; the time of its calls to Ray is added."""

    exceptions = SimpleNamespace(RayTaskError=RuntimeError, RayError=KeyError)

    def __init__(self, actors: int, rate: float, call: float) -> None:
        self._free, self._rate, self._call = actors, rate, call
        self.now, self._due, self._at = 0.0, dict[Any, tuple[float, Any]](), time.process_time()

    def remote(self, kind: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._actor))

    def _actor(self, *_: object) -> Any:
        self._free -= 1  # below 0 it waits for ever, as one that finds no place
        wait = 0.0 if self._free >= 0 else math.inf
        run = SimpleNamespace(
            remote=lambda block, _: self._task(len(block.items) / self._rate, EMPTY if len(block.items) < BLOCK_ITEMS else FULL)
        )
        return SimpleNamespace(start=SimpleNamespace(remote=lambda: self._task(wait, BlockAnswer(node="here"))), run=run)

    def _task(self, duration: float, answer: Any) -> object:
        self.now += self._call if 0 < duration < math.inf else 0.0
        task = object()
        self._due[task] = (self._clock() + duration, answer)
        return task

    def _clock(self) -> float:
        at = time.process_time()
        self.now, self._at = self.now + at - self._at, at
        return self.now

    def available_resources(self) -> dict[str, float]:
        return {"CPU": max(0, self._free)}

    def wait(self, tasks: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        now = self._clock()
        if timeout:
            self.now = max(now, min(self._due[task][0] for task in tasks))
        return [task for task in tasks if self._due[task][0] <= self.now], []

    def get(self, task: Any) -> Any:
        return self._due.pop(task)[1]

    def kill(self, actor: Any) -> None:
        pass


def simulated(actors: int, rate: float, call: float) -> float:
    """Return the rows a second of actors that each do `rate`, with the driver's real loop; the listing is ahead."""
    shares, blocks_each = 2 * max(actors, 32), 4
    rows = actors * blocks_each * BLOCK_ITEMS
    ray, blocks = Virtual(actors, rate, call), Blocks((), shares)
    for number in range(actors * blocks_each):
        blocks._waiting[number % shares] += [Item("", "")] * BLOCK_ITEMS
    blocks._listed = True
    pool = _Pool(ray, None, blocks, shares, {"num_cpus": 1, "num_gpus": 0}, Listener())  # type: ignore[arg-type]
    ray.now, ray._at = 0.0, time.process_time()
    pool.run()
    return rows / ray.now


def per_million(rows: int, action: Callable[[], object]) -> float:
    """Return the seconds that an action on some rows takes for a million of them."""
    started = time.monotonic()
    action()
    return round((time.monotonic() - started) * 1e6 / rows, 2)


def costs(work: Path, files: int = 50_000, rows: int = 40_000, dim: int = 1024) -> dict[str, float]:
    """Measure the unit costs of what one process does for a whole cluster, in seconds for a million."""
    folder = work / "files"
    for number in range(files):
        if number % 1000 == 0:
            (folder / f"{number // 1000:03}").mkdir(parents=True)
        (folder / f"{number // 1000:03}" / f"{number}.jpg").touch()
    manifest = work / "rows.jsonl"
    manifest.write_text("".join(json.dumps({"id": str(number), "image": f"photos/{number}.jpg"}) + "\n" for number in range(files)))

    def close(store: Store) -> None:
        store.format.release()

    made: dict[str, Any] = {"modality": "text", "model": "tiny", "dim": dim, "weights": "", "options": {}}  # as a store needs it
    vectors = np.random.default_rng(0).standard_normal((rows // 4, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for part in range(4):
        with Store(work / f"s-{part}.store", made) as store:
            for number, vector in enumerate(vectors):
                store.append([Row(f"{part}-{number}", vector)])
    readers = [open_store(work / f"s-{part}.store") for part in range(4)]
    joined = open_store(work / "s-*.store")
    query, named = vectors[0], (Item(str(number), "") for number in range(files))
    return {
        "listing a folder": per_million(files, lambda: list(Inputs((str(folder),)).items(("image",)))),
        "listing a manifest": per_million(files, lambda: list(Inputs(manifest=manifest).items(("image",)))),
        "dividing a listing into blocks": per_million(files, Blocks(distinct(named, Listener()), 2000)._list),
        "opening an output for a block": per_million(rows // 4, lambda: close(Store(work / "s-0.store", made))),
        "merging": per_million(rows, lambda: merge(readers, work / "merged.store")),
        "searching, one query": per_million(rows, lambda: [block @ query for block in joined.blocks()]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--large", type=int, default=9000)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-cluster-rates")
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"], os.environ["RAY_USAGE_STATS_ENABLED"] = "1", "0"
    chosen.work.mkdir(parents=True)
    try:
        result: dict[str, Any] = {"machine": machine(), "costs, s for a million": costs(chosen.work), "Ray": ray_call()}
        print(result, flush=True)
        call = result["Ray"]["ms a block"] / 1e3
        result["simulated, rows a second"] = {
            f"{rate} rows a second each": {str(actors): round(simulated(actors, rate, call)) for actors in ACTORS} for rate in RATES
        }
        print(result["simulated, rows a second"], flush=True)
        if chosen.turns:
            result["rates"] = rates(chosen.work, chosen.turns, chosen.small, chosen.large)
    finally:
        shutil.rmtree(chosen.work)
    print(json.dumps(result, indent=1))
    (Path(__file__).parent / "cluster.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
