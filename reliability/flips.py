"""Flip single bits of weights, stores, prepared samples and run folders, and see which command reports it.

    python -m reliability.flips [--flips 1000] [--seconds 800] [--seed 0] [--subjects store,weights] [--work DIR]

Of each flip, the command that depends on the file runs first, then the check. A flip that neither reports must have no effect: everything that
the files give is as before, such as after one in the unused room of an HDF5 file. Any other is silent, and fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.published_weights import published_shapes, published_weights
from imagebind_cli.prepared import Prepared, index
from imagebind_cli.store import FORMATS, open_store
from imagebind_cli.weights import model_config, origin
from reliability.nursery import Run, run, warm
from reliability.seeds import picture

MODEL = ("--model", "tiny", "--device", "cpu")
LIMIT = 60.0


@dataclass(frozen=True)
class Subject:
    """Files to damage.

    prepare: commands that make them. files: their patterns, in the folder. use: the command that depends on them. check: what looks for damage.
    content: everything that they give, in a form that can be compared; None where that is what `use` prints.
    """

    name: str
    prepare: tuple[tuple[str, ...], ...]
    files: tuple[str, ...]
    use: tuple[str, ...]
    check: tuple[str, ...]
    content: Callable[[Path], object] | None = None


def stored(path: Path) -> object:
    """Everything that a store gives its readers."""
    reader = open_store(path)
    rows = [
        (row.id, row.span, row.windows, dict(row.meta), row.stamp, row.clock, row.vector.tobytes())
        for item in reader.items()
        for row in item
    ]
    return rows, reader.provenance, reader.replaced


def samples(path: Path) -> object:
    """Everything that prepared samples give their readers."""
    entries = []
    for entry in index(path):
        prepared = entry.payload("image", entry.about())
        assert isinstance(prepared, Prepared)
        entries.append((entry.about(), entry.provenance, [array.tobytes() for array in prepared.arrays()]))
    return entries


def _store(ending: str) -> Subject:
    name = f"s{ending}"
    command = ("embed", "text", "--manifest", "texts.jsonl", "-o", name, *MODEL)
    files = (f"{name}/*",) if FORMATS[ending].folder else tuple(map(str, FORMATS[ending].files(Path(name))))
    return Subject(f"store {ending}", (command,), files, command, ("store", "check", name), lambda folder: stored(folder / name))


def _shard(name: str) -> Subject:
    command = ("preprocess", "image", "pictures", "-o", name, "--model", "tiny")
    use = ("embed", "image", name, *MODEL)
    return Subject(f"samples {name}", (command,), (name,), use, ("store", "check", name), lambda folder: samples(folder / name))


TRAIN = (
    *("train", "--pairs", "image-depth", "--model", "tiny", "--data", "pairs.jsonl", "--batch", "4", "--device", "cpu", "--out", "run"),
    *("--set", "run.workers=0", "--set", "run.steps=6", "--set", "pairs.0.views=1", "--set", "run.anchor_cache=true"),
)  # fmt: skip
SUBJECTS = [
    *map(_store, FORMATS),
    _shard("s.tar"),
    _shard("s.h5"),
    Subject(
        "weights converted",
        (("weights", "convert", "tiny", "model"),),
        ("model/text.safetensors", "model/config.json"),
        ("embed", "text", "a dog", "--model", "model"),
        ("weights", "verify", "model"),
    ),
    Subject(
        "weights .pth",
        (),
        ("fetched/model.pth",),
        ("embed", "text", "a dog", "--model", "fetched/model.pth"),
        ("weights", "verify", "fetched/model.pth"),
    ),
    Subject(
        "weights of a run",
        (TRAIN,),
        ("run/*.safetensors", "run/config.json"),
        ("embed", "depth", "depth/0.npy", "--model", "run"),
        ("weights", "verify", "run"),
    ),
    Subject("checkpoint", (TRAIN,), ("run/checkpoints/*", "run/run.json"), TRAIN, TRAIN),
]


def make_inputs(folder: Path) -> None:
    """Write what the commands read."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    (folder / "texts.jsonl").write_text("".join(json.dumps({"id": f"{n}", "text": f"sentence {n}", "n": n}) + "\n" for n in range(1000)))
    for name in ("pictures", "depth", "fetched"):
        (folder / name).mkdir()
    for number in range(12):
        picture("RGB").rotate(9 * number).save(folder / "pictures" / f"{number}.png")
        np.save(folder / "depth" / f"{number}.npy", draw.uniform(1, 5, (32, 40)).astype(np.float32))
    pairs = ({"image": f"pictures/{number}.png", "depth": f"depth/{number}.npy"} for number in range(12))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    config = model_config.packaged_config("tiny")
    path = folder / "fetched" / "model.pth"
    torch.save(published_weights(published_shapes(config), 0), path)
    path.with_suffix(".json").write_text(config.to_json())
    origin.write_origin(path.parent, {"address": "hf://a/b"}, {path.name: origin.file_record(path)})


class Bench:
    """A folder with a subject's files, and what they give while nothing is damaged."""

    def __init__(self, subject: Subject, work: Path) -> None:
        self.subject, self.folder = subject, work
        make_inputs(work)
        for command in (*subject.prepare, subject.use, subject.check):
            result = self._run(command)
            if result.code:
                raise RuntimeError(f"imagebind {' '.join(command)}: exit {result.code}: {result.err}")
        warm(subject.use, work)
        warm(subject.check, work)
        self.files = [path for path in self._present() if path.stat().st_size]
        self.whole = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in self.files}
        self.expected = self._content()

    def flip(self, draw: random.Random) -> str:
        """Flip one bit, and name what reports it: half of the flips are anywhere, half in a file of equal chances."""
        sizes = [len(data) for data, _ in self.whole.values()]
        (path,) = draw.choices(self.files, sizes if draw.random() < 0.5 else None)
        data = bytearray(self.whole[path][0])
        place, bit = draw.randrange(len(data)), draw.randrange(8)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        try:
            return self._verdict(f"{path.relative_to(self.folder)} byte {place} bit {bit}")
        finally:
            for name in self._present():
                if name not in self.whole:  # a run that went on wrote more
                    name.unlink()
            for name, (old, changed) in self.whole.items():
                if not name.exists() or name.read_bytes() != old:
                    name.write_bytes(old)
                os.utime(name, ns=(changed, changed))

    def _verdict(self, place: str) -> str:
        for number, command in enumerate((self.subject.use, self.subject.check)):
            result = self._run(command)
            if result.code not in (0, 1) or result.is_traceback or result.seconds > LIMIT:
                return f"broken: {place}: exit {result.code}"
            if result.code:
                return "told by use" if number == 0 else "told by check"
        try:
            return "no effect" if self._content() == self.expected else f"silent: {place}"
        except Exception as error:
            return f"silent: {place}: {error}"

    def _present(self) -> list[Path]:
        return [path for pattern in self.subject.files for path in sorted(self.folder.glob(pattern)) if path.is_file()]

    def _content(self) -> object:
        if self.subject.content:
            return self.subject.content(self.folder)
        return self._run(self.subject.use).out

    def _run(self, command: tuple[str, ...]) -> Run:
        os.environ["IMAGEBIND_HOME"] = str(self.folder / "home")
        return run(command, folder=self.folder, limit=LIMIT)


def main() -> None:
    """Flip bits of every subject in turn; exit with 1 if any was silent, or broke a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subjects", help="parts of names of subjects, with commas between")
    parser.add_argument("--work", type=Path)
    chosen = parser.parse_args()
    wanted = chosen.subjects.split(",") if chosen.subjects else [""]
    subjects = [subject for subject in SUBJECTS if any(part in subject.name for part in wanted)]
    draw, until, total = random.Random(chosen.seed), time.monotonic() + chosen.seconds, Counter[str]()
    with tempfile.TemporaryDirectory(dir=chosen.work) as work:
        for number, subject in enumerate(subjects):
            share = chosen.flips // len(subjects) + (number < chosen.flips % len(subjects))
            until_here = time.monotonic() + max(0.0, until - time.monotonic()) / (len(subjects) - number)
            bench, found, wrong = Bench(subject, Path(work) / str(number)), Counter[str](), []
            while found.total() < share and time.monotonic() < until_here:
                kind, _, place = bench.flip(draw).partition(": ")
                found[kind] += 1
                wrong += [f"{kind}: {place}"] if place else []
            total += found
            print(json.dumps({"subject": subject.name, "flips": found.total(), **found, **({"wrong": wrong} if wrong else {})}), flush=True)
            shutil.rmtree(bench.folder)
    print(json.dumps({"flips": total.total(), **total}))
    raise SystemExit(bool(total["silent"] or total["broken"]))


if __name__ == "__main__":
    main()
