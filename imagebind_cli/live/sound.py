"""Raw samples of a sound as they arrive, cut into windows: the same numbers as `--hop` gives of a file with this sound."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.encoders.audio import FRAME, RATE, WINDOW_SECONDS, heard_rows, spectrograms
from imagebind_cli.errors import UsageError
from imagebind_cli.live.cutting import LATE, StreamFormat, StreamWindow, span
from imagebind_cli.media.audio.sound import check_numbers
from imagebind_cli.media.resampling import Resampled
from imagebind_cli.options.audio import AudioOptions

FORMATS = {"u8": ("u1", 128), "s16le": ("<i2", 0), "s32le": ("<i4", 0), "f32le": ("<f4", 0)}  # a number's type, and which is silence
ENDLESS = 1 << 56  # samples
MOST_CHANNELS = 64


class SoundCutter:
    """Cuts raw samples into windows of 2 seconds."""

    seconds = WINDOW_SECONDS
    heeds = frozenset({"hop", "channels"})

    def __init__(self, config: EncoderConfig, options: AudioOptions, format: StreamFormat) -> None:
        """Raises UsageError where the format lacks something, or is unknown."""
        name, _, channels = (format.samples or "").lower().replace("_", "").partition(":")
        if format.samples is None:
            raise UsageError(f"format: that of a live sound's samples is needed; choose from {', '.join(FORMATS)}; s16le:2 is stereo")
        if name not in FORMATS:
            raise UsageError(f"unknown format {format.samples!r} of a live sound; choose from {', '.join(FORMATS)}; s16le:2 is stereo")
        if channels and not (channels.isdecimal() and 1 <= int(channels) <= MOST_CHANNELS):
            raise UsageError(f"format {format.samples!r}: {channels!r} is not a number of channels; s16le:2 is stereo")
        if format.rate is None or format.rate != int(format.rate) or not 1000 <= format.rate <= 768_000:
            raise UsageError(f"rate {format.rate}: the rate of a live sound is needed, a whole number of Hz from 1,000 to 768,000")
        self.notes: list[str] = []
        self._config, self._channels, self._heard = config, int(channels or 1), options.channels
        self._type, self._silence = np.dtype(FORMATS[name][0]), FORMATS[name][1]
        self._bytes = self._type.itemsize * self._channels  # of a sample of all channels
        self._hop = Fraction(str(options.hop or WINDOW_SECONDS))
        self._rate = int(format.rate)
        self._data, self._at = bytearray(), 0  # what is held, and the number of its first sample
        self._received = 0  # whole samples
        self._resampled = Resampled(self._rows, ENDLESS, self._rate, RATE)
        self._held, self._held_at = torch.empty(0, 0), 0  # samples at 16 kHz, which windows share
        self._number = 0  # of the next window

    def add(self, data: bytes) -> Iterator[StreamWindow]:
        """See `Cutter.add`."""
        self._data += data
        self._received = self._at + len(self._data) // self._bytes
        yield from self._whole(self._resampled.final(self._received))
        self._drop()

    def end(self) -> Iterator[StreamWindow]:
        """See `Cutter.end`."""
        length = -(-self._received * RATE // self._rate)
        if length < FRAME:
            raise ValueError(f"{1000 * self._received / self._rate:.1f} ms of sound; at least {1000 * FRAME // RATE} ms are needed")
        yield from self._whole(length, int(self._hop * LATE * RATE))
        if not self._number:
            self.notes.append(f"a sound shorter than {WINDOW_SECONDS} s padded with zeros")
            yield self._window(length)
        if left := len(self._data) % self._bytes:
            raise ValueError(f"ends in the middle of a sample: {left} of its {self._bytes} bytes are there")

    def _whole(self, ready: int, missing: int = 0) -> Iterator[StreamWindow]:
        """Yield the windows that end before a sample at 16 kHz. missing: samples that one may lack."""
        while int(span(self._number, self._hop, WINDOW_SECONDS)[1] * RATE) <= ready + missing:
            yield self._window(ready)

    def _window(self, ready: int) -> StreamWindow:
        """Return the next window, which ends at the latest before sample `ready` at 16 kHz."""
        start, end = span(self._number, self._hop, WINDOW_SECONDS)
        first, stop = int(start * RATE), min(int(end * RATE), ready)
        reached = self._held_at + self._held.shape[1]
        self._resampled.forget()
        fresh = self._resampled.read(max(first, reached), max(stop, reached))
        self._held = torch.cat([self._held[:, first - self._held_at :], fresh], dim=1) if first < reached else fresh
        self._held_at = first
        self._number += 1
        return StreamWindow(float(start), float(end), partial(_spectrogram, self._held, self._config))

    def _drop(self) -> None:
        """Drop what no later window needs."""
        first = int(span(self._number, self._hop, WINDOW_SECONDS)[0] * RATE)
        needed = self._resampled.first_needed(max(first, self._held_at + self._held.shape[1]))
        count = min(needed, self._received) - self._at
        if count > 0:
            del self._data[: count * self._bytes]
            self._at += count

    def _rows(self, start: int, stop: int) -> Tensor:
        """Return samples [start, stop) as they are used (`heard_rows`), zeros past the last."""
        here = slice((start - self._at) * self._bytes, (min(stop, self._received) - self._at) * self._bytes)
        numbers = np.frombuffer(bytes(self._data[here]), self._type).reshape(-1, self._channels)
        samples = np.zeros((self._channels, stop - start), np.float32)
        samples[:, : len(numbers)] = numbers.T
        if self._type.kind != "f":
            samples[:, : len(numbers)] -= self._silence
            samples *= np.float32(2.0 ** (1 - 8 * self._type.itemsize))
        return heard_rows(samples, self._heard)


def _spectrogram(rows: Tensor, config: EncoderConfig) -> Tensor:
    """Return the encoder's input (1, 1, bins, frames) of a window's rows (1 or 2, samples), less the mean of all channels.

    Raises:
        ValueError: a sample is not a number.
    """
    check_numbers(rows.numpy())
    return spectrograms([(rows - rows[-1].mean())[0]], config)
