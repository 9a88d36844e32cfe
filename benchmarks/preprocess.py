"""`imagebind preprocess` of many short sounds: how much of the cores it uses, and whether its memory grows with their number.

    python -m benchmarks.preprocess [--files 10000] [--runs 3] [--work DIR]

Two ways in turn: threads alone, and processes as the command starts them once they are worth it. Processor time is that of all its
processes; what others used meanwhile is taken off what the cores could have given. Memory is the sum of proportional shares (PSS), so that
what processes share counts once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

TICKS = os.sysconf("SC_CLK_TCK")
SECONDS_BETWEEN = 0.05
RATE = 16_000
THREADS = "from imagebind_cli.engine import processes; processes.POSSIBLE = False"
COMMAND = "import sys; {}; from imagebind_cli.cli import run_command_line; sys.argv[0] = 'imagebind'; run_command_line()"


@dataclass
class Measured:
    """One run. share: of what others left of the cores, over the whole run; steady: from the first sample written on."""

    files: int
    seconds: float
    start_seconds: float
    cpu_seconds: float
    share: float
    steady: float
    steady_files_per_second: float
    peak_megabytes: float


def sounds(folder: Path, count: int) -> None:
    """Noise of one second, each file another."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    noise = 0.1 * random.standard_normal(4 * RATE)
    for number in range(count):
        start = int(random.integers(0, 3 * RATE))
        path = folder / f"{number:05d}.wav"
        if not path.exists():
            soundfile.write(path, noise[start : start + RATE], RATE, subtype="PCM_16")


def family(process: int) -> list[int]:
    """A process and all below it."""
    found = [process]
    for parent in found:
        try:
            found += [
                int(child) for task in os.listdir(f"/proc/{parent}/task") for child in _read(f"/proc/{parent}/task/{task}/children").split()
            ]
        except OSError:
            continue
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def cpu_seconds(process: int) -> float:
    """User and system time of a process so far."""
    fields = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0


def megabytes(process: int) -> float:
    """Proportional share of memory."""
    lines = [line for line in _read(f"/proc/{process}/smaps_rollup").splitlines() if line.startswith("Pss:")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def busy_seconds() -> float:
    """What all cores have worked so far, for anybody."""
    user, nice, system, _, _, interrupts, soft, steal, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + interrupts + soft + steal) / TICKS


def measure(folder: Path, output: Path, setting: str) -> Measured:
    """Run the command on a folder and look at it until it ends."""
    for path in output.parent.glob("*.tar*"):
        path.unlink()
    began, busy = time.perf_counter(), busy_seconds()
    command = [sys.executable, "-c", COMMAND.format(setting), "preprocess", "audio", str(folder), "-o", str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    used: dict[int, float] = {}
    peak, looked = 0.0, 0.0
    first: tuple[float, float, float] | None = None
    while process.poll() is None:
        members = family(process.pid)
        used |= {member: seconds for member in members if (seconds := cpu_seconds(member))}
        now = time.perf_counter()
        if now - looked > 10 * SECONDS_BETWEEN:  # walking the page tables costs the program time
            peak, looked = max(peak, sum(map(megabytes, members))), now
        if first is None and any(output.parent.glob("*.tar*")):
            first = now, sum(used.values()), busy_seconds()
        time.sleep(SECONDS_BETWEEN)
    seconds, busy_all = time.perf_counter() - began, busy_seconds() - busy
    if process.returncode:
        raise SystemExit(process.stderr.read().decode() if process.stderr else "failed")
    assert first is not None
    total = sum(used.values())
    files = len(list(folder.iterdir()))
    steady, steady_used = began + seconds - first[0], total - first[1]
    others = max(busy_all - total, 0.0)
    others_then = max(busy + busy_all - first[2] - steady_used, 0.0)
    cores = len(os.sched_getaffinity(0))
    return Measured(
        files,
        seconds,
        first[0] - began,
        total,
        total / (cores * seconds - others),
        steady_used / (cores * steady - others_then),
        files / steady,
        peak,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-preprocess", help="2 GB are needed")
    arguments = parser.parse_args()
    sizes = arguments.files // 10, arguments.files
    for size in sizes:
        sounds(arguments.work / f"{size}", size)
    output = arguments.work / "out" / "x-%06d.tar"
    output.parent.mkdir(exist_ok=True)
    cases = {("threads", size): THREADS for size in sizes} | {("processes", size): "pass" for size in sizes}
    rows: dict[tuple[str, int], list[Measured]] = {case: [] for case in cases}
    for _ in range(arguments.runs):
        for (way, size), setting in cases.items():
            rows[way, size].append(measure(arguments.work / f"{size}", output, setting))

    print(f"{'':<11}{'files':>7}{'seconds':>9}{'CPU s':>8}{'share':>8}{'steady':>8}{'files/s':>9}{'peak MB':>9}")
    medians = []
    for (way, size), measured in rows.items():
        names = asdict(measured[0])
        median = {name: statistics.median(asdict(one)[name] for one in measured) for name in names}
        medians.append({"way": way, **median})
        print(
            f"{way:<11}{size:>7}{median['seconds']:>9.1f}{median['cpu_seconds']:>8.1f}{median['share']:>8.0%}{median['steady']:>8.0%}"
            f"{median['steady_files_per_second']:>9.0f}{median['peak_megabytes']:>9.0f}"
        )
    result = {"cores": len(os.sched_getaffinity(0)), "medians": medians, "runs": [asdict(one) for case in rows.values() for one in case]}
    (Path(__file__).parent / "preprocess.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
