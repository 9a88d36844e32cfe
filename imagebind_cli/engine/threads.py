"""Read items in threads of this process: no start-up cost, but short steps of Python code wait for each other."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, Queue, SimpleQueue
from typing import Any

import torch

from imagebind_cli.crashes import call_for
from imagebind_cli.encoder import Read, Sample
from imagebind_cli.engine.item_timeout import overdue_reason
from imagebind_cli.engine.step_thread import Step, StepThread
from imagebind_cli.media.isolation import time_limit

OPEN_BESIDE = 2  # items that are begun and wait for the encoder, beside those that are being read
SAMPLES_AHEAD = 2  # of one item: the second step finds the end of most, and closes the file
GRACE_SECONDS = 1.0  # by which a file that is read apart outlasts its item: the item's reason is the engine's


class ThreadEngine:
    """Threads that read items, one step at a time: the next samples of an item are read while the one before them is used.

    waited: seconds spent waiting for samples; near 0 where reading is not the bottleneck.
    """

    def __init__(self, read: Read, workers: int, timeout: float = math.inf, most_open: float | None = None) -> None:
        """Start the threads.

        Args:
            timeout: seconds that reading one item may take. A thread that takes longer is abandoned, and another takes its place.
            most_open: items that are begun and not read to their end, each of which may hold a file and a decoder's process; by default two more
                than are read at a time. Later ones wait, so that items must be taken in order.
        """
        self.workers, self.waited = workers, 0.0
        self._read, self._timeout = read, timeout
        self._cores = torch.get_num_threads()
        self._steps: SimpleQueue[Step | None] = SimpleQueue()
        self._most_open = workers + OPEN_BESIDE if most_open is None else most_open
        self._open, self._counting = 0, threading.Lock()
        self._later: deque[_Reading] = deque()  # items that are not open yet
        for _ in range(workers):
            StepThread(self._steps, "decode").start()  # reading items side by side is faster than splitting each operation among the cores

    def submit(self, payload: Any, name: str = "") -> Iterator[Sample]:
        """Begin to read an item; see `Engine`."""
        reading = _Reading(name, self._read(payload), self._timeout, self._steps, self._make_room)
        with self._counting:
            if self._open < self._most_open:
                self._open += 1
                reading.begin()
            else:
                self._later.append(reading)
        return self._samples(reading)

    def close(self) -> None:
        """Stop, without waiting for the steps in progress."""
        with self._counting:
            self._later.clear()
        with suppress(Empty):
            while (step := self._steps.get_nowait()) is not None:
                step.cancel()
        for _ in range(self.workers):
            self._steps.put(None)
        torch.set_num_threads(self._cores)  # the threads changed the default for later threads of this process

    def _make_room(self) -> None:
        """Begin an item in the place of one that has ended."""
        with self._counting:
            if self._later:
                self._later.popleft().begin()
            else:
                self._open -= 1

    def _samples(self, reading: _Reading) -> Iterator[Sample]:
        while True:
            began = time.monotonic()
            try:
                sample = reading.take()
            except _Overdue:
                StepThread(self._steps, "decode").start()
                raise ValueError(overdue_reason(self._timeout)) from None
            self.waited += time.monotonic() - began
            if sample is None:
                return
            yield sample


class _Overdue(Exception):
    """A step has taken longer than it may."""


class _Reading:
    """An item being read, up to `SAMPLES_AHEAD` of whoever takes its samples: a file is closed while its last one still waits."""

    def __init__(
        self, name: str, samples: Iterator[Sample], seconds: float, steps: SimpleQueue[Step | None], closed: Callable[[], None]
    ) -> None:
        """seconds: that it may take in all. steps: where threads find what to do. closed: called once, when nothing more is read of it."""
        self._name, self._samples, self._left = name, samples, seconds
        self._steps, self._closed = steps, closed
        self._changing = threading.Lock()
        self._begun: Queue[_Step] = Queue()  # steps whose samples were not taken
        self._reading = self._ended = False

    def begin(self) -> None:
        """Begin the next step, unless one is under way, the item has ended, or enough samples wait."""
        with self._changing:
            if self._reading or self._ended or self._begun.qsize() >= SAMPLES_AHEAD:
                return
            self._reading, step = True, _Step(self, self._left)
            self._begun.put(step)
        self._steps.put(step)

    def following(self) -> Sample | None:
        """Read the next sample; None at the end."""
        sample: Sample | None = call_for(self._name, next, self._samples, None)
        return sample

    def finish(self, taken: float, ended: bool) -> None:
        """End a step that took so many seconds."""
        with self._changing:
            self._reading = False
            self._left -= taken
            ended, self._ended = ended and not self._ended, self._ended or ended
        if ended:
            self._closed()
        self.begin()

    def take(self) -> Sample | None:
        """Wait for the next sample and return it; None at the end.

        Raises:
            _Overdue: reading takes too long. Otherwise what it raised.
        """
        step = self._begun.get()
        try:
            sample = step.wait()
        except _Overdue:
            self.finish(0.0, ended=True)
            raise
        self.begin()
        return sample


class _Step:
    """The next sample of an item, read in at most `seconds`."""

    def __init__(self, reading: _Reading, seconds: float) -> None:
        self._reading, self._seconds = reading, seconds
        self._result: Future[Sample | None] = Future()
        self._began = math.inf
        self._started = threading.Event()
        self._abandoned = False

    def run(self) -> bool:
        """Read the sample. Returns whether anybody still waits for this thread."""
        if not self._result.set_running_or_notify_cancel():
            return True
        self._began = time.monotonic()
        self._started.set()
        sample = None
        try:
            with time_limit(self._seconds + GRACE_SECONDS):
                sample = self._reading.following()
        except BaseException as error:
            self._result.set_exception(error)
        else:
            self._result.set_result(sample)
        if not self._abandoned:
            self._reading.finish(time.monotonic() - self._began, ended=sample is None)
        return not self._abandoned

    def cancel(self) -> None:
        """Leave the sample unread."""
        self._result.cancel()
        self._started.set()

    def wait(self) -> Sample | None:
        """Return the sample.

        Raises:
            _Overdue: it takes too long, from when a thread began with it. Otherwise what reading raised.
        """
        if self._seconds == math.inf:
            return self._result.result()
        self._started.wait()
        try:
            return self._result.result(max(0.0, self._began + self._seconds - time.monotonic()))
        except TimeoutError:
            if self._result.done():  # the reader's own TimeoutError, or just in time
                return self._result.result()
            self._abandoned = True
            raise _Overdue from None
