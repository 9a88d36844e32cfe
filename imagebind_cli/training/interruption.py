"""SIGTERM and SIGINT while a run trains: the state is saved first, then the signal does what it always does.

A process that trains alone is stopped where it is, but for the moments in which weights or files change: no step is half done. Several stop
together, at the end of a step. A second signal is not waited for.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal came; everything is as after the last whole step."""


class Interruption:
    """Use it as a context manager. received: the signal that came. alone: whether this is the only process."""

    def __init__(self, alone: bool) -> None:
        self.received: int | None = None
        self._alone = alone
        self._held = False

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        else:  # Python hands signals to its main thread alone
            self._before = {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A stretch that is not cut short: a signal in it takes effect at its end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._alone and self.received is not None:
            raise Stopped

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, self._before[signal.Signals(number)])
            signal.raise_signal(number)
        self.received = number
        if self._alone and not self._held:
            raise Stopped
