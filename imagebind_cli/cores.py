"""Compute the parts of a batch side by side, on one core each: threads that share every operation wait for the slowest of them each time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Protocol

import torch
from torch import Tensor

from imagebind_cli.engine.step_thread import Step, StepThread

MOST_PARTS = 8  # of a batch; more cores than that share the operations of each part, so that the parts do not become too small


class PendingVectors(Protocol):
    """Vectors (b, dim) that may still be computed: on a GPU, or side by side."""

    def cpu(self) -> Tensor:
        """Wait for them and return them."""


class PartsUnderWay:
    """Pending vectors whose parts are computed side by side. `join` makes them from those of the parts."""

    def __init__(self, calls: Sequence[Callable[[], Tensor]], join: Callable[[list[Tensor]], Tensor]) -> None:
        """Queue the parts, behind all that were queued before."""
        self._join, self._parts = join, [_Part(call) for call in calls]
        _start_threads(torch.get_num_threads())
        for part in self._parts:
            _steps.put(part)

    def cpu(self) -> Tensor:
        """Wait for all parts and return the vectors; raise what computing one of them raised."""
        wait([part.result for part in self._parts])
        return self._join([part.result.result() for part in self._parts])


def part_count(inputs: int) -> int:
    """Return how many parts to compute a batch in: one for each core of the calling thread.

    If there are fewer inputs than that, it is 1, and all cores share every operation.
    """
    count = min(torch.get_num_threads(), MOST_PARTS)
    return count if inputs >= count else 1


class _Part:
    def __init__(self, call: Callable[[], Tensor]) -> None:
        self.result: Future[Tensor] = Future()
        self._call = call

    def run(self) -> bool:
        if not self.result.set_running_or_notify_cancel():
            return True
        try:
            self.result.set_result(self._call())
        except BaseException as error:
            self.result.set_exception(error)
        return True

    def cancel(self) -> bool:
        return self.result.cancel()


_steps: SimpleQueue[Step | None] = SimpleQueue()
_threads: list[StepThread] = []
_starting = threading.Lock()


def _start_threads(cores: int) -> None:
    """Start the missing threads for this many cores."""
    count = min(cores, MOST_PARTS)
    with _starting:
        if len(_threads) >= count:
            return
        for _ in range(count - len(_threads)):
            _threads.append(StepThread(_steps, "encode", cores // count))
            _threads[-1].start()
            _threads[-1].ready.wait()
        torch.set_num_threads(cores)  # the threads changed the default for later threads of this process


def _forget_threads() -> None:
    """Forget the threads, which a forked process does not have."""
    global _steps, _starting
    _steps, _starting = SimpleQueue(), threading.Lock()
    _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
