"""How many threads a run computes with on a CPU: as many as are fastest for its encoders on these cores, now, and the same to its end.

Small encoders wait for their threads more than they gain by them where the processes that read files, or other programs, want the cores too.
Sums in another order differ in their last bits, so the number is part of what a run is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch

ROUNDS = 3
LONG_SECONDS = 5.0
"""A step that takes longer on all threads is no small encoder's, and is not tried again on fewer."""
WORTH = 0.95
"""Share of the time of fewer threads that more of them must stay below."""


def are_free() -> bool:
    """Check whether the number is not the user's choice, who sets `OMP_NUM_THREADS`."""
    return "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > 1


@contextmanager
def kept() -> Iterator[None]:
    """Leave PyTorch with as many threads as it had."""
    count = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(count)


def counted(count: int) -> str:
    """A number of threads in words."""
    return f"{count} thread{'s' if count > 1 else ''}"


def choose_threads(step: Callable[[], object]) -> str:
    """Let PyTorch compute with the number of threads that is fastest for a step, and say how much faster.

    Args:
        step: is run some times, and leaves nothing behind.
    """
    most = torch.get_num_threads()
    counts = [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
    if _seconds(step, most) > LONG_SECONDS:  # the first one also warms up
        return counted(most)
    times = [[_seconds(step, count) for count in counts] for _ in range(ROUNDS)]
    typical = dict(zip(counts, map(median, zip(*times, strict=True)), strict=True))
    chosen = counts[0]
    for count in counts[1:]:
        if typical[count] < WORTH * typical[chosen]:
            chosen = count
    torch.set_num_threads(chosen)
    told = ", ".join(f"{1000 * typical[count]:,.0f} ms on {count}" for count in counts)
    return f"{counted(chosen)}: a step takes {told}"


def _seconds(step: Callable[[], object], threads: int) -> float:
    torch.set_num_threads(threads)
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
