"""The rate of a run, and the time left."""

from __future__ import annotations

import time
from collections import deque

from imagebind_cli.printable import duration_in_words

RECENT_SECONDS = 60.0  # of the run, from which the time left is estimated


class Pace:
    """The rate of a run since its start, and the recent rate, from which the time left is estimated."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque([(self._started, 0)])
        self._total: int | None = None
        self._stored = 0

    def expect(self, total: int | None, stored: int) -> None:
        """Set how many inputs there are, None if that is unknown, and how many of them were done before."""
        self._total, self._stored = total, stored

    def overall(self, done: int) -> float:
        """Return the inputs per second since the start."""
        return done / max(time.monotonic() - self._started, 1e-9)

    def left(self, worked: int, passed: int) -> str | None:
        """Return the time left, in words; None if it is unknown.

        Args:
            worked: inputs that took time. passed: inputs that were done before.
        """
        now = time.monotonic()
        while len(self._marks) > 1 and now - self._marks[1][0] > RECENT_SECONDS:
            self._marks.popleft()
        since, before = self._marks[0]
        self._marks.append((now, worked))
        if self._total is None or worked <= before or worked + passed > self._total:
            return None
        to_do = max(0, self._total - worked - max(passed, self._stored))
        return f"about {duration_in_words(to_do * (now - since) / (worked - before))} left"
