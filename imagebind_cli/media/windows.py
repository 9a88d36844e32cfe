"""Where the windows of a long item lie in time.

ImageBind appendix B.1: as many windows as cover the input, evenly spaced; the released code: a fixed number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction


def windows(duration: float, length: float, clips: int | None = None) -> list[tuple[Fraction, Fraction]]:
    """Start and end, in seconds, of evenly spaced windows from the first to the last second of an item.

    Args:
        duration: of the item, in seconds.
        length: of one window, in seconds. An item shorter than this gets windows that reach past its end.
        clips: how many; None for `ceil(duration / length)`, the fewest that leave nothing out.

    The times are exact rationals, as the published sampler's are, and must stay so until a sample or frame is counted: 29.65 s
    as a fraction of the float 61.3 lies a hair before sample 474,400 at 16 kHz, as a float right on it. `clips=3` (audio) and
    `clips=5` (video) give the released code's windows.
    """
    if clips is None:
        clips = max(1, math.ceil(round(duration / length, 6)))  # 4.0000000001 s is two windows of 2 s
    step = Fraction(max(duration - length, 0)) / max(clips - 1, 1)
    return [(step * i, step * i + Fraction(length)) for i in range(clips)]


def seconds(spans: Iterable[tuple[Fraction, Fraction]]) -> list[tuple[float, float] | None]:
    """The same windows as plain numbers, for outputs."""
    return [(float(start), float(end)) for start, end in spans]
