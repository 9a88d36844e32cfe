"""Read items in threads of this process: no start-up cost, but short steps of Python code wait for each other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch

from imagebind_cli.encoder import Read, Sample

if TYPE_CHECKING:
    Step = tuple[Sample | None, Iterator[Sample]]  # the next sample of an item, None at its end, and the rest


class ThreadEngine:
    """Threads that read items, one step at a time: the next sample of an item is read while the one before it is used.

    waited: seconds spent waiting for samples; near 0 where reading is not the bottleneck.
    """

    def __init__(self, read: Read, workers: int) -> None:
        self.workers, self.waited = workers, 0.0
        self._read = read
        self._cores = torch.get_num_threads()
        # One core for each thread: reading items side by side is faster than splitting each operation among the cores.
        self._threads = ThreadPoolExecutor(workers, "decode", initializer=torch.set_num_threads, initargs=(1,))

    def submit(self, payload: Any) -> Iterator[Sample]:
        """Begin to read an item; see `Engine`."""
        return self._samples(self._threads.submit(self._step, self._read(payload)))

    def close(self) -> None:
        """Stop, without waiting for the steps in progress."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        torch.set_num_threads(self._cores)  # the workers changed the default for later threads of this process

    def _step(self, samples: Iterator[Sample]) -> Step:
        return next(samples, None), samples

    def _samples(self, future: Future[Step]) -> Iterator[Sample]:
        while True:
            began = time.monotonic()
            sample, rest = future.result()
            self.waited += time.monotonic() - began
            if sample is None:
                return
            future = self._threads.submit(self._step, rest)
            yield sample
