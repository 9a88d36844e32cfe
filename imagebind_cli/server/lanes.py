"""Lanes in which the inputs of all clients wait: a thread, or one for each core, processes all waiting inputs with the same key as one batch.

Each modality has a lane, so that a sentence does not wait for a video to be decoded; so has each kind of search. Threads that are idle at the
same time share what waits; one that becomes idle while the others work takes all of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.server.limits import BUSY, Limits, Refusal

LOG = logging.getLogger(__name__)
PAUSE = 0.1  # of the time of a batch: after so long without a request, clients that were just answered are not expected to ask again
MOST = 64  # inputs of one batch: those of one client do not keep others waiting for long

# A key and the things of a batch to their results, one for each, in order. An exception is the result of all that have none yet.
Work = Callable[[Any, list[Any]], Iterator[Any]]
Watch = Callable[[str, int], object]  # called with a lane's name and the size of each batch


@dataclass(eq=False)
class _Order:
    """Things of one client, and what came of each: its result, or an exception. taken: how many of them are in batches so far."""

    key: tuple[Work, Hashable]
    things: Sequence[Any]
    until: float
    future: Future[list[Any]] = field(default_factory=Future)  # cancelled where nobody waits any more
    taken: int = 0

    def __post_init__(self) -> None:
        self._outcomes: list[Any] = [None] * len(self.things)
        self._missing = len(self.things)
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Count the things that are in no batch yet."""
        return len(self.things) - self.taken

    def is_wanted(self) -> bool:
        """Check whether a client is still waiting for it."""
        if time.monotonic() > self.until:
            self.future.cancel()
        return not self.future.cancelled()

    def take(self, most: int) -> list[_Place]:
        """Take things for a batch."""
        start, self.taken = self.taken, min(self.taken + most, len(self.things))
        return [(self, number) for number in range(start, self.taken)]

    def put(self, number: int, outcome: Any) -> None:
        """Keep the outcome of a thing. With the last one, the client is answered."""
        with self._lock:
            self._outcomes[number] = outcome
            self._missing -= 1
            is_last = not self._missing
        if is_last:
            with suppress(InvalidStateError):  # nobody waits any more
                self.future.set_result(self._outcomes)


_Place = tuple[_Order, int]  # a thing of a batch: that of an order with this number


class Lanes:
    """All lanes by name. Threads are started when a lane is first used.

    Args:
        begin: called first by each thread.
    """

    def __init__(self, limits: Limits, watch: Watch = lambda lane, size: None, begin: Callable[[], object] = lambda: None) -> None:
        self._limits, self._watch, self._begin = limits, watch, begin
        self._lanes: dict[str, _Lane] = {}
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Count the things that wait."""
        return sum(lane.waiting for lane in list(self._lanes.values()))

    @property
    def batches(self) -> int:
        """Count the batches that are being processed."""
        return sum(lane.batches for lane in list(self._lanes.values()))

    def submit(self, name: str, work: Work, key: Hashable, things: Sequence[Any], threads: int = 1) -> Future[list[Any]]:
        """Add things to a lane, and return their future outcomes: for each its result, or the exception that it raised.

        Args:
            name: of the lane. work: what it does with a batch. key: things with equal keys may be one batch.
            threads: batches of the lane that are worked off at a time.
        Raises:
            Refusal: too many wait already.
        """
        if self.waiting + len(things) > self._limits.waiting:
            raise Refusal(503, f"busy: {self.waiting:,} inputs are waiting already; try again later", BUSY)
        with self._lock:
            lane = self._lanes.get(name) or self._lanes.setdefault(name, _Lane(name, self._watch, self._begin, threads))
        order = _Order((work, key), things, time.monotonic() + self._limits.seconds)
        lane.add(order)
        return order.future

    def close(self) -> None:
        """End the threads once they have finished their batches."""
        for lane in self._lanes.values():
            lane.close()


class _Lane:
    def __init__(self, name: str, watch: Watch, begin: Callable[[], object], threads: int) -> None:
        self.waiting = self.batches = 0
        self._orders: deque[_Order] = deque()
        self._name, self._watch, self._begin = name, watch, begin
        self._changed, self._closed = threading.Condition(), False
        self._idle, self._seconds = threads, 0.0  # of the last batch
        for _ in range(threads):
            threading.Thread(target=self._run, name=f"lane {name}", daemon=True).start()

    def add(self, order: _Order) -> None:
        with self._changed:
            self._orders.append(order)
            self.waiting += order.waiting
            self._changed.notify(order.waiting)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        self._begin()
        while batch := self._take():
            self._watch(self._name, len(batch))
            began = time.monotonic()
            self._answer(batch)
            with self._changed:
                self._idle += 1
                self.batches -= 1
                self._seconds = time.monotonic() - began

    def _take(self) -> list[_Place]:
        """Return things of the first order that waits and of others with its key, and leave the rest in order; [] once the lane is closed."""
        batch: list[_Place] = []
        with self._changed:
            while not batch:
                was_idle = not self._orders
                while not self._orders and not self._closed:
                    self._changed.wait()
                if was_idle and self.batches:
                    self._gather()
                if not self._orders:
                    if self._closed:
                        return []
                    continue
                key, left = self._orders[0].key, deque[_Order]()
                most = min(MOST, -(-self.waiting // self._idle))
                while self._orders and len(batch) < most:
                    order = self._orders.popleft()
                    if order.key == key and order.is_wanted():
                        batch += order.take(most - len(batch))
                    if order.waiting and not order.future.cancelled():
                        left.append(order)
                self._orders.extendleft(reversed(left))
                self.waiting = sum(order.waiting for order in self._orders)
            self._idle -= 1
            self.batches += 1
        return batch

    def _gather(self) -> None:
        """Wait, while other threads work, until no more requests come one after the other: a batch of one takes twice as long for each."""
        count = -1
        while count < self.waiting < MOST and not self._closed:
            count = self.waiting
            self._changed.wait(PAUSE * self._seconds)

    def _answer(self, batch: list[_Place]) -> None:
        done = 0
        try:
            for (order, number), result in zip(batch, _results(batch), strict=True):
                order.put(number, result)
                done += 1
        except Exception as error:
            left = batch[done:]
            if len(left) == 1:
                _fail(left[0], error)
                return
            for place in left:  # one of them is at fault, and only that one shall fail
                try:
                    (result,) = _results([place])
                except Exception as own:
                    _fail(place, own)
                else:
                    place[0].put(place[1], result)


def _results(batch: list[_Place]) -> Iterator[Any]:
    work, key = batch[0][0].key
    return work(key, [order.things[number] for order, number in batch])


def _fail(place: _Place, error: Exception) -> None:
    if not isinstance(error, UserError | Refusal | ValueError | OSError):
        LOG.error("a bug in answering a request", exc_info=error)
    place[0].put(place[1], error)
