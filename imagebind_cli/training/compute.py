"""How a run computes: its precision, and on a CPU its number of threads.

Small encoders lose more by waiting for their threads than they gain by them, where the processes that read files, or other programs, want
the cores too. So a run uses as many threads as are fastest for its encoders when it begins, and keeps that number to its end: sums in another
order differ in their last bits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from imagebind_cli.training.recipe import RunRecipe

EMULATING = (
    "DEFAULT",
    "NO AVX",
    "AVX2",
)  # CPU capabilities, in PyTorch's words, without bfloat16 arithmetic: matmuls take 30 times as long
ROUNDS = 3  # measurements of each number of threads
LONG_SECONDS = 5.0  # a step that takes longer on all threads is not a small encoder's; fewer threads are not tried
WORTHWHILE = 0.95  # more threads must need less than this fraction of the time of fewer


def emulates_bfloat16(device: torch.device) -> bool:
    """Check whether bfloat16 costs far more than float32 on a device."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in EMULATING


def actual_precision(run: RunRecipe, device: torch.device) -> Literal["fp32", "bf16"]:
    """Return the precision a run computes in: what the recipe asks for, or float32 where bfloat16 would be emulated."""
    return "fp32" if emulates_bfloat16(device) else run.precision


def precision_lines(run: RunRecipe, device: torch.device) -> Iterator[str]:
    """Yield a line if a run computes in another precision than its recipe asks for."""
    if actual_precision(run, device) != run.precision:
        yield f"computes in fp32, not in {run.precision}: this CPU has no bfloat16 arithmetic, and would emulate it many times more slowly"


def avoid_emulated_bfloat16(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which conversions to bfloat16 inside a library, as in PyTorch's Muon, give float32 where it would be emulated."""
    return _Float32() if emulates_bfloat16(device) else nullcontext()


class _Float32(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.bfloat16:
            return args[0].to(torch.float32, copy=True)
        return func(*args, **(kwargs or {}))


def may_choose_threads() -> bool:
    """Check whether the number of threads is free to choose: the user has not set `OMP_NUM_THREADS`."""
    return "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > 1


@contextmanager
def restore_threads() -> Iterator[None]:
    """Restore PyTorch's number of threads at the end."""
    count = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(count)


def format_threads(count: int) -> str:
    """Format a number of threads."""
    return f"{count} thread{'s' if count > 1 else ''}"


def choose_threads(step: Callable[[], object]) -> str:
    """Set PyTorch's number of threads to the fastest for a step, and return it with the times in words.

    Args:
        step: is run several times, and must change nothing.
    """
    most = torch.get_num_threads()
    counts = [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
    if _seconds(step, most) > LONG_SECONDS:  # the first one also warms up
        return format_threads(most)
    times = [[_seconds(step, count) for count in counts] for _ in range(ROUNDS)]
    typical = dict(zip(counts, map(median, zip(*times, strict=True)), strict=True))
    fastest = counts[0]
    for count in counts[1:]:
        if typical[count] < WORTHWHILE * typical[fastest]:
            fastest = count
    torch.set_num_threads(fastest)
    measured = ", ".join(f"{1000 * typical[count]:,.0f} ms on {count}" for count in counts)
    return f"{format_threads(fastest)}: a step takes {measured}"


def _seconds(step: Callable[[], object], threads: int) -> float:
    torch.set_num_threads(threads)
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
