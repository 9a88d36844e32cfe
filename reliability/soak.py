"""Give one run of `imagebind` very many inputs, and look for what grows or slows.

    python -m reliability.soak [--texts 1000000] [--files 100000] [--seconds 600]

Sentences go through `embed`, files through `embed` and `preprocess`. A run takes its inputs from a pipe, so what it has taken shows how far it
is. Its memory and that of its largest worker are sampled along the way and printed for each tenth of the inputs. A run fails if either grows
by more than `GROWTH` and `GROWTH_PER_INPUT` allow once it is warm, if the rate of half a minute or more falls under half, or if it takes no
input for a minute.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from reliability.seeds import picture

GROWTH = 64.0  # MB
GROWTH_PER_INPUT = 1000e-6  # MB: a store knows the ids of its rows
STALL = 60.0  # seconds
WARM = 5.0  # seconds that a process takes to import what it needs
JUDGED = 30.0  # seconds from which a run's rate is judged: that of a shorter one depends on what else the machine does
INTERVAL = 0.1  # seconds between samples
PIPE = 8192  # bytes of inputs that wait in the pipe
MODEL = ("--model", "tiny")


@dataclass(frozen=True)
class Sample:
    """Record what a run had taken and held at one moment.

    seconds: since its start. inputs: that it had taken. process, worker: resident memory in MB of the run's own process, and of the largest of
    its workers, 0 where it has none.
    """

    seconds: float
    inputs: int
    process: float
    worker: float


def sentences(count: int) -> Iterator[str]:
    """Make different sentences."""
    return (f"a photograph of object {number} in place {number * 7919 % 1009}" for number in range(count))


def files(folder: Path, count: int) -> Iterator[str]:
    """Make names of pictures: 100 files, each under many names, a thousand in a folder."""
    folder.mkdir()
    seeds = [folder / f"seed{number}{('.png', '.jpg')[number % 2]}" for number in range(100)]
    for number, seed in enumerate(seeds):
        picture(("RGB", "L")[number // 2 % 2], (40 + number, 30 + number)).save(seed)
    for number in range(count):
        name = folder / f"{number // 1000:03}" / f"{number:06}{seeds[number % 100].suffix}"
        name.parent.mkdir(exist_ok=True)
        os.link(seeds[number % 100], name)
        yield str(name)


def resident(process: int) -> float:
    """Return the resident memory of a process in MB, 0 once it has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    return 0.0


def descendants(process: int) -> Iterator[int]:
    """Yield the process ids of the children of a process, of their children and so on."""
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                yield child
                yield from descendants(child)


def soak(arguments: tuple[str, ...], inputs: Iterator[str], folder: Path, seconds: float) -> tuple[list[Sample], str | None]:
    """Run `imagebind ARGUMENTS -` on inputs until there are no more or the time is over; return the samples, and what went wrong."""
    said = folder / "stderr"
    command = [sys.executable, "-m", "imagebind_cli", *arguments, "-"]
    with said.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr)
    assert process.stdin is not None
    pipe, started, samples = process.stdin.fileno(), time.monotonic(), [Sample(0, 0, 0, 0)]
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
    fault, taken = None, 0
    for line in inputs:
        passed = time.monotonic() - started
        if passed - samples[-1].seconds > INTERVAL:
            samples.append(Sample(passed, taken, resident(process.pid), max(map(resident, descendants(process.pid)), default=0.0)))
        if passed > seconds:
            break
        try:
            if not select.select([], [pipe], [], STALL)[1]:
                fault = f"took no input for {STALL:.0f} s"
                process.kill()
                break
            os.write(pipe, f"{line}\n".encode())
            taken += 1
        except BrokenPipeError:
            break
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STALL)
    if process.poll() is None:
        process.kill()
        fault = f"did not end within {STALL:.0f} s of its last input"
    code = process.wait()
    samples.append(replace(samples[-1], seconds=time.monotonic() - started, inputs=taken))
    if code and not fault:
        fault = f"exit {code}: {said.read_text(errors='replace').strip().splitlines()[-1:]}"
    return samples, fault


def stretch(samples: list[Sample], start: float, end: float) -> list[Sample]:
    """Return the samples between two shares of all inputs, two at least."""
    total = samples[-1].inputs
    first = next(number for number, sample in enumerate(samples) if sample.inputs >= start * total)
    last = next(number for number, sample in enumerate(samples) if sample.inputs >= end * total)
    return samples[min(first, len(samples) - 2) : max(last, first + 1) + 1]


def rate(samples: list[Sample], start: float, end: float) -> float:
    """Return the inputs a second between two shares of all inputs."""
    part = stretch(samples, start, end)
    return (part[-1].inputs - part[0].inputs) / max(part[-1].seconds - part[0].seconds, 1e-9)


def peaks(samples: list[Sample], start: float, end: float) -> tuple[float, float]:
    """Return the most memory, in MB, that the process and a worker held between two shares of all inputs."""
    part = stretch(samples, start, end)
    return max(sample.process for sample in part), max(sample.worker for sample in part)


def growth(samples: list[Sample], held: Callable[[Sample], float]) -> float:
    """Return by how many MB the peak of the last third is above that of the first, once the process is warm."""
    total, warm = samples[-1].inputs, next((sample.seconds for sample in samples if held(sample)), float("inf")) + WARM
    values = [held(sample) for sample in samples if sample.seconds >= warm and 0.1 * total <= sample.inputs <= 0.9 * total]
    third = len(values) // 3
    return max(values[-third:]) - max(values[:third]) if third else 0.0


def judge(samples: list[Sample]) -> str | None:
    """Name what grows or slows, or return None. The first and last tenths, in which a run starts and ends, do not count."""
    allowed = GROWTH + GROWTH_PER_INPUT * samples[-1].inputs
    process, worker = growth(samples, lambda sample: sample.process), growth(samples, lambda sample: sample.worker)
    if max(process, worker) > allowed:
        return f"the process grew by {process:.0f} MB and its largest worker by {worker:.0f}; {allowed:.0f} are allowed"
    early, late = rate(samples, 0.1, 0.4), rate(samples, 0.6, 0.9)
    if samples[-1].seconds >= JUDGED and late < early / 2:
        return f"the rate fell from {early:.0f} to {late:.0f} a second"
    return None


def report(name: str, samples: list[Sample]) -> None:
    """Print a row for each tenth of the inputs."""
    print(f"\n{name}: {samples[-1].inputs:,} inputs in {samples[-1].seconds:.0f} s\n")
    print("| tenth | a second | MB | MB of a worker |\n|---|---|---|---|")
    for tenth in range(10):
        start, end = tenth / 10, (tenth + 1) / 10
        process, worker = peaks(samples, start, end)
        print(f"| {tenth + 1} | {rate(samples, start, end):,.0f} | {process:,.0f} | {worker:,.0f} |", flush=True)


def main() -> None:
    """Soak every command; exit with 1 if one grows, slows, stalls or fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, help="stop after this time, in which each command gets an equal share")
    parser.add_argument("--work", type=Path)
    chosen = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(dir=chosen.work) as work:
        folder = Path(work)
        runs = (
            ("embed text", ("embed", "text", "-o", "texts.h5", *MODEL, "--device", "cpu"), sentences(chosen.texts)),
            ("embed image", ("embed", "image", "-o", "files.h5", *MODEL, "--device", "cpu"), files(folder / "embedded", chosen.files)),
            ("preprocess image", ("preprocess", "image", "-o", "files-%06d.tar", *MODEL), files(folder / "prepared", chosen.files)),
        )
        for name, arguments, inputs in runs:
            samples, fault = soak(arguments, inputs, folder, chosen.seconds / len(runs) if chosen.seconds else float("inf"))
            report(name, samples)
            fault = fault or judge(samples)
            if fault:
                wrong += 1
                print(f"\n{name}: {fault}", flush=True)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
