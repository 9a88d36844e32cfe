"""Clips of a video by time, decoded with PyAV from the nearest key frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from imagebind_cli.media.decoding import Source, check_file, decoding

if TYPE_CHECKING:
    import av

MAX_PIXELS = 50_000_000
"""Per frame; 8K is 33 million."""


class Video:
    """An open video. Use it as a context manager.

    duration: seconds from the first frame to the end of the last one.
    """

    def __init__(self, source: Source) -> None:
        import av

        check_file(source)
        with decoding("video"):
            self._container = av.open(source, mode="r")
            if not self._container.streams.video:
                self._container.close()
                raise ValueError("holds no picture track")
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "AUTO"
            if self._stream.width * self._stream.height > MAX_PIXELS:
                raise ValueError(f"{self._stream.width} x {self._stream.height} pixels a frame; at most {MAX_PIXELS:,} are unpacked")
            self._tick = float(self._stream.time_base or Fraction(1, 1_000_000))  # seconds
            self._start = (self._stream.start_time or 0) * self._tick
            self.duration = self._measure()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.close()

    def _measure(self) -> float:
        if self._stream.duration:
            return self._stream.duration * self._tick
        if self._container.duration:
            return self._container.duration / 1_000_000 - max(0.0, self._start)
        last = max((self._time(packet.pts) for packet in self._container.demux(self._stream) if packet.pts is not None), default=0.0)
        self._container.seek(0)
        return last + self._frame_seconds()

    def clips(self, spans: Iterable[tuple[Fraction, Fraction]], count: int) -> Iterator[list[np.ndarray]]:
        """For each span in seconds, `count` frames (h, w, 3) uint8, upright, evenly spaced from its first frame to its last.

        A span's frames are those that start in [start, end). A span past the end takes what there is; the last frame is repeated
        where there are fewer than `count`.
        """
        for start, end in spans:
            yield self._clip(float(start), float(end), count)

    def _clip(self, start: float, end: float, count: int) -> list[np.ndarray]:
        with decoding("video"):
            stamps = self._stamps(start, end)
            if not stamps:
                raise ValueError(f"no frame between {start:g} s and {end:g} s")
            # The published sampler: numbers linspace(0, n - 1, count) of the n frames in the span.
            wanted = [stamps[int(i)] for i in np.linspace(0, len(stamps) - 1, count)]
            found: dict[int, np.ndarray] = {}
            self._seek(start)
            for frame in self._container.decode(self._stream):
                if frame.pts in wanted:
                    found[frame.pts] = _upright(frame)
                if frame.pts is not None and frame.pts >= wanted[-1]:
                    break
            if not found:
                raise ValueError(f"no frame between {start:g} s and {end:g} s can be decoded")
        return [found[min(found, key=lambda stamp: abs(stamp - want))] for want in wanted]

    def _stamps(self, start: float, end: float) -> list[int]:
        """Time stamps of the frames in [start, end), in display order, without decoding any."""
        half = self._frame_seconds() / 2  # stamps are rounded to the container's clock
        stamps = []
        self._seek(start)
        for packet in self._container.demux(self._stream):
            if packet.pts is not None and start - half <= self._time(packet.pts) < end - half:
                stamps.append(packet.pts)
            if packet.dts is not None and self._time(packet.dts) >= end:  # no later packet is shown before its dts
                break
        return sorted(stamps)

    def _seek(self, seconds: float) -> None:
        self._container.seek(int((seconds + self._start) / self._tick), stream=self._stream, backward=True)

    def _time(self, pts: int) -> float:
        return pts * self._tick - self._start

    def _frame_seconds(self) -> float:
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(1 / rate) if rate else 0.04


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """(h, w, 3) uint8, turned as the file's display matrix asks."""
    picture = frame.to_ndarray(format="rgb24")
    quarters = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarters)) if quarters else picture
