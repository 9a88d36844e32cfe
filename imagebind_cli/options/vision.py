"""The options of pictures and videos."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from imagebind_cli.errors import OptionError
from imagebind_cli.options import CLIPS, FOR_VIDEOS, HOP, PER_ITEM, TRACK, choice
from imagebind_cli.options.drawn import PINNED, RECENT, RESIZE, DrawnOptions

ALL_FRAMES, HIGHEST_RATE = "all", 1000  # what `adjacent` takes in place of a rate, and the highest one in Hz
EXACT, FAST = "exact", "fast"


@dataclass(frozen=True)
class VisionOptions(DrawnOptions):
    """Pictures and videos."""

    clips: int | None = choice(None, CLIPS, minimum=1, only=FOR_VIDEOS, windows=True)
    hop: float | None = choice(None, HOP, minimum=0.01, only=FOR_VIDEOS, windows=True)
    crops: str = choice(
        "3",
        "Views of each clip: both ends and middle, as published, or the middle alone.",
        choices=("3", "1"),
        only=FOR_VIDEOS,
        windows=True,
    )
    adjacent: str | None = choice(
        None,
        "Clips of two adjacent frames instead of windows: `all`, or at this rate in Hz.",
        only=FOR_VIDEOS,
        windows=True,
    )
    fps: float | None = choice(
        None,
        "Read each given folder as one video, its pictures as frames at this rate in Hz.",
        minimum=0.001,
        only=FOR_VIDEOS,
    )
    track: int | None = choice(None, TRACK, minimum=1, only=FOR_VIDEOS)
    resize: str = choice(PINNED, RESIZE, choices=(PINNED, RECENT))
    decode: str = choice(
        EXACT,
        "Exact, or fast: JPEGs at a smaller scale, only key frames of videos.",
        choices=(EXACT, FAST),
        windows=True,
    )
    moment: Any = field(default=None, metadata=PER_ITEM)  # media.windows.Moment, in place of windows that cover the item
    stretch: Any = field(default=None, metadata=PER_ITEM)  # (start, end) in seconds: the part of the item that is read; see sources.Stretch

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adjacent is not None and self.decode == FAST:
            raise OptionError("adjacent needs neighbouring frames, and decode fast reads key frames far apart; leave one out", self.names())
        with suppress(ValueError):
            if self.adjacent in (None, ALL_FRAMES) or 0 < float(self.adjacent) <= HIGHEST_RATE:
                return
        raise OptionError(f"adjacent is {self.adjacent!r}; {ALL_FRAMES} is needed, or a rate of at most {HIGHEST_RATE} Hz", self.names())
