"""Embed on a Ray cluster of two nodes in this machine while actors, nodes and the command itself are killed with SIGKILL.

    python -m reliability.cluster [--kills 20] [--items 20000] [--seed 0] [--targets actor,driver,node] [--work DIR]

Each kill comes after a random number of new rows. A killed command is run again, a killed node is replaced. At the end every id must be there
once, `imagebind store check` must find nothing, and the vectors must be those of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from ray.cluster_utils import Cluster

from imagebind_cli.store import open_store
from imagebind_cli.store.folder.files import INDEX
from imagebind_cli.store.growing import HEADER

TARGETS = ("actor", "driver", "node")
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}  # 75 MB is the least that Ray takes
LIMIT = 600.0  # seconds without a new row
PROGRAM = (sys.executable, "-m", "imagebind_cli")


def embed(folder: Path, output: str, *flags: str) -> subprocess.Popen[bytes]:
    """Start the command under test."""
    command = (*PROGRAM, "embed", "text", "--manifest", "texts.jsonl", "-o", output, "--model", "tiny", "--device", "cpu", *flags)
    with open(folder / "said", "ab") as said:
        return subprocess.Popen(command, cwd=folder, stderr=said)


def rows(folder: Path) -> int:
    """Count the rows that are written, by the sizes of the stores' indexes."""
    total = 0
    for path in folder.glob("out-*.store/index-*.npy"):
        with suppress(OSError):
            total += max(0, path.stat().st_size - HEADER) // INDEX.itemsize
    return total


def actors(cluster: Cluster) -> list[int]:
    """Return the process ids of the actors: children of the nodes' daemons, by the name that Ray gives them."""
    parents = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError, ValueError):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            title = (status.parent / "cmdline").read_bytes()
            if int(fields["PPid"]) in parents and title.startswith(b"ray::BlockActor"):
                found.append(int(status.parent.name))
    return found


class Campaign:
    """A cluster, the command that runs on it with some flags, and what was killed."""

    def __init__(self, folder: Path, items: int, draw: random.Random, cluster: Cluster, *flags: str) -> None:
        self.folder, self.items, self._draw, self._cluster, self.killed = folder, items, draw, cluster, Counter[str]()
        lines = (json.dumps({"id": f"{number}", "text": f"sentence {number}"}) for number in range(items))
        (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
        self._flags = ("--engine", "ray", "--ray-address", cluster.address, "--errors", "errors.jsonl", *flags)
        self._driver = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return embed(self.folder, "out.store", *self._flags)

    def run(self, targets: list[str]) -> None:
        """Kill one target after another, and let the command end."""
        for target in targets:
            if not self._wait(rows(self.folder) + self._draw.randrange(1, max(2, self.items // (len(targets) + 5)))):
                break
            self._kill(target)
        self._wait(sys.maxsize)
        if self._driver.returncode:
            raise RuntimeError(f"exit code {self._driver.returncode}: {(self.folder / 'said').read_text()[-2000:]}")

    def _wait(self, count: int) -> bool:
        """Wait for a number of rows; False where the command ends before."""
        moved, last = time.monotonic(), rows(self.folder)
        while last < count:
            if self._driver.poll() is not None:
                return False
            time.sleep(0.02)
            now = rows(self.folder)
            if now != last:
                moved, last = time.monotonic(), now
            if time.monotonic() - moved > LIMIT:
                raise RuntimeError(f"no new row in {LIMIT:.0f} s: {(self.folder / 'said').read_text()[-2000:]}")
        return True

    def _kill(self, target: str) -> None:
        if target == "driver":
            self._driver.kill()
            self._driver.wait()
            self._driver = self._start()
        elif target == "node":
            self._cluster.remove_node(next(iter(self._cluster.worker_nodes)), allow_graceful=False)
            self._cluster.add_node(**NODE)
        else:
            alive = actors(self._cluster)
            if not alive:
                return
            with suppress(ProcessLookupError):
                os.kill(self._draw.choice(alive), signal.SIGKILL)
        self.killed[target] += 1
        print(f"{rows(self.folder):>7,} rows: {target} killed", flush=True)

    def close(self) -> None:
        """End the command."""
        self._driver.kill()
        self._driver.wait()


def compare(folder: Path, items: int) -> float:
    """Compare the stores of the cluster with `whole.store`, which one process made, and return the largest difference of their vectors.

    Raises:
        RuntimeError: an id is missing or there twice, a store is damaged, or a vector differs.
    """
    made, whole = open_store(folder / "out-*.store"), open_store(folder / "whole.store")
    count = Counter(made.ids)
    wrong = [id for id in whole.ids if count[id] != 1]
    if wrong or len(count) != items:
        raise RuntimeError(f"{len(wrong)} of {items} ids are not there once, as {wrong[:3]}; {len(count)} ids in all")
    if subprocess.run([*PROGRAM, "store", "check", *map(str, made.paths)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise RuntimeError("store check finds damage")
    vectors = dict(zip(made.ids, made.vectors(), strict=True))
    difference = float(np.abs(np.stack([vectors[id] for id in whole.ids]) - whole.vectors()).max())
    if difference > 1e-6:
        raise RuntimeError(f"vectors differ by {difference:.2g}")
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-cluster")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    draw, kinds = random.Random(chosen.seed), chosen.targets.split(",")
    targets = [kinds[number % len(kinds)] for number in range(chosen.kills)]
    draw.shuffle(targets)
    chosen.work.mkdir(parents=True)
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        campaign = Campaign(chosen.work, chosen.items, draw, cluster)
        try:
            campaign.run(targets)
        finally:
            campaign.close()
        if code := embed(chosen.work, "whole.store").wait():
            raise RuntimeError(f"the run in one process ended with {code}")
        difference = compare(chosen.work, chosen.items)
    finally:
        cluster.shutdown()
        shutil.rmtree(chosen.work)
    killed = ", ".join(f"{count} {target}s" for target, count in sorted(campaign.killed.items()))
    print(f"killed: {killed}; every id of {chosen.items:,} once, largest difference {difference:.2g}")
    if campaign.killed.total() < chosen.kills:
        sys.exit(f"only {campaign.killed.total()} of {chosen.kills} kills came before the end")


if __name__ == "__main__":
    main()
