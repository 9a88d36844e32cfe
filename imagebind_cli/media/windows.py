"""The windows of a long item in time, and which frames belong to one.

ImageBind appendix B.1: as many windows as cover the input, evenly spaced; the released code: a fixed number.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Times = tuple[float | None, float | None]  # start and end of a stretch of an item in seconds; None for its beginning, and for its end

REPORTED_SECONDS = 0.05  # a stretch that reaches further than this past its item is reported

MAX_WINDOWS = 1_000_000  # an item whose header claims more (23 days of 2-second windows) is refused

TOUCHING_SECONDS = 0.001  # a window that begins this soon after another's end is its neighbour


@dataclass(frozen=True)
class Moment:
    """One window anywhere, as training takes it. place: its position in the time to spare, 0 to 1.

    start, end: seconds of the item that contain it, for a pair that is a stretch of a long recording; from its first to its last if not given.
    """

    place: float
    start: float | None = None
    end: float | None = None

    def since(self, time: float) -> Moment:
        """Return the same moment on a clock that starts at a time."""
        return Moment(self.place, None if self.start is None else self.start - time, None if self.end is None else self.end - time)

    def window(self, duration: float, length: float) -> tuple[Fraction, Fraction]:
        """Return start and end in seconds. A stretch shorter than the window gets one that reaches past its end.

        Raises:
            ValueError: the stretch is outside the item.
        """
        start, end = self.start or 0.0, duration if self.end is None else min(self.end, duration)
        if end <= max(start, 0) and duration > 0:
            raise ValueError(f"nothing between {start:g} and {self.end or duration:g} s; it lasts {duration:g} s")
        begin = Fraction(start) + Fraction(self.place) * max(Fraction(end) - Fraction(start) - Fraction(length), Fraction(0))
        return begin, begin + Fraction(length)


def windows(
    duration: float, length: float, clips: int | None = None, moment: Moment | None = None, hop: float | None = None
) -> list[tuple[Fraction, Fraction]]:
    """Return start and end, in seconds, of evenly spaced windows from the first to the last second of an item.

    Args:
        duration: of the item, in seconds.
        length: of one window, in seconds. An item shorter than this gets windows that reach past its end.
        clips: how many; None for `ceil(duration / length)`, the fewest that leave nothing out.
        moment: one window there, in place of them.
        hop: seconds from the start of one window to that of the next, in place of even spacing; no window but the first reaches past the end.

    The times are exact rationals, as the published sampler's are, and must stay so until a sample or frame is counted: 29.65 s
    as a fraction of the float 61.3 is just before sample 474,400 at 16 kHz, as a float exactly on it. `clips=3` (audio) and
    `clips=5` (video) give the released code's windows.

    Raises:
        ValueError: no finite duration, or more than `MAX_WINDOWS`.
    """
    if not 0 <= duration / length <= MAX_WINDOWS:
        raise ValueError(f"said to last {duration:g} s; at most {MAX_WINDOWS * length:,.0f} s are read")
    if moment is not None:
        return [moment.window(duration, length)]
    if hop is not None:
        return _hopping(duration, length, Fraction(str(hop)))
    if clips is None:
        clips = max(1, math.ceil(round(duration / length, 6)))  # 4.0000000001 s is two windows of 2 s
    step = Fraction(max(duration - length, 0)) / max(clips - 1, 1)
    return [(step * i, step * i + Fraction(length)) for i in range(clips)]


def _hopping(duration: float, length: float, hop: Fraction) -> list[tuple[Fraction, Fraction]]:
    """Return windows `hop` seconds apart. A millionth of a hop is not missed at the end: that of a float is not that of a sample."""
    count = max(0, math.floor((Fraction(round(duration, 6)) - Fraction(length)) / hop + Fraction(1, 10**6))) + 1
    if count > MAX_WINDOWS:
        raise ValueError(f"{count:,} windows in {duration:g} s at a hop of {float(hop):g} s; at most {MAX_WINDOWS:,} are read")
    return [(hop * i, hop * i + Fraction(length)) for i in range(count)]


def adjacent(
    starts: Sequence[Fraction], begin: Fraction, end: Fraction, rate: Fraction | None
) -> tuple[list[tuple[Fraction, Fraction]], list[tuple[Fraction, Fraction]]]:
    """Return the clips of two adjacent frames in [begin, end): their seconds, and stretches whose first and last frames are the clips'.

    Args:
        starts: when each frame starts, sorted, in seconds.
        rate: how many frames are taken in a second; None for all. As by FFmpeg's filter `fps`: of each step, the last frame that starts in
            its first half or before, and as many steps as the duration has when rounded.
    Raises:
        ValueError: more than `MAX_WINDOWS`.
    """
    if rate is None:
        first = max(bisect_right(starts, begin) - 1, 0)  # the one still on screen
        taken = list(range(first, max(bisect_left(starts, end), first + 1)))
        edges = [max(starts[number], begin) for number in taken]
    else:
        count = max(1, math.floor((end - begin) * rate + Fraction(1, 2)))
        if count > MAX_WINDOWS:
            raise ValueError(f"{count:,} frames at {float(rate):g} Hz; at most {MAX_WINDOWS:,} are read")
        taken = [max(bisect_left(starts, begin + (step + Fraction(1, 2)) / rate) - 1, 0) for step in range(count)]
        edges = [begin + step / rate for step in range(count)]
    edges += [end, end]
    pairs = list(zip(taken, taken[1:], strict=False)) or [(taken[0], taken[0])]
    spans = [(edges[number], edges[number + 2]) for number in range(len(pairs))]
    return spans, [(starts[one], _before_next(starts, other)) for one, other in pairs]


def _before_next(starts: Sequence[Fraction], number: int) -> Fraction:
    return (starts[number] + starts[number + 1]) / 2 if number + 1 < len(starts) else starts[number] + 1


def seconds(spans: Iterable[tuple[Fraction, Fraction]], origin: Fraction = Fraction(0)) -> list[tuple[float, float] | None]:
    """Return windows as plain numbers, for outputs. origin: what they count from, on the file's clock."""
    return [(float(start + origin), float(end + origin)) for start, end in spans]


def cut(times: Times, duration: float, first: float = 0.0) -> tuple[Fraction, Fraction, tuple[str, ...]]:
    """Return the part of a stretch that an item has which lasts from `first` for `duration`: its start and end, and what is lacking, in words.

    Raises:
        ValueError: the item has nothing of it.
    """
    if not 0 <= duration < math.inf:
        raise ValueError(f"said to last {duration:g} s")
    start, end = times
    last = first + duration
    low, high = first if start is None else start, last if end is None else end
    if low >= last or high <= first:
        asked = (
            f"before {high:.10g} s"
            if start is None
            else f"from {low:.10g} s on"
            if end is None
            else f"between {low:.10g} and {high:.10g} s"
        )
        raise ValueError(f"nothing {asked}; it lasts from {first:.10g} to {last:.10g} s")
    missing = low < first - REPORTED_SECONDS or high > last + REPORTED_SECONDS
    lacks = (f"only {max(low, first):.10g} to {min(high, last):.10g} s of {low:.10g} to {high:.10g} s are there",) if missing else ()
    # The decimals as written: the float 14.4 is just past the frame that starts there.
    return Fraction(str(max(low, first))), Fraction(str(min(high, last))), lacks


def within(spans: Iterable[Sequence[float] | None], times: Times) -> list[tuple[float, float]]:
    """Return the distinct windows whose middle is in a stretch, in order; in one too short for any, those that begin in it.

    Raises:
        ValueError: there is none.
    """
    low, high = (bound if time is None else time for time, bound in zip(times, (-math.inf, math.inf), strict=True))
    different = list(dict.fromkeys((span[0], span[1]) for span in spans if span is not None))
    inside = [span for span in different if low <= (span[0] + span[1]) / 2 <= high] or [span for span in different if low <= span[0] < high]
    if not inside:
        raise ValueError(f"no prepared window between {low:g} and {high:g} s")
    return inside


def seen(times: Sequence[Any], start: Any, end: Any, count: int) -> list[int]:
    """Return the numbers of `count` frames for the window [start, end): evenly spaced from the first to the last frame that starts in it.

    Where none starts, the one that is still on screen; [] before the first. As the published sampler: linspace(0, n - 1, count), cut to
    integers. times: when each frame starts, sorted.
    """
    first, stop = bisect_left(times, start), bisect_left(times, end)
    if first == stop:
        return [first - 1] * count if first else []
    return [first + (stop - 1 - first) * i // max(count - 1, 1) for i in range(count)]
