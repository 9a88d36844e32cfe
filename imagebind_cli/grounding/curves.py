"""Scores of a recording over time: a number for each second, and the runs of seconds that stand out. numpy alone.

Dimensions: w windows, s seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from imagebind_cli.errors import UsageError

ROUNDING = 1e-9  # scores this close to the threshold reach it, so that a recording whose seconds all score alike is one moment


@dataclass(frozen=True)
class MomentOptions:
    """The definition of a moment.

    threshold: the least score of its seconds; by default (maximum + median) / 2 of the recording. min_length: its least seconds.
    join: seconds between two runs up to which they are one moment. k: moments for each query, of all recordings together.

    Raises:
        UsageError: a length below 0, or no moments.
    """

    threshold: float | None = None
    min_length: float = 1.0
    join: float = 0.0
    k: int = 10

    def __post_init__(self) -> None:
        if not (self.min_length >= 0 and self.join >= 0 and self.k >= 1):
            raise UsageError("min-length and join are seconds from 0 on, and k is at least 1")


@dataclass(frozen=True)
class ScoreCurve:
    """The scores of a recording's seconds: scores[i] (s,) is that of start + i to start + i + 1 s, NaN where no window is. end: of the last one."""

    start: float
    end: float
    scores: np.ndarray

    def times(self) -> np.ndarray:
        """Return the beginnings of the seconds and the end of the last one, (s + 1,)."""
        return np.append(self.start + np.arange(len(self.scores)), self.end)

    def level(self, options: MomentOptions) -> float:
        """Return the score that the seconds of a moment reach."""
        if options.threshold is not None:
            return options.threshold
        known = self.scores[np.isfinite(self.scores)]
        return float((known.max() + np.median(known)) / 2) if len(known) else math.inf


def score_curve(spans: np.ndarray, scores: np.ndarray) -> ScoreCurve:
    """Return the score of each second from that of windows: the mean of the windows over its middle.

    Args:
        spans: start and end of each window in seconds, (w, 2), in any order, w at least 1. scores: (w,).
    """
    start, end = float(spans[:, 0].min()), float(spans[:, 1].max())
    count = max(1, math.ceil(round(end - start, 6)))
    middles = start + np.arange(count) + 0.5
    middles[-1] = (start + count - 1 + end) / 2  # of what there is of it
    first, stop = (np.searchsorted(middles, spans[:, side]) for side in (0, 1))
    over, total = np.zeros(count + 1), np.zeros(count + 1)
    for place, sign in ((first, 1.0), (stop, -1.0)):
        np.add.at(over, place, sign)
        np.add.at(total, place, sign * scores)
    over, total = over.cumsum()[:-1], total.cumsum()[:-1]
    return ScoreCurve(start, end, np.divide(total, over, out=np.full(count, np.nan), where=over > 0))


def find_runs(curve: ScoreCurve, options: MomentOptions) -> list[tuple[int, int]]:
    """Return the runs of seconds that reach the level, as the numbers of their first second and of the one after their last, in order."""
    reached = curve.scores >= curve.level(options) - ROUNDING  # false where there is no score
    edges = np.flatnonzero(np.diff(np.concatenate([[False], reached, [False]]).astype(np.int8)))
    runs: list[tuple[int, int]] = []
    for first, stop in edges.reshape(-1, 2).tolist():
        if runs and first - runs[-1][1] <= options.join:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((first, stop))
    times = curve.times()
    return [(first, stop) for first, stop in runs if times[stop] - times[first] >= options.min_length]


def relative_scores(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return cosines of windows with a query (w,) less the largest of those with other names (names, w): above 0 the query is nearest."""
    difference: np.ndarray = scores - others.max(axis=0)
    return difference
