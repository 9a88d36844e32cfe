"""The processes of a run, and rows gathered from all of them with gradients, so that a contrastive loss sees the whole batch.

As OpenCLIP's `gather_with_grad` with local loss: each process scores its own rows against everybody's. Alone, a process is all of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's number among `world()`."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


class _Rows(torch.autograd.Function):
    """Written out because the collectives with gradients that torch has are renamed from version to version."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)  # every process's loss has a say
        return gradient.chunk(world())[rank()]


def gathered(rows: Tensor) -> Tensor:
    """(b, …) of this process to (processes * b, …) of all, in order of rank. Its gradient is the sum of what all processes' losses give."""
    if world() == 1:
        return rows
    out: Tensor = _Rows.apply(rows)
    return out


def mean(values: Tensor) -> Tensor:
    """The mean over the processes, without gradients."""
    values = values.detach().clone()
    if world() > 1:
        dist.all_reduce(values)
        values /= world()
    return values


def wait() -> None:
    """Until every process is here."""
    if world() > 1:
        dist.barrier()


def objects(value: Any) -> list[Any]:
    """A small object of every process, in order of rank."""
    found: list[Any] = [value] * world()
    if world() > 1:
        dist.all_gather_object(found, value)
    return found
