"""Measure the share of embedding, resuming, searching, copying, reading and training that checksums take.

    python -m benchmarks.checksums [--rows 100000] [--dim 1024] [--work DIR]

Each action runs once as it is, with a clock around the functions that compute or compare checksums.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import machine
from benchmarks.store import append, resumed
from imagebind_cli import corpus, load
from imagebind_cli.prepared import entries, tar
from imagebind_cli.similarity import top_k
from imagebind_cli.store import hdf5, open_store, provenance, source
from imagebind_cli.store.check import findings
from imagebind_cli.store.folder import source as folder_source
from imagebind_cli.store.folder import writer as folder_writer
from imagebind_cli.store.maintenance import merge
from imagebind_cli.training import log, resolve_recipe, train
from imagebind_cli.weights import checkpoint, tensor_files

TIMED: list[tuple[ModuleType, str]] = [
    (hdf5, "new_sums"), (folder_writer, "new_sums"), (hdf5, "running_sum"), (folder_writer, "running_sum"), (hdf5, "check_running"),
    (folder_source, "check_running"), (hdf5, "row_states"), (folder_source, "row_states"), (source, "each_sum"), (source, "check_seal"),
    (provenance, "check_seal"), (entries, "array_sum"), (entries, "check_seal"), (tar, "array_sum"), (checkpoint, "check_weight_file"),
    (tensor_files, "tensor_sums"), (log, "_checksum"),
]  # fmt: skip
"""Functions that compute or compare checksums."""


@contextmanager
def inside() -> Iterator[list[float]]:
    """Yield a list to which each call of a timed function adds its seconds."""
    spent: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                spent.append(time.perf_counter() - started)

        return call

    with ExitStack() as stack:
        for module, name in TIMED:
            stack.enter_context(mock.patch.object(module, name, timed(getattr(module, name))))
        yield spent


def share(name: str, action: Callable[[], Any]) -> dict[str, Any]:
    """Run an action, and print and return its seconds, and which share of them was spent in checksums."""
    with inside() as spent:
        started = time.perf_counter()
        action()
        seconds = time.perf_counter() - started
    row = {"action": name, "seconds": round(seconds, 4), "in checksums": round(sum(spent), 4), "share": round(sum(spent) / seconds, 4)}
    print(f"{name:<44}{row['seconds']:>10} s{row['in checksums']:>10} s{100 * row['share']:>8.2f} %", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--work", type=Path)
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=chosen.work) as place:
        work = Path(place)
        random = np.random.default_rng(0)
        for number in range(300):
            Image.fromarray(random.integers(0, 255, (480, 640, 3), np.uint8)).save(work / f"{number:03}.jpg")
        pictures, sentences = [str(path) for path in sorted(work.glob("*.jpg"))], [f"sentence {number}" for number in range(5000)]
        os.environ["IMAGEBIND_HOME"] = str(work / "home")
        for what in ("first", "second"):
            model = load("mini", device="cpu")
            rows.append(share(f"load mini's image encoder, {what} time", lambda m=model: m.encoder("image")))
        model.embed("image", pictures[:2])
        model.embed("text", sentences[:2])
        for modality, inputs in (("image", pictures), ("text", sentences)):
            write = partial(corpus.embed, model, modality, inputs, work / f"{modality}.h5")
            rows.append(share(f"embed {len(inputs):,} {modality} into .h5, mini", write))
        for ending in ("tar", "h5"):
            prepared = work / f"p.{ending}"
            rows.append(
                share(f"preprocess 300 image to .{ending}, mini", partial(corpus.preprocess, "image", pictures, prepared, model="mini"))
            )
            again = partial(corpus.embed, model, "image", [str(prepared)], work / f"again-{ending}.h5")
            rows.append(share(f"embed prepared .{ending}, mini", again))
        prepare_pairs(work, pictures)
        for name, minutes in (("at the end", 60.0), ("after each", 1e-6)):
            rows.append(share(f"train 10 steps on prepared .tar, checkpoint {name}", partial(learn, work, minutes)))
        for ending in (".h5", ".store"):
            path = work / f"s{ending}"
            rows.append(share(f"append {chosen.rows:,} rows to {ending}", partial(append, path, chosen.rows, chosen.dim)))
            rows.append(share(f"continue {ending}, all done", partial(resumed, path, chosen.rows, chosen.dim)))
            rows.append(share(f"open {ending} and search, 1 query", partial(search, path)))
            rows.append(share(f"merge {ending} into another", partial(copy, path, work / f"copy{ending}")))
            rows.append(share(f"store check {ending}", lambda checked=path: list(findings(checked))))
        for ending in (".jsonl", ".npy"):
            path = work / f"t{ending[1:]}{ending}"
            append(path, chosen.rows // 10, chosen.dim)
            rows.append(share(f"open {ending} and search, {chosen.rows // 10:,} rows", partial(search, path)))
    (Path(__file__).parent / "checksums.json").write_text(
        json.dumps({"machine": machine("numpy", "torch", "h5py"), "rows": rows}, indent=1) + "\n"
    )


def search(path: Path) -> None:
    """Open a store and find the ten rows nearest to its first, with their ids."""
    store = open_store(path)
    rows, _ = top_k(store.blocks(), store.rows([0]), 10)
    for row in rows[0]:
        store.id(int(row))


def prepare_pairs(work: Path, pictures: list[str]) -> None:
    """Prepare pictures with what stands for their thermal ones."""
    lines = []
    for path in pictures:
        Image.open(path).convert("L").save(grey := f"{path}.png")
        lines.append(json.dumps({"id": path, "image": path, "thermal": grey}) + "\n")
    (work / "pairs.jsonl").write_text("".join(lines))
    corpus.preprocess(("image", "thermal"), [], work / "pairs.tar", model="mini", manifest=work / "pairs.jsonl")


def learn(work: Path, minutes: float) -> None:
    """Train mini's thermal encoder against its image encoder on prepared samples, which this process reads. minutes: between checkpoints."""
    settings = ("run.steps=10", "run.workers=0", f"run.checkpoint_minutes={minutes}")
    recipe = resolve_recipe(None, pairs=("image-thermal",), data=(str(work / "pairs.tar"),), model="mini", batch=32, changes=settings)
    train(recipe, work / f"run-{minutes}", torch.device("cpu"))


def copy(path: Path, target: Path) -> None:
    """Merge a store into a new one."""
    merge([open_store(path)], target)


if __name__ == "__main__":
    main()
