"""`store inspect` and `store map` at size: seconds and peak memory, and how many of the planted copies and wrong labels are found.

    python -m benchmarks.insight [--items 1000000] [--dim 256] [--memory 1G] [--work DIR] [--only map|inspect]

The store has 200 clusters. 1 % of its items are copies of others with 2 % of noise, and 1 % have the label of another cluster. Of the memory, `own`
is what the process allocated, and `resident` has the mapped pages of the store besides, which the system takes back where it needs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from imagebind_cli.store import Row, Store

CLUSTERS, BLOCK = 200, 10_000
MADE = {"model": "m", "weights": "0", "modality": "image", "pool": "mean"}


class Planted:
    """The plants among the items: `source[i]` is copied to `target[i]`, and the labels of `wrong` are those of other clusters."""

    def __init__(self, items: int) -> None:
        random = np.random.default_rng(0)
        true = random.integers(0, CLUSTERS, items)
        self.source, self.target, self.wrong = random.permutation(items)[: 3 * (items // 100)].reshape(3, -1)
        true[self.target] = true[self.source]
        self.clusters, self.labels = true, true.copy()
        self.labels[self.wrong] = (true[self.wrong] + random.integers(1, CLUSTERS, len(self.wrong))) % CLUSTERS
        self.original = np.arange(items)
        self.original[self.target] = self.source

    def identifier(self, item: int) -> str:
        return f"class{self.labels[item]:03}/{item:07}.png"

    def write(self, path: Path, dim: int) -> None:
        """Write the store. An item's noise has its number as the seed, so that copies have that of their originals."""
        centres = np.random.default_rng(1).standard_normal((CLUSTERS, dim))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        with Store(path, MADE | {"dim": dim}) as store:
            for start in range(0, len(self.labels), BLOCK):
                items = np.arange(start, min(start + BLOCK, len(self.labels)))
                noise = np.stack([np.random.Generator(np.random.SFC64(int(seed))).standard_normal(dim) for seed in self.original[items]])
                vectors = centres[self.clusters[items]] + 1.2 / dim**0.5 * noise
                copied = items != self.original[items]
                vectors[copied] += 0.02 / dim**0.5 * np.random.default_rng([2, start]).standard_normal((copied.sum(), dim))
                vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
                for item, vector in zip(items.tolist(), vectors, strict=True):
                    store.append([Row(self.identifier(item), vector)])


def measure(*command: str, output: Path) -> dict[str, float]:
    """Run a command, with its stdout in a file; return its seconds, processor seconds, and the largest memory in GB."""
    started, own, resident, used = time.perf_counter(), 0, 0, 0.0
    with open(output, "wb") as file:
        child = subprocess.Popen([sys.executable, "-m", "imagebind_cli", *command], stdout=file)
    while child.poll() is None:
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines())
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            own, resident = max(own, int(status["RssAnon"].split()[0])), max(resident, int(status["VmHWM"].split()[0]))
            used = (int(fields[11]) + int(fields[12])) / 100
        except (KeyError, OSError):
            pass
        time.sleep(0.1)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {child.returncode}")
    return {
        "seconds": round(time.perf_counter() - started, 1), "processor": round(used, 1),
        "own GB": round(own / 1e6, 2), "resident GB": round(resident / 1e6, 2)
    }  # fmt: skip


def reported(path: Path, planted: Planted) -> dict[str, float]:
    """Return the shares of the findings that are right and of what was planted that was found."""
    groups: dict[str, set[int]] = {"copies": set(), "labels": set()}
    for line in path.read_text().splitlines():
        finding = json.loads(line)
        if finding["finding"] in groups:
            groups[finding["finding"]] |= {int(id[-11:-4]) for id in finding["ids"]}
    truth = {"copies": {*planted.source.tolist(), *planted.target.tolist()}, "labels": set(planted.wrong.tolist())}
    figures = {}
    for kind, found in groups.items():
        figures[f"{kind} right"] = round(len(found & truth[kind]) / max(1, len(found)), 4)
        figures[f"{kind} found"] = round(len(found & truth[kind]) / len(truth[kind]), 4)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", choices=["map", "inspect"])
    given = parser.parse_args()
    print(machine("numpy"), flush=True)
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        path, planted = Path(folder) / "planted.h5", Planted(given.items)
        started = time.perf_counter()
        planted.write(path, given.dim)
        print(f"store of {given.items:,} items written in {time.perf_counter() - started:.0f} s", flush=True)
        store, memory = str(path), ("--memory", given.memory)
        found = Path(folder) / "found.jsonl"
        for colour in ("cluster", "label:folder") if given.only != "inspect" else ():
            pages = ("-o", f"{folder}/map.html", "-o", f"{folder}/map.csv")
            print(
                f"store map --colour {colour}",
                measure("store", "map", store, *pages, "--colour", colour, *memory, output=found),
                flush=True,
            )
        if given.only == "map":
            return
        print("store inspect", measure("store", "inspect", store, "--truth", "folder", *memory, output=found), flush=True)
        print(reported(found, planted), flush=True)


if __name__ == "__main__":
    main()
