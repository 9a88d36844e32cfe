"""`imagebind embed` into a store, killed with -9 at random moments and once stopped by a full disk, and run again each time.

    python -m benchmarks.kills [--runs 30] [--items 4000] [--seed 0] [--work DIR]

Each run is the real command in a process of its own, forked off one that has imported torch, so that the time is spent on writing. The moment is
drawn from the length of an unbroken run. After it the same command runs to its end: every id must be there once and in order, with the vectors
of the unbroken run, and `imagebind store check` must find nothing. The full disk is a small tmpfs, which only root may mount.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: F401 - for the processes that are forked off

from imagebind_cli import cli
from imagebind_cli.store import is_store, open_store

ENDINGS = (".h5", ".store")
MOUNT_MB = 8


def start(*arguments: object, stdin: Path | None = None, stderr: Path | None = None) -> int:
    """Start `imagebind ARGUMENTS` and give its process id."""
    child = os.fork()
    if child:
        return child
    for number, path, flags in ((0, stdin, os.O_RDONLY), (1, None, os.O_WRONLY), (2, stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
        os.dup2(os.open(path or os.devnull, flags), number)
    sys.argv = ["imagebind", *map(str, arguments)]
    try:
        cli.run_command_line()
    finally:
        os._exit(99)  # main leaves by itself


def embed(store: Path, lines: Path, stderr: Path | None = None) -> int:
    """Start the command under test."""
    return start("embed", "text", "-", "-o", store, "--model", "tiny", "--device", "cpu", stdin=lines, stderr=stderr)


def end(process: int) -> int:
    """The exit code of a process, below 0 for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def difference(store: Path, whole: dict[str, np.ndarray]) -> float:
    """The largest difference from the unbroken run, once ids and check are found right."""
    reader = open_store(store)
    assert reader.ids == list(whole), f"{store}: {len(reader.ids)} ids, not each once and in order"
    assert end(start("store", "check", store)) == 0, f"{store}: not clean"
    return float(np.abs(reader.vectors() - np.stack(list(whole.values()))).max())


def killed(folder: Path, ending: str, moment: float, lines: Path, whole: dict[str, np.ndarray]) -> dict[str, Any]:
    """One run killed at a moment, in seconds, and then finished."""
    folder.mkdir()
    store = folder / f"store{ending}"
    process = embed(store, lines)
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    code = end(process)
    left = len(open_store(store)) if is_store(store) else 0
    assert end(embed(store, lines)) == 0
    worst = difference(store, whole)
    shutil.rmtree(folder)
    return {"store": ending, "moment, s": round(moment, 3), "killed": code == -signal.SIGKILL, "rows left": left, "difference": worst}


def full_disk(folder: Path, ending: str, lines: Path, whole: dict[str, np.ndarray]) -> dict[str, Any]:
    """One run on a disk that fills up, and the same again when there is room."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MOUNT_MB}m", "tmpfs", folder], check=True)
    try:
        room = 160 * len(whole)  # a vector of 64 numbers and its id take about 370 bytes
        (folder / "ballast").write_bytes(bytes((MOUNT_MB << 20) - room))
        store, said = folder / f"store{ending}", folder.parent / "said"
        code = end(embed(store, lines, said))
        line = said.read_text().splitlines()[-1]
        left = len(open_store(store)) if is_store(store) else 0
        assert code == 1, f"exit code {code}: {line}"
        assert "Traceback" not in said.read_text()
        (folder / "ballast").unlink()
        assert end(embed(store, lines)) == 0
        return {"store": ending, "said": line, "rows left": left, "difference": difference(store, whole)}
    finally:
        subprocess.run(["umount", folder], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-kills")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True)
    try:
        lines = chosen.work / "lines"
        lines.write_text("".join(f"sentence {number}\n" for number in range(chosen.items)))
        started = time.monotonic()
        assert end(embed(chosen.work / "whole.h5", lines)) == 0
        length = time.monotonic() - started
        reader = open_store(chosen.work / "whole.h5")
        whole = dict(zip(reader.ids, reader.vectors(), strict=True))
        draw = random.Random(chosen.seed)
        runs: list[dict[str, Any]] = []
        while len(runs) < chosen.runs:
            run = killed(chosen.work / "run", ENDINGS[len(runs) % 2], draw.uniform(0, length), lines, whole)
            print(run, flush=True)
            runs += [run] if run["killed"] else []  # one that was over before does not count
        endings = ENDINGS if os.geteuid() == 0 else ()
        full = [full_disk(chosen.work / f"full{ending}", ending, lines, whole) for ending in endings]
        result = {"items": chosen.items, "unbroken, s": round(length, 2), "killed": runs, "full disk": full}
    finally:
        shutil.rmtree(chosen.work)
    halfway = [run for run in runs if 0 < run["rows left"] < chosen.items]
    print(f"{len(runs)} killed, {len(halfway)} of them with some rows written; {len(full)} on a full disk: all whole")
    print(f"largest difference: {max(run['difference'] for run in runs + full):.2g}")
    (Path(__file__).parent / "kills.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
