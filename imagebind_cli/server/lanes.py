"""Lanes in which the inputs of all clients wait: one thread each, which works off whatever waits with the same key as one batch.

Each modality has a lane, so that a sentence does not wait for a video to be decoded; so has each kind of search.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.server.limits import BUSY, Limits, Refusal

LOG = logging.getLogger(__name__)
MOST = 64  # inputs of one batch: those of one client do not keep others waiting for long

# A key and the things of a batch to their results, one for each, in order. An exception is the result of all that have none yet.
Work = Callable[[Any, list[Any]], Iterator[Any]]
Watch = Callable[[str, int], object]  # called with a lane's name and the size of each batch


@dataclass
class _Job:
    key: tuple[Work, Hashable]
    thing: Any
    until: float
    future: Future[Any] = field(default_factory=Future)


class Lanes:
    """All lanes by name. Threads are started when a lane is first used.

    Args:
        begin: what each thread calls first.
    """

    def __init__(self, limits: Limits, watch: Watch = lambda lane, size: None, begin: Callable[[], object] = lambda: None) -> None:
        self._limits, self._watch, self._begin = limits, watch, begin
        self._lanes: dict[str, _Lane] = {}
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Count the things that wait."""
        return sum(len(lane.jobs) for lane in list(self._lanes.values()))

    def submit(self, name: str, work: Work, key: Hashable, things: list[Any]) -> list[Future[Any]]:
        """Add things to a lane, and return their results to come.

        Args:
            name: of the lane. work: what it does with a batch. key: things with equal keys may be one batch.
        Raises:
            Refusal: too many wait already.
        """
        if self.waiting + len(things) > self._limits.waiting:
            raise Refusal(503, f"busy: {self.waiting:,} inputs wait already; try again later", BUSY)
        with self._lock:
            lane = self._lanes.get(name) or self._lanes.setdefault(name, _Lane(name, self._watch, self._begin))
        until = time.monotonic() + self._limits.seconds
        return lane.add([_Job((work, key), thing, until) for thing in things])

    def close(self) -> None:
        """End the threads once they have finished their batches."""
        for lane in self._lanes.values():
            lane.close()


class _Lane:
    def __init__(self, name: str, watch: Watch, begin: Callable[[], object]) -> None:
        self.jobs: deque[_Job] = deque()
        self._name, self._watch, self._begin = name, watch, begin
        self._changed, self._closed = threading.Condition(), False
        threading.Thread(target=self._run, name=f"lane {name}", daemon=True).start()

    def add(self, jobs: list[_Job]) -> list[Future[Any]]:
        with self._changed:
            self.jobs.extend(jobs)
            self._changed.notify()
        return [job.future for job in jobs]

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        self._begin()
        while batch := self._take():
            self._watch(self._name, len(batch))
            self._answer(batch)

    def _take(self) -> list[_Job]:
        """Return the first job that waits and others with its key, and leave the rest in order; [] once the lane is closed."""
        batch: list[_Job] = []
        with self._changed:
            while not batch:
                while not self.jobs and not self._closed:
                    self._changed.wait()
                if not self.jobs:
                    return []
                key, left = self.jobs[0].key, deque[_Job]()
                while self.jobs and len(batch) < MOST:
                    job = self.jobs.popleft()
                    if job.key != key:
                        left.append(job)
                    elif _is_wanted(job):
                        batch.append(job)
                self.jobs.extendleft(reversed(left))
        return batch

    def _answer(self, batch: list[_Job]) -> None:
        try:
            self._work(batch)
        except Exception as error:
            left = [job for job in batch if not job.future.done()]
            if len(left) == 1:
                _fail(left[0], error)
                return
            for job in left:  # one of them is at fault, and only that one shall fail
                try:
                    self._work([job])
                except Exception as own:
                    _fail(job, own)

    def _work(self, batch: list[_Job]) -> None:
        work, key = batch[0].key
        for job, result in zip(batch, work(key, [job.thing for job in batch]), strict=True):
            job.future.set_result(result)


def _is_wanted(job: _Job) -> bool:
    """Check whether a client still waits for a job, and keep it from being cancelled from now on."""
    if time.monotonic() > job.until:
        job.future.cancel()
    return job.future.set_running_or_notify_cancel()


def _fail(job: _Job, error: Exception) -> None:
    if not isinstance(error, UserError | Refusal | ValueError | OSError):
        LOG.error("a bug in answering a request", exc_info=error)
    job.future.set_exception(error)
