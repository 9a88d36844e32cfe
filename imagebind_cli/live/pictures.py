"""Raw pictures of a video as they arrive, cut into windows: the same clips as `--hop` gives of a file with these pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.encoders.vision import CLIP_SECONDS, PIXELS_AT_ONCE, clip_tensor
from imagebind_cli.errors import UsageError
from imagebind_cli.live.cutting import LATE, StreamFormat, StreamWindow, span, stated_rate
from imagebind_cli.media.windows import seen
from imagebind_cli.options.vision import VisionOptions

FORMAT = "rawvideo"


class PictureCutter:
    """Cuts raw pictures, RGB of 8 bits, into windows of 2 seconds. It holds the pictures of one window."""

    seconds = CLIP_SECONDS
    heeds = frozenset({"hop", "crops", "fps"})

    def __init__(self, config: EncoderConfig, options: VisionOptions, format: StreamFormat) -> None:
        """Raises UsageError where the format lacks something, or is another."""
        if format.samples not in (None, FORMAT):
            raise UsageError(f"unknown format {format.samples!r} of a live video; it is {FORMAT}, RGB of 8 bits")
        if format.size is None or format.size[0] * format.size[1] > PIXELS_AT_ONCE:
            raise UsageError("size: width and height of a live video's pictures are needed, as in 640x480")
        rate = stated_rate(format, options.fps)
        if rate is None:
            raise UsageError("fps: how many pictures a second a live video has is needed")
        self.notes: list[str] = []
        self._config, self._crops = config, int(options.crops)
        self._width, self._height = format.size
        self._bytes = 3 * self._width * self._height
        self._hop = Fraction(str(options.hop or CLIP_SECONDS))
        self._rate = Fraction(rate)  # the float's own value, as where frames are read from an array
        self._data = bytearray()  # of the picture that is not complete yet
        self._pictures: list[np.ndarray] = []
        self._first = 0  # number of the first one held
        self._number = 0  # of the next window

    def add(self, data: bytes) -> Iterator[StreamWindow]:
        """See `Cutter.add`."""
        self._data += data
        whole = len(self._data) // self._bytes
        for start in range(0, whole * self._bytes, self._bytes):
            picture = np.frombuffer(bytes(self._data[start : start + self._bytes]), np.uint8)
            self._pictures.append(picture.reshape(self._height, self._width, 3))
            yield from self._whole(Fraction(0))
            self._drop()
        del self._data[: whole * self._bytes]

    def end(self) -> Iterator[StreamWindow]:
        """See `Cutter.end`."""
        if not self._first + len(self._pictures):
            raise ValueError(f"ends before its first picture is whole: {len(self._data):,} of its {self._bytes:,} bytes are there")
        yield from self._whole(self._hop * LATE)
        if not self._number:
            self.notes.append(f"a video shorter than {CLIP_SECONDS} s is one window")
            yield self._window()
        if self._data:
            raise ValueError(f"ends in the middle of a picture: {len(self._data):,} of its {self._bytes:,} bytes are there")

    def _whole(self, missing: Fraction) -> Iterator[StreamWindow]:
        """Yield the windows that end with the last picture held. missing: seconds that one may lack."""
        while span(self._number, self._hop, CLIP_SECONDS)[1] * self._rate <= self._first + len(self._pictures) + missing * self._rate:
            yield self._window()

    def _window(self) -> StreamWindow:
        start, end = span(self._number, self._hop, CLIP_SECONDS)
        numbers = range(self._first + len(self._pictures))
        chosen = [
            self._pictures[number - self._first] for number in seen(numbers, start * self._rate, end * self._rate, self._config.shape[1])
        ]
        self._number += 1
        return StreamWindow(float(start), float(end), partial(_views, chosen, self._config, self._crops))

    def _drop(self) -> None:
        """Drop the pictures before the next window, but for the one that may still be on screen when it starts."""
        start = span(self._number, self._hop, CLIP_SECONDS)[0] * self._rate
        count = min(int(start) - self._first, len(self._pictures) - 1)
        if count > 0:
            del self._pictures[:count]
            self._first += count


def _views(pictures: Sequence[np.ndarray], config: EncoderConfig, crops: int) -> Tensor:
    """Return the views (crops, 3, t, h, w) of a window's pictures (h, w, 3)."""
    return clip_tensor(torch.from_numpy(np.stack(pictures)), config, crops)
