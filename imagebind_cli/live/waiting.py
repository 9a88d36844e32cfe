"""Windows that wait between the thread that reads a stream and the one that encodes."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Literal

from imagebind_cli.live.cutting import Cutter, StreamWindow

Behind = Literal["drop", "wait"]

CHUNK = 1 << 16  # bytes read at once, at most
MOST_WAITING = 4  # windows: a hiccup of this many hops loses nothing


class WindowQueue:
    """Reads a stream in a thread and holds the windows that are whole, `MOST_WAITING` at most.

    Iterate over it for each window with the time at which it was whole (`time.monotonic`).

    dropped: windows left out so far, the oldest first, because the reader of the queue fell behind. began: `time.time` of the first bytes.
    """

    def __init__(self, file: int, cutter: Cutter, behind: Behind) -> None:
        """file: an open file descriptor. behind: whether the oldest window is dropped where there is no room, or the stream waits."""
        self._file, self._cutter, self._drops = file, cutter, behind == "drop"
        self._waiting: deque[tuple[StreamWindow, float]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self.dropped = 0
        self.began: float | None = None

    def __iter__(self) -> Iterator[tuple[StreamWindow, float]]:
        """Yield windows until the stream ends.

        Raises:
            ValueError, OSError: it ended too early, or cannot be read; raised once what was whole is yielded.
        """
        threading.Thread(target=self._read, name="stream", daemon=True).start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    break
                window = self._waiting.popleft()
                self._changed.notify()
            yield window
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            while data := os.read(self._file, CHUNK):
                if self.began is None:
                    self.began = time.time()
                for window in self._cutter.add(data):
                    self._put(window)
            for window in self._cutter.end():
                self._put(window)
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _put(self, window: StreamWindow) -> None:
        whole = time.monotonic()
        with self._changed:
            if not self._drops:
                self._changed.wait_for(lambda: len(self._waiting) < MOST_WAITING)
            elif len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append((window, whole))
            self._changed.notify()
