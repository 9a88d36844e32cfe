"""Find when a query occurs in an endless stream: each moment as soon as it is over, in memory that does not grow."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.grounding.curves import ROUNDING, MomentOptions, relative_scores
from imagebind_cli.live import LiveRow
from imagebind_cli.media.clock import clock_text

REMEMBERED = 600  # seconds whose scores determine the threshold, where none is given
FIRST_SECONDS = 30  # that are scored before such a threshold holds


@dataclass(frozen=True)
class LiveMoment:
    """A moment of a stream.

    start, end: seconds from the stream's beginning. score: the mean of its seconds' scores. best: the second that scores highest, by when it
    begins, and best_score its score. threshold: that its last second reached. row: the window that showed that it is over.
    """

    start: float
    end: float
    score: float
    best: float
    best_score: float
    threshold: float
    row: LiveRow

    def as_json(self, query: str) -> dict[str, Any]:
        """Return the line that `imagebind moments --live` prints."""
        began = datetime.fromisoformat(self.row.clock) - timedelta(seconds=self.row.start)
        return {
            "query": query,
            "id": self.row.id,
            "start": round(self.start, 6),
            "end": round(self.end, 6),
            "clock": clock_text(began, self.start),
            "clock_end": clock_text(began, self.end),
            "score": round(self.score, 9),
            "best": round(self.best, 6),
            "best_score": round(self.best_score, 9),
            "threshold": round(self.threshold, 9),
            "modality": self.row.modality,
            "latency": round(self.row.latency, 4),
            "dropped": self.row.dropped,
        }


def find_live_moments(
    rows: Iterable[LiveRow], query: np.ndarray, options: MomentOptions | None = None, others: np.ndarray | None = None
) -> Iterator[LiveMoment]:
    """Yield the moments of a query in the windows of a stream. With a threshold they are those that `find_moments` finds in the whole of it.

    Args:
        rows: from `live.embed_stream`. query: its unit vector (dim,).
        options: `k` has no meaning here. Without a threshold it is (maximum + median) / 2 of the scores of the last `REMEMBERED` seconds,
            second by second, and no moment begins within the first `FIRST_SECONDS`.
        others: vectors (names, dim) of other names; scores are then relative to them.
    Raises:
        UserError: the stream broke off, as `live.embed_stream` says; the moment that was under way is yielded first.
    """
    options = options or MomentOptions()
    level, run = _Level(options.threshold), _Run(options)
    row: LiveRow | None = None
    failure: UserError | None = None

    def received() -> Iterator[LiveRow]:
        nonlocal failure
        try:
            yield from rows
        except UserError as error:
            failure = error

    for second in _seconds(received(), query, others):
        row = second.row
        yield from run.add(second, level.after(second.score))
    if row is not None:
        yield from run.finish(row)
    if failure is not None:
        raise failure


@dataclass(frozen=True)
class _Second:
    """A second of a stream, or what there is of its last one; its score, NaN where no window is; the last window before the score was known."""

    start: float
    end: float
    score: float
    row: LiveRow


def _seconds(rows: Iterable[LiveRow], query: np.ndarray, others: np.ndarray | None) -> Iterator[_Second]:
    """Yield each second once no window to come can be over its middle: with the mean of those that are, as `curves.score_curve` takes it."""
    waiting: deque[tuple[float, float, float]] = deque()  # start, end and score of the windows that later seconds may need
    began, number, last = 0.0, 0, None

    def score(middle: float) -> float:
        while waiting and waiting[0][1] <= middle:
            waiting.popleft()
        over = [score for start, end, score in waiting if start <= middle < end]
        return float(np.mean(over)) if over else math.nan

    for row in rows:
        began = row.start if last is None else began
        while began + number + 0.5 < row.start:
            yield _Second(began + number, began + number + 1, score(began + number + 0.5), row)
            number += 1
        cosines = np.array([row.vector @ query], np.float64)
        waiting.append(
            (row.start, row.end, float((cosines if others is None else relative_scores(cosines, others @ row.vector[:, None]))[0]))
        )
        last = row
    while last is not None and (number == 0 or began + number < last.end - 1e-6):
        end = min(began + number + 1, last.end)
        yield _Second(began + number, end, score((began + number + end) / 2), last)
        number += 1


class _Level:
    """The score that the seconds of a moment reach: the one that is given, or one of what came so far."""

    def __init__(self, given: float | None) -> None:
        self._given = given
        self._scores: deque[float] = deque(maxlen=REMEMBERED)

    def after(self, score: float) -> float:
        """Return the level for a second of this score."""
        if self._given is not None:
            return self._given
        if math.isfinite(score):
            self._scores.append(score)
        if len(self._scores) < FIRST_SECONDS:
            return math.inf
        return (max(self._scores) + float(np.median(self._scores))) / 2


class _Run:
    """The moment that is under way, if any."""

    def __init__(self, options: MomentOptions) -> None:
        self._options = options
        self._start = self._end = self._best = 0.0
        self._level = math.nan
        self._sum, self._count, self._highest = 0.0, 0, -math.inf
        self._since: list[float] = []  # scores of the seconds since the last one that reached the level

    def add(self, second: _Second, level: float) -> Iterator[LiveMoment]:
        """Add the next second, and yield the moment that it ends, if it ends one."""
        if second.score >= level - ROUNDING:
            if not self._count:
                self._start = second.start
            for score in [score for score in [*self._since, second.score] if math.isfinite(score)]:
                self._sum, self._count = self._sum + score, self._count + 1
            if second.score > self._highest:
                self._highest, self._best = second.score, second.start
            self._end, self._level, self._since = second.end, level, []
        elif self._count:
            self._since.append(second.score)
            if len(self._since) > self._options.join:
                yield from self.finish(second.row)

    def finish(self, row: LiveRow) -> Iterator[LiveMoment]:
        """End the current moment, and yield it if it is long enough."""
        if self._count and self._end - self._start >= self._options.min_length:
            yield LiveMoment(self._start, self._end, self._sum / self._count, self._best, self._highest, self._level, row)
        self._sum, self._count, self._highest, self._since = 0.0, 0, -math.inf, []
