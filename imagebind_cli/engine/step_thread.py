"""A thread that runs steps from a queue, and does not keep the program from ending."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

import torch

EXIT_SECONDS = 5.0  # for steps in progress when the program ends, since PyTorch must not be in the middle of one then

_started: weakref.WeakSet[StepThread] = weakref.WeakSet()


class Step(Protocol):
    """A piece of work for a thread."""

    def run(self) -> bool:
        """Do it, unless it was cancelled. Return whether the thread is to continue."""

    def cancel(self) -> object:
        """Leave it undone."""


class StepThread(threading.Thread):
    """Runs the steps of a queue until it receives None, or a step returns False.

    ready: set once the thread has changed PyTorch's default number of threads, which it does for the whole process.
    """

    def __init__(self, steps: SimpleQueue[Step | None], name: str, cores: int = 1) -> None:
        """cores: among which PyTorch splits each operation. One is fastest where steps run side by side."""
        super().__init__(name=name, daemon=True)
        self.steps, self.ready = steps, threading.Event()
        self._cores = cores

    def run(self) -> None:
        """Run the steps, as `threading.Thread` calls it."""
        torch.set_num_threads(self._cores)
        torch.get_num_threads()  # without it, the thread's first operation would take the number that the process has by then
        _started.add(self)
        self.ready.set()
        while (step := self.steps.get()) is not None and step.run():
            del step


@atexit.register
def _finish_steps() -> None:
    """Cancel the steps that have not begun, and wait a little for threads in the middle of one."""
    until, threads = time.monotonic() + EXIT_SECONDS, list(_started)
    for thread in threads:
        with suppress(Empty):
            while True:
                if (step := thread.steps.get_nowait()) is not None:
                    step.cancel()
    for thread in threads:
        thread.steps.put(None)
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
