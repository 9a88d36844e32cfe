"""A sound track of any container, with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebind_cli.media.audio.decoder import PREROLL_SECONDS, check_rate
from imagebind_cli.media.clock import container_clock
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.tracks import choose_track, end_seconds, frames, open_container, open_tracks, picture_seconds, start_seconds, tick

if TYPE_CHECKING:
    import av


class SoundTrack:
    """One sound track of any container, as PyAV reads it.

    Samples are placed by their time stamps; a gap is silent. In a video the sound starts and ends with the pictures.
    """

    def __init__(self, source: Source, track: int | None = None, promised: int = 0) -> None:
        self._source, self.promised = source, promised
        self._container, pictures = open_tracks(source)
        self.began = container_clock(self._container.metadata)
        try:
            if not self._container.streams.audio:
                raise ValueError("holds no sound track")
            self._chosen = choose_track(self._container.streams.audio, track, "sound")
            self.notes = self._chosen.notes
            pictures = [stream for stream in pictures if stream.codec_context]
            self._beside = choose_track(pictures, None, "video").index if pictures else None
            self._take_stream()
            self._measure()
        except Exception:
            self._container.close()
            raise

    def _reopen(self) -> None:
        self._container.close()
        self._container = open_container(self._source)
        self._take_stream()

    def _take_stream(self) -> None:
        self._stream: Any = self._container.streams[self._chosen.index]
        self._is_flac = self._stream.codec_context.name == "flac"
        if self._is_flac:  # its frames have checksums, which FFmpeg compares only if it is told to
            self._stream.codec_context.options = {"err_detect": "crccheck+explode"}

    def _measure(self) -> None:
        self._start, self.rate = Fraction(0), self._stream.rate
        first = next(self._decoded(), None)
        if first is None:
            raise ValueError("holds no sound that can be decoded")
        self.channels = first[1].shape[1]
        self.filling = 0 if self._stream.codec_context.codec.lossless else len(first[1])
        check_rate(self.rate)
        if self._beside is not None:
            pictures: Any = self._container.streams[self._beside]
            self._start = start_seconds(pictures)
            self.seconds: float | None = picture_seconds(self._container, pictures)
            self.length = round(self.seconds * self.rate)
            self.left_out = float((self._stream.duration or 0) * tick(self._stream)) - self.seconds
        else:
            self._start = Fraction(first[0], self.rate)
            self.seconds, self.left_out = None, 0.0
            self._restart(0)
            self.length = round(float(end_seconds(self._container, self._stream) - self._start) * self.rate)
        self.facts = {"format": self._container.format.name, "codec": self._stream.codec_context.name, **self._chosen.facts}
        self.seek(0)

    def seek(self, sample: int) -> None:
        """Move to a sample."""
        self._restart(sample - PREROLL_SECONDS * self.rate)
        self._blocks = self._from(sample)

    def _restart(self, sample: int) -> None:
        """Go to the packet before a sample; to the beginning, if the file cannot seek."""
        at = max(Fraction(sample, self.rate), Fraction(0)) + self._start
        try:
            self._container.seek(int(at / tick(self._stream)), stream=self._stream, backward=True)
        except OSError:
            self._reopen()

    def more(self, count: int) -> np.ndarray:
        """Return the next samples, (n, channels)."""
        blocks, wanted = [], count
        while wanted > 0 and (block := next(self._blocks, None)) is not None:
            blocks.append(block[:wanted])
            if len(block) > wanted:
                self._blocks = chain([block[wanted:]], self._blocks)
            wanted -= len(block)
        return np.concatenate(blocks) if blocks else np.empty((0, self.channels), np.float32)

    def _from(self, sample: int) -> Iterator[np.ndarray]:
        """Yield blocks (n, channels) from a sample on, without gaps, up to the length."""
        placed = False
        for number, block in self._decoded():
            at = sample if placed and abs(number - sample) < self.rate // 10 else number  # containers' clocks are coarse
            if at + len(block) <= sample:
                continue
            while sample < min(at, self.length):
                silent = min(at - sample, self.rate, self.length - sample)
                yield np.zeros((silent, self.channels), np.float32)
                sample += silent
            if sample >= self.length:
                return
            block = block[sample - at : self.length - at]  # noqa: PLW2901
            yield block
            sample += len(block)
            placed = True
        if self._is_flac and self.promised <= self.length and (self.length - sample) * 100 > self.rate:  # a file that was cut has a warning
            raise ValueError("damaged: its last frame does not match its checksum")

    def _decoded(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of each frame's first sample, by its time stamp, and its samples (n, channels); skip damaged packets, but of FLAC.

        Raises:
            ValueError: the rate changes; a frame of FLAC that is not the last does not match its checksum.
        """
        number = 0
        for frame in frames(self._container, self._stream, strict=self._is_flac):
            if frame.sample_rate != self.rate:
                raise ValueError(f"changes from {self.rate} to {frame.sample_rate} Hz")
            if frame.pts is not None:
                number = round((frame.pts * tick(self._stream) - self._start) * self.rate)
            block = _floats(frame)
            yield number, block
            number += len(block)

    def close(self) -> None:
        """Release the file."""
        self._container.close()


def _floats(frame: av.AudioFrame) -> np.ndarray:
    """Return a frame's samples (n, channels) float32 in [-1, 1]."""
    values = frame.to_ndarray()  # (channels, n), or (1, n * channels)
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    full = 2.0 ** (8 * values.dtype.itemsize - 1)
    return ((values.astype(np.float64) - (full if values.dtype.kind == "u" else 0)) / full).astype(np.float32)
