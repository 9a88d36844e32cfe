"""The whole way of `embed`, from files to vectors, beside its two bounds: decoding alone and encoding alone, on the same cores in the same run.

    python -m benchmarks.whole [--modalities image audio video depth imu] [--turns 2] [--scale 1] [--work DIR]

For each modality, files are made once: JPEGs of 1,024 x 768, sounds of two seconds, videos of four, depth PNGs of 640 x 480 and IMU tables
of five seconds. Each turn runs, in new processes, one after the other: decoding alone, encoding alone and `imagebind embed` with `mini`, first on a
quiet machine, then beside a process that only counts. What the bounds allow is the sum of their processor time over the cores; start-up is
not part of it: of each, the time from the end of the imports and of loading to the last vector counts, decoding processes included. A busy
process leaves all cores but one. `share` is the bound over the time of `embed`; 0.9 and beside it 0.85 are wanted. `others` are the cores
that other programs of the machine used meanwhile, which shares suffer from; `net` is the share of the cores without those.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.preprocess import busy_seconds

HERE = Path(__file__).parent
COUNTS = {"image": 300, "audio": 600, "video": 240, "depth": 300, "imu": 600}
"""Files of each modality, a few seconds' work for two cores."""
SPIN = "while True: pass"
LARGEST_BATCHES = 40
"""Batches that are encoded alone, at most."""


def make_files(modality: str, folder: Path, count: int) -> list[str]:
    """Files of a modality, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = {"image": "jpg", "audio": "wav", "video": "mp4", "depth": "png", "imu": "csv"}[modality]
    paths = [folder / f"{number:04d}.{suffix}" for number in range(count)]
    if not paths[-1].exists():
        random = np.random.default_rng(0)
        if modality == "image":
            from benchmarks.files import make_pictures

            for made, path in zip(make_pictures(folder, count), paths, strict=True):
                made.rename(path)
        else:
            for path in paths:
                {"audio": _sound, "video": _video, "depth": _depth, "imu": _table}[modality](path, random)
    return [str(path) for path in paths]


def _sound(path: Path, random: np.random.Generator) -> None:
    import soundfile

    soundfile.write(path, 0.1 * random.standard_normal(2 * 44_100), 44_100, subtype="PCM_16")


def _depth(path: Path, random: np.random.Generator) -> None:
    from PIL import Image

    coarse = Image.fromarray(random.uniform(500, 8000, (6, 8)).astype(np.float32)).resize((640, 480), Image.Resampling.BICUBIC)
    Image.fromarray(np.asarray(coarse).clip(1, 9000).astype(np.uint16)).save(path)


def _table(path: Path, random: np.random.Generator) -> None:
    times = np.arange(0, 5, 0.005)
    readings = np.column_stack([times, random.standard_normal((len(times), 6))])
    np.savetxt(path, readings, delimiter=",", fmt="%.5f", header="time,ax,ay,az,gx,gy,gz", comments="")


def _video(path: Path, random: np.random.Generator) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.bit_rate = 640, 360, 1_000_000  # type: ignore[attr-defined]
        picture = random.integers(0, 256, (360, 640, 3), dtype=np.uint8)
        for shift in range(100):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(picture, 2 * shift, axis=1)), format="rgb24")
            container.mux(stream.encode(frame))  # type: ignore[attr-defined]
        container.mux(stream.encode(None))  # type: ignore[attr-defined]


def processor_seconds() -> float:
    """Of this process, of its children that have ended, and of those that decode videos apart and wait for the next."""
    from imagebind_cli.media import isolation

    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return isolation.processor_seconds() + ended.ru_utime + ended.ru_stime


def run_part(modality: str, part: str, files: list[str]) -> dict[str, float]:
    """Do one part in this process. Returns its seconds, its processor seconds, and how many clips it encoded or decoded."""
    import imagebind_cli as ib
    from imagebind_cli import corpus
    from imagebind_cli.cli.memory import keep_freed_memory
    from imagebind_cli.engine import default_workers, open_engine
    from imagebind_cli.pipeline import decode
    from imagebind_cli.readers import read_source
    from imagebind_cli.registry import face
    from imagebind_cli.sources import Failure, Item

    keep_freed_memory()
    model, clips = ib.load("mini", device="cpu"), 0
    (first,) = (sample.tensor for sample in list(model.read(modality, files[0]))[:1])
    if part != "decode":
        model.encode(modality, first)
    began, used = time.perf_counter(), processor_seconds()
    if part == "decode":
        reading = face(modality).read_options({})

        def read(payload: Any) -> Iterator[Any]:
            return read_source(face(modality), payload, model.config(modality), reading)

        for step in decode([Item(path, path) for path in files], open_engine(read, default_workers()), ahead=32):
            assert step is not None
            assert not isinstance(step[1], Failure), step[1]
            clips += 0 if step[1] is None else len(step[1].tensor)
    elif part == "encode":
        size = model.batch_size(modality)
        batch = first[:1].expand(size, *first.shape[1:]).contiguous()
        total = len(files) * len(first)
        pending: list[Any] = []
        for _ in range(min(LARGEST_BATCHES, max(2, total // size))):
            pending = [*pending, model.begin_encoding(modality, batch)][-2:]
            clips += size
            if len(pending) > 1:
                pending[0].cpu()
        for vectors in pending:
            vectors.cpu()
    else:
        seen: list[Any] = []
        corpus.embed(model, modality, files, lambda rows, _: seen.extend(rows), may_fork=True)
        clips = len(seen)
        assert clips >= len(files)
    return {"seconds": time.perf_counter() - began, "processor": processor_seconds() - used, "clips": clips, "a file": len(first)}


@contextmanager
def beside(busy: bool) -> Iterator[None]:
    """Run a process that only counts."""
    process = subprocess.Popen([sys.executable, "-c", SPIN]) if busy else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def measured(modality: str, part: str, folder: Path, busy: bool) -> dict[str, float]:
    """One part in a new process, and what others used of the cores meanwhile."""
    with beside(busy):
        before, began, used = busy_seconds(), time.perf_counter(), processor_seconds()
        command = [sys.executable, "-m", "benchmarks.whole", "--part", part, "--modalities", modality, "--work", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
        if done.returncode:
            raise SystemExit(done.stderr)
        own, all_of_it, seconds = processor_seconds() - used, busy_seconds() - before, time.perf_counter() - began
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result | {"others": max(0.0, all_of_it - own - (seconds if busy else 0.0)) / seconds}


def figures(turns: list[dict[str, dict[str, float]]], count: int, cores: int) -> dict[str, float]:
    """Files a second of each part and what the bounds allow, medians over the turns."""
    rows = []
    for turn in turns:
        decode, encode, whole = turn["decode"], turn["encode"], turn["embed"]
        needed = decode["processor"] + encode["processor"] / encode["clips"] * count * encode["a file"]
        beside = turn["beside"]
        bound = needed / cores
        left = max(cores - 1, 0.5)
        rows.append(
            {
                "decode": count / decode["seconds"],
                "encode": encode["clips"] / encode["a file"] / encode["seconds"],
                "embed": count / whole["seconds"],
                "bound": count / bound,
                "share": bound / whole["seconds"],
                "processor": whole["processor"] / needed,
                "net": needed / whole["seconds"] / max(cores - whole["others"], 0.1),
                "beside": count / beside["seconds"],
                "share beside": needed / left / beside["seconds"],
                "net beside": needed / beside["seconds"] / max(left - beside["others"], 0.1),
                "others": statistics.mean(part["others"] for part in turn.values()),
            }
        )
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modalities", nargs="+", default=list(COUNTS), choices=COUNTS)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="times the files of each modality")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-whole", help="300 MB are needed")
    parser.add_argument("--part", choices=["decode", "encode", "embed"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        files = sorted(str(path) for path in arguments.work.iterdir())
        print(json.dumps(run_part(arguments.modalities[0], arguments.part, files)))
        return

    from benchmarks.machine import machine

    described, cores = machine("torch"), len(os.sched_getaffinity(0))
    print(described)
    print(
        "\n| files a second | decode | encode | bound | embed | share | net | processor time over both | beside one | share | net | others |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    result: dict[str, Any] = {}
    for modality in arguments.modalities:
        count = max(2, int(COUNTS[modality] * arguments.scale))
        folder = arguments.work / f"{modality}-{count}"
        make_files(modality, folder, count)
        turns = []
        for _ in range(arguments.turns):
            turn = {part: measured(modality, part, folder, False) for part in ("decode", "encode", "embed")}
            turns.append(turn | {"beside": measured(modality, "embed", folder, True)})
        row = result[modality] = figures(turns, count, cores)
        shown = [f"{row[name]:.0f}" for name in ("decode", "encode", "bound", "embed")]
        shown += [f"{row[name]:.2f}" for name in ("share", "net", "processor")]
        shown += [f"{row['beside']:.0f}", *(f"{row[name]:.2f}" for name in ("share beside", "net beside", "others"))]
        print(f"| {modality} | {' | '.join(shown)} |", flush=True)
    (HERE / "whole.json").write_text(json.dumps({"machine": described, "modalities": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
