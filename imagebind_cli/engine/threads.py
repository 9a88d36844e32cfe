"""Read items in threads of this process: no start-up cost, but short steps of Python code wait for each other."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import torch

from imagebind_cli.crashes import call_for
from imagebind_cli.encoder import Read, Sample
from imagebind_cli.engine.item_timeout import overdue_reason
from imagebind_cli.engine.step_thread import Step, StepThread
from imagebind_cli.media.isolation import time_limit

GRACE_SECONDS = 1.0  # by which a file that is read apart outlasts its item: the item's reason is the engine's


class ThreadEngine:
    """Threads that read items, one step at a time: the next sample of an item is read while the one before it is used.

    waited: seconds spent waiting for samples; near 0 where reading is not the bottleneck.
    """

    def __init__(self, read: Read, workers: int, timeout: float = math.inf) -> None:
        """timeout: seconds that reading one item may take. A thread that takes longer is abandoned, and another takes its place."""
        self.workers, self.waited = workers, 0.0
        self._read, self._timeout = read, timeout
        self._cores = torch.get_num_threads()
        self._steps: SimpleQueue[Step | None] = SimpleQueue()
        for _ in range(workers):
            StepThread(self._steps, "decode").start()  # reading items side by side is faster than splitting each operation among the cores

    def submit(self, payload: Any, name: str = "") -> Iterator[Sample]:
        """Begin to read an item; see `Engine`."""
        samples = self._read(payload)
        return self._samples(name, samples, self._begin(name, samples, self._timeout))

    def close(self) -> None:
        """Stop, without waiting for the steps in progress."""
        with suppress(Empty):
            while (step := self._steps.get_nowait()) is not None:
                step.cancel()
        for _ in range(self.workers):
            self._steps.put(None)
        torch.set_num_threads(self._cores)  # the threads changed the default for later threads of this process

    def _begin(self, name: str, samples: Iterator[Sample], seconds: float) -> _Reading:
        step = _Reading(name, samples, seconds)
        self._steps.put(step)
        return step

    def _samples(self, name: str, samples: Iterator[Sample], step: _Reading) -> Iterator[Sample]:
        left = self._timeout
        while True:
            began = time.monotonic()
            try:
                sample = step.wait()
            except _Overdue:
                StepThread(self._steps, "decode").start()
                raise ValueError(overdue_reason(self._timeout)) from None
            self.waited += time.monotonic() - began
            if sample is None:
                return
            left -= step.taken
            step = self._begin(name, samples, left)
            yield sample


class _Overdue(Exception):
    """A step has taken longer than it may."""


class _Reading:
    """The next sample of an item, read in at most `seconds`. result: the sample; None at the item's end. taken: seconds that it took."""

    def __init__(self, name: str, samples: Iterator[Sample], seconds: float) -> None:
        self.result: Future[Sample | None] = Future()
        self.taken = 0.0
        self._name, self._samples, self._seconds = name, samples, seconds
        self._began = math.inf
        self._started = threading.Event()
        self._abandoned = False

    def run(self) -> bool:
        """Read the sample. Returns whether anybody still waits for this thread."""
        if not self.result.set_running_or_notify_cancel():
            return True
        self._began = time.monotonic()
        self._started.set()
        try:
            with time_limit(self._seconds + GRACE_SECONDS):
                sample = call_for(self._name, next, self._samples, None)
        except BaseException as error:
            self._finish()
            self.result.set_exception(error)
        else:
            self._finish()
            self.result.set_result(sample)
        return not self._abandoned

    def cancel(self) -> None:
        """Leave the sample unread."""
        self.result.cancel()
        self._started.set()

    def _finish(self) -> None:
        self.taken = time.monotonic() - self._began

    def wait(self) -> Sample | None:
        """Return the sample.

        Raises:
            _Overdue: it takes too long, from when a thread began with it. Otherwise what reading raised.
        """
        if self._seconds == math.inf:
            return self.result.result()
        self._started.wait()
        try:
            return self.result.result(max(0.0, self._began + self._seconds - time.monotonic()))
        except TimeoutError:
            if self.result.done():  # the reader's own TimeoutError, or just in time
                return self.result.result()
            self._abandoned = True
            raise _Overdue from None
