"""Lines of CSV from an accelerometer and a gyroscope as they arrive, cut into windows: those that `--hop` gives of a file with these lines."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.encoders.imu import WINDOW_SECONDS, recording_of
from imagebind_cli.errors import UsageError
from imagebind_cli.live.cutting import LATE, StreamFormat, StreamWindow, span, stated_rate
from imagebind_cli.media.motion.recordings import in_standard_units
from imagebind_cli.media.motion.signals import reach_of, resample
from imagebind_cli.options.imu import IMUOptions

LONGEST_LINE = 1 << 16  # bytes
FEWEST = 8  # readings of which the columns are told apart


class ReadingCutter:
    """Cuts lines of readings, evenly spaced, into windows of 5 seconds."""

    seconds = WINDOW_SECONDS
    heeds = frozenset({"hop", "rate", "columns", "accel", "gyro", "imu_layout", "placement"})

    def __init__(self, config: EncoderConfig, options: IMUOptions, format: StreamFormat) -> None:
        """Raises UsageError where the format is one of another stream."""
        if format.samples is not None or format.size is not None:
            raise UsageError("format and size are of sounds and videos; live readings are lines of CSV")
        self._config, self._target, self._length = config, config.shape[1] // WINDOW_SECONDS, config.shape[1]
        rate = stated_rate(format, options.rate)
        self._rate = float(rate or self._target)
        self.notes = [] if rate else [f"readings taken to be at {self._target} Hz"]
        self._options = replace(options, rate=self._rate)  # so that no clock is looked for
        self._reach = 0 if abs(self._rate / self._target - 1) < 1e-9 else reach_of(self._rate, self._target)
        self._hop = Fraction(str(options.hop or WINDOW_SECONDS))
        self._rest = b""  # of the line that is not complete yet
        self._head: bytes | None = None  # the line of names, empty where there is none
        self._lines: list[bytes] = []
        self._first = 0  # number of the first reading held
        self._number = 0  # of the next window

    def add(self, data: bytes) -> Iterator[StreamWindow]:
        """See `Cutter.add`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise ValueError(f"a line of more than {LONGEST_LINE:,} bytes; lines of CSV are needed")
        for line in lines:
            self._take(line)
            yield from self._whole(self._first + len(self._lines) - self._reach)
        self._drop()

    def end(self) -> Iterator[StreamWindow]:
        """See `Cutter.end`. A last line without its newline may be cut short, and is one only where it has all columns."""
        cut = None
        if self._rest.strip():
            if self._lines and self._rest.count(b",") < self._lines[-1].count(b","):
                cut = f"ends in the middle of a line: {self._rest[:40].decode(errors='replace')!r}"
            else:
                self._take(self._rest)
        count = self._first + len(self._lines)
        if count < 2:
            raise ValueError(cut or f"{count} reading; at least 2 are needed")
        yield from self._whole(count, self._hop * LATE)
        if not self._number:
            self.notes.append(f"a recording shorter than {WINDOW_SECONDS} s padded with zeros")
            yield self._window()
        if cut:
            raise ValueError(cut)

    def _take(self, line: bytes) -> None:
        """Add a line; the first one is the columns' names unless it is made of numbers."""
        line = line.strip()
        if not line:
            return
        if self._head is None:
            self._head = b"" if _is_numbers(line) else line
            if self._head:
                return
        self._lines.append(line)

    def _whole(self, ready: int, missing: Fraction = Fraction(0)) -> Iterator[StreamWindow]:
        """Yield the windows that a number of readings are enough for. missing: seconds that one may lack."""
        length = max(1, round(ready * self._target / self._rate)) if ready > 0 else 0
        while round(span(self._number, self._hop, WINDOW_SECONDS)[1] * self._target) <= length + missing * self._target:
            yield self._window()

    def _window(self) -> StreamWindow:
        start, end = span(self._number, self._hop, WINDOW_SECONDS)
        self._number += 1
        table = b"\n".join([self._head, *self._lines] if self._head else self._lines)
        first = round(start * self._target)
        make = partial(_readings, table, self._first, first, self._rate, self._target, self._config, self._options, self.notes)
        return StreamWindow(float(start), float(end), make)

    def _drop(self) -> None:
        """Drop the readings that no later window needs."""
        first = round(span(self._number, self._hop, WINDOW_SECONDS)[0] * self._target)
        needed = math.floor(first * self._rate / self._target) - self._reach
        count = min(needed - self._first, len(self._lines) - FEWEST)
        if count > 0:
            del self._lines[:count]
            self._first += count


def _is_numbers(line: bytes) -> bool:
    """Check whether a line of CSV is readings."""
    try:
        [float(field or "nan") for field in line.decode().split(",")]
    except ValueError:
        return False
    return True


def _readings(
    table: bytes,
    held: int,
    first: int,
    rate: float,
    target: int,
    config: EncoderConfig,
    options: IMUOptions,
    notes: list[str],
) -> Tensor:
    """Return the encoder's input (1, 6, n) of a window.

    Args:
        table: lines of CSV. held: number of the first reading in them. first: number of the window's first value at the rate `target`.
    Raises:
        ValueError: they are not readings, or some are missing.
    """
    recording = in_standard_units(recording_of(io.BytesIO(table), options))
    notes += [note for note in recording.notes if note not in notes]
    if not np.isfinite(recording.values).all():
        raise ValueError("readings are missing")
    count = max(1, round((held + len(recording.values)) * target / rate))
    stop = min(first + config.shape[1], count)
    signal = resample(recording.values.T, rate, target, first, stop, held)
    clip = F.pad(torch.from_numpy(signal.astype(np.float32)), (0, first + config.shape[1] - stop))
    mean, std = (torch.tensor(values).view(-1, 1) for values in (config.mean, config.std))
    return ((clip - mean) / std)[None]
