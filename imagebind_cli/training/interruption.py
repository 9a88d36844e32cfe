"""SIGTERM, SIGHUP and SIGINT while a run trains: the state is saved first, then the signal has its usual effect.

A process that trains alone stops at once, except while weights or files change, so that no step is half done. Several processes stop
together, at the end of a step. A second signal takes effect immediately.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from imagebind_cli.signals import heeded_signals


class Stopped(BaseException):
    """A signal was received; the state is that after the last whole step."""


class Interruption:
    """Receives signals while it is entered. received: the signal, if one came. alone: this is the only process."""

    def __init__(self, alone: bool) -> None:
        self.received: int | None = None
        self._alone = alone
        self._delaying = False

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in heeded_signals()}
        else:  # Python delivers signals only to its main thread
            self._before = {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def delayed(self) -> Iterator[None]:
        """Delay signals to the end of a block, which must not be interrupted."""
        self._delaying = True
        try:
            yield
        finally:
            self._delaying = False
        if self._alone and self.received is not None:
            raise Stopped

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, self._before[signal.Signals(number)])
            signal.raise_signal(number)
        self.received = number
        if self._alone and not self._delaying:
            raise Stopped
