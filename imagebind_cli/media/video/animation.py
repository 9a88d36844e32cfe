"""Animated pictures (GIF, WebP, PNG, AVIF) as videos, by the durations of their frames, and still pictures as videos of one frame."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np

from imagebind_cli.media.decoding import Source, check_file, decoding, first_bytes
from imagebind_cli.media.image import MAX_PIXELS, identify, upright
from imagebind_cli.media.picture_kinds import AVIF, HEAD, HEIF
from imagebind_cli.media.video.frame_durations import frame_durations
from imagebind_cli.media.video.reading_order import read_clips
from imagebind_cli.media.windows import seen

# Pictures that Pillow reads wherever they are given: of some, FFmpeg shows the first tile, layer or preview, and damaged profiles crash it.
PICTURE_SIGNATURES = re.compile(rb"GIF8|RIFF....WEBP|\x89PNG|II[*+]\0|MM\0[*+]|8BPS|" + AVIF.pattern + b"|" + HEIF.pattern, re.DOTALL)
ANIMATED = "GIF", "WEBP", "PNG", "AVIF"  # pictures that follow one another in time; those of other formats are pages, layers or thumbnails
NO_DURATION = 100  # milliseconds of a frame that says 0, as in browsers
# Every frame is drawn on the whole canvas, however little of it changes: a file of 2 MB may ask for hours of drawing.
MAX_FRAME_PIXELS = 50_000_000  # of an animation or a video; 8K has 33 million
MAX_FRAMES = 200_000
MAX_DRAWN_PIXELS = 4_000_000_000  # of all frames together: half a minute of work


class Animation:
    """An open animated picture, with the interface of `Video`. still: only the first of several pictures is read."""

    notes = ()
    began = None

    def __init__(self, source: Source, still: bool = False) -> None:
        check_file(source)
        self._still, self._kind = still, "picture" if still else "animation"
        with decoding(self._kind):
            self._image = identify(source, moving=True)
            self.pixels = self._image.width * self._image.height
            most = MAX_PIXELS if self._count == 1 else MAX_FRAME_PIXELS
            if self.pixels > most:
                raise ValueError(f"{self._image.width} x {self._image.height} pixels; at most {most:,} are unpacked")
            if self._count > MAX_FRAMES or self._count * self.pixels > MAX_DRAWN_PIXELS:
                size = f"{self._count:,} frames of {self._image.width} x {self._image.height} pixels"
                raise ValueError(f"{size} take too long to draw; make it a video (ffmpeg -i IN OUT.mp4)")
            self._ends = [Fraction(end) / 1000 for end in accumulate(self._durations(source))]
        self._starts = [Fraction(0), *self._ends[:-1]]
        self.duration = float(self._ends[-1])

    @property
    def _count(self) -> int:
        return 1 if self._still else int(getattr(self._image, "n_frames", 1))

    def _durations(self, source: Source) -> list[int]:
        """Return the milliseconds of each frame; those of a single one mean nothing."""
        if self._count == 1:
            return [NO_DURATION]
        durations = frame_durations(source)
        if len(durations) != self._count:
            durations = [self._milliseconds(number) for number in range(self._count)]
        return [duration or NO_DURATION for duration in durations]

    def _milliseconds(self, number: int) -> int:
        self._image.seek(number)
        self._image.load()  # a WebP picture knows its duration only then
        return round(self._image.info.get("duration") or 0)

    def __enter__(self) -> Animation:
        return self

    def __exit__(self, *exc: object) -> None:
        self._image.close()

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the file."""
        lengths = {end - start for start, end in zip(self._starts, self._ends, strict=True)}
        return {
            "codec": (self._image.format or "").lower(),
            "size": list(self._image.size),
            "fps": round(self._count / self.duration, 3),
            "variable_rate": len(lengths) > 1,
            "seconds": round(self.duration, 3),
            "frames": self._count,
            "rotation": 0,
            "mirrored": False,
            "pixel_aspect": "1:1",
        }

    def starts(self) -> list[Fraction]:
        """See `Video.starts`."""
        return self._starts

    def clips(self, spans: Sequence[tuple[Fraction, Fraction]], count: int) -> Iterator[list[np.ndarray]]:
        """See `Video.clips`."""
        with decoding(self._kind):
            yield from read_clips([seen(self._starts, start, end, count) for start, end in spans], self._frame)

    def _frame(self, number: int) -> np.ndarray:
        self._image.seek(number)
        return np.asarray(upright(self._image.copy()))


def is_picture(source: Source) -> bool:
    """Check whether a file is a picture, moving or still, as its first bytes say; JPEG does not count, as a video may be made of JPEGs."""
    return PICTURE_SIGNATURES.match(first_bytes(source, HEAD)) is not None


@decoding("animation")
def is_animation(source: Source) -> bool:
    """Check whether a file is a picture of several frames.

    Raises:
        OSError, ValueError: it is damaged, or promises too many pixels.
    """
    check_file(source)
    if not is_picture(source):
        return False
    with identify(source, moving=True) as image:
        return image.format in ANIMATED and bool(getattr(image, "is_animated", False))
