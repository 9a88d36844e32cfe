"""A connection to a process over its stdin and stdout, for Windows, where no child inherits a socket and no pipe can be polled."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from typing import IO, Any, Self

LENGTH_BYTES = 8


class PipeConnection:
    """Sends and receives objects as `multiprocessing.connection.Connection`, between a process and one that it started itself.

    A thread receives, so that a caller can wait for a limited time, and the end of the other side is noticed at once.
    """

    def __init__(self, reading: IO[bytes], writing: IO[bytes], at_end: Callable[[], None] = lambda: None) -> None:
        """at_end: called, in that thread, once the other side has closed its end."""
        self._reading, self._writing, self._at_end = reading, writing, at_end
        self._received: queue.Queue[bytes | None] = queue.Queue()
        self._next: bytes | None = b""
        threading.Thread(target=self._receive, daemon=True).start()

    @classmethod
    def of_this_process(cls) -> Self:
        """Connect this process to its parent, and end it with that. What a library prints to stdout goes nowhere."""
        reading, writing = (os.fdopen(os.dup(stream.fileno()), mode) for stream, mode in ((sys.stdin, "rb"), (sys.stdout, "wb")))
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return cls(reading, writing, lambda: os._exit(0))

    def send(self, message: Any) -> None:
        """Send an object.

        Raises:
            OSError: the other side is gone.
        """
        data = bytes(ForkingPickler.dumps(message))
        self._writing.write(len(data).to_bytes(LENGTH_BYTES, "little") + data)
        self._writing.flush()

    def poll(self, seconds: float | None = 0.0) -> bool:
        """Wait until an object or the end has come, at most `seconds`; None for any time. Returns whether it has."""
        if self._next == b"":
            try:
                self._next = self._received.get(timeout=seconds) if seconds else self._received.get(block=seconds is None)
            except queue.Empty:
                return False
        return True

    def recv(self) -> Any:
        """Receive an object.

        Raises:
            EOFError: the other side is gone.
        """
        self.poll(None)
        if self._next is None:
            raise EOFError
        data, self._next = self._next, b""
        return ForkingPickler.loads(data)

    def close(self) -> None:
        """Close this side. What comes from the other one is read to its end."""
        with suppress(OSError):  # what was still to be sent, to a process that has ended
            self._writing.close()

    def _receive(self) -> None:
        with self._reading, suppress(OSError):
            while length := self._reading.read(LENGTH_BYTES):
                data = self._reading.read(int.from_bytes(length, "little"))
                if len(data) < int.from_bytes(length, "little"):
                    break
                self._received.put(data)
        self._received.put(None)
        self._at_end()
