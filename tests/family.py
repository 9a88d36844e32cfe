"""Processes below a process, and whether they have ended."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def family(process: int) -> list[int]:
    """All processes below one."""
    found = [process]
    for parent in found:
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found[1:]


def gone(processes: Iterable[int], seconds: float = 20) -> bool:
    """Whether all of them end before the time is up. One that has ended may wait to be asked how, where nobody adopts orphans."""
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if _lives(process)]:
        if time.monotonic() > deadline:
            return False
        processes = left
        time.sleep(0.02)
    return True


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
