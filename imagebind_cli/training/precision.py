"""What a run computes in: bfloat16 where it is asked for and there is arithmetic for it, float32 elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from imagebind_cli.training.recipe import Run

IMITATORS = ("DEFAULT", "NO AVX", "AVX2")
"""CPUs, as PyTorch calls what they can, whose bfloat16 is float32 cut down number by number: a product of matrices takes 30 times as long."""


def imitated(device: torch.device) -> bool:
    """Whether bfloat16 costs far more than float32 on a device."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in IMITATORS


def precision(run: Run, device: torch.device) -> Literal["fp32", "bf16"]:
    """What a run computes in: what it asks for, or float32, which is the finer one, where bfloat16 is imitated."""
    return "fp32" if imitated(device) else run.precision


def finer(run: Run, device: torch.device) -> Iterator[str]:
    """A line to say, where a run computes in another precision than it asks for."""
    if precision(run, device) != run.precision:
        yield f"computes in fp32, not in {run.precision}: this CPU has no bfloat16 arithmetic, and imitates it many times more slowly"


def natural(device: torch.device) -> AbstractContextManager[object]:
    """A context in which what a library makes bfloat16 of its own accord, as PyTorch's Muon does, is float32 where that is imitated."""
    return _Float32() if imitated(device) else nullcontext()


class _Float32(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.bfloat16:
            return args[0].to(torch.float32, copy=True)
        return func(*args, **(kwargs or {}))
