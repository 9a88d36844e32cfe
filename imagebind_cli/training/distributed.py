"""The processes of a run, started by `torchrun`, and values gathered from all of them.

Rows are gathered with gradients, so that a contrastive loss sees the whole batch, as OpenCLIP's `gather_with_grad` with local loss: each
process scores its own rows against those of all. A single process gathers from itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def join_processes(device: torch.device) -> Iterator[torch.device]:
    """Join the other processes of a `torchrun`, if there are any, and yield this process's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's number among `world()`."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


class _GatherRows(torch.autograd.Function):
    """Written out because torch renames its own collectives with gradients from version to version."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)  # sums the gradients of all processes' losses
        return gradient.chunk(world())[rank()]


def gather_rows(rows: Tensor) -> Tensor:
    """Gather (b, …) of this process to (processes * b, …) of all, in order of rank. The gradient sums those of all processes' losses."""
    if world() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the mean over the processes, without gradients."""
    values = values.detach().clone()
    if world() > 1:
        dist.all_reduce(values)
        values /= world()
    return values


def barrier() -> None:
    """Wait until every process has reached this point."""
    if world() > 1:
        dist.barrier()


def gather_objects(value: Any) -> list[Any]:
    """Gather a small object of every process, in order of rank."""
    values: list[Any] = [value] * world()
    if world() > 1:
        dist.all_gather_object(values, value)
    return values
