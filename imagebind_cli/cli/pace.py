"""How fast a run goes, and how long it will take."""

from __future__ import annotations

import time
from collections import deque

RECENT_SECONDS = 60.0


class Pace:
    """The rate of a run over all of it, and of late, from which the time left is told."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque([(self._started, 0)])
        self._total: int | None = None
        self._stored = 0

    def expect(self, total: int | None, stored: int) -> None:
        """How many inputs there are, None if that cannot be told, and how many of them were done before."""
        self._total, self._stored = total, stored

    def overall(self, done: int) -> float:
        """Inputs a second since the start."""
        return done / max(time.monotonic() - self._started, 1e-9)

    def left(self, worked: int, passed: int) -> str | None:
        """The time left, in words; None if it cannot be told.

        Args:
            worked: inputs that took time. passed: those that were there already.
        """
        now = time.monotonic()
        while len(self._marks) > 1 and now - self._marks[1][0] > RECENT_SECONDS:
            self._marks.popleft()
        since, before = self._marks[0]
        self._marks.append((now, worked))
        if self._total is None or worked <= before or worked + passed > self._total:
            return None
        to_do = max(0, self._total - worked - max(passed, self._stored))
        return f"about {in_words(to_do * (now - since) / (worked - before))} left"


def in_words(seconds: float) -> str:
    """A duration as a person would say it."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{round(seconds)} s"
    if minutes < 90:
        return f"{minutes} min"
    return f"{hours} h" if hours < 48 else f"{round(seconds / 86400)} days"
