"""Where the windows of a long item lie in time, and which frames are seen in one.

ImageBind appendix B.1: as many windows as cover the input, evenly spaced; the released code: a fixed number.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

MAX_WINDOWS = 1_000_000
"""An item whose header promises more (23 days of 2-second windows) is refused."""


@dataclass(frozen=True)
class Moment:
    """One window anywhere, as training takes it. place: its share of the time to spare, 0 to 1.

    start, end: seconds of the item it lies within, for a pair that is a stretch of a long recording; from its first to its last if not given.
    """

    place: float
    start: float | None = None
    end: float | None = None

    def since(self, time: float) -> Moment:
        """The same on a clock that starts at a time."""
        return Moment(self.place, None if self.start is None else self.start - time, None if self.end is None else self.end - time)

    def window(self, duration: float, length: float) -> tuple[Fraction, Fraction]:
        """Start and end in seconds. A stretch shorter than the window gets one that reaches past its end.

        Raises:
            ValueError: the stretch lies outside the item.
        """
        start, end = self.start or 0.0, duration if self.end is None else min(self.end, duration)
        if end <= max(start, 0) and duration > 0:
            raise ValueError(f"nothing between {start:g} and {self.end or duration:g} s; it lasts {duration:g} s")
        begin = Fraction(start) + Fraction(self.place) * max(Fraction(end) - Fraction(start) - Fraction(length), Fraction(0))
        return begin, begin + Fraction(length)


def windows(duration: float, length: float, clips: int | None = None, moment: Moment | None = None) -> list[tuple[Fraction, Fraction]]:
    """Start and end, in seconds, of evenly spaced windows from the first to the last second of an item.

    Args:
        duration: of the item, in seconds.
        length: of one window, in seconds. An item shorter than this gets windows that reach past its end.
        clips: how many; None for `ceil(duration / length)`, the fewest that leave nothing out.
        moment: one window there, in place of them.

    The times are exact rationals, as the published sampler's are, and must stay so until a sample or frame is counted: 29.65 s
    as a fraction of the float 61.3 lies a hair before sample 474,400 at 16 kHz, as a float right on it. `clips=3` (audio) and
    `clips=5` (video) give the released code's windows.

    Raises:
        ValueError: no finite duration, or more than `MAX_WINDOWS`.
    """
    if not 0 <= duration / length <= MAX_WINDOWS:
        raise ValueError(f"said to last {duration:g} s; at most {MAX_WINDOWS * length:,.0f} s are read")
    if moment is not None:
        return [moment.window(duration, length)]
    if clips is None:
        clips = max(1, math.ceil(round(duration / length, 6)))  # 4.0000000001 s is two windows of 2 s
    step = Fraction(max(duration - length, 0)) / max(clips - 1, 1)
    return [(step * i, step * i + Fraction(length)) for i in range(clips)]


def seconds(spans: Iterable[tuple[Fraction, Fraction]]) -> list[tuple[float, float] | None]:
    """The same windows as plain numbers, for outputs."""
    return [(float(start), float(end)) for start, end in spans]


def seen(times: Sequence[Any], start: Any, end: Any, count: int) -> list[int]:
    """Numbers of `count` frames for the window [start, end): evenly spaced from the first to the last frame that starts in it.

    Where none starts, the one that is still on screen; [] before the first. As the published sampler: linspace(0, n - 1, count), cut to
    integers. times: when each frame starts, sorted.
    """
    first, stop = bisect_left(times, start), bisect_left(times, end)
    if first == stop:
        return [first - 1] * count if first else []
    return [first + (stop - 1 - first) * i // max(count - 1, 1) for i in range(count)]
