"""IMU: accelerometer and gyroscope in 5-second windows of 6 x 2000 values (ImageBind section 3.3 and appendix B.1)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig, Modality, Sample
from imagebind_cli.errors import UserError
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.motion.columns import CHANNELS
from imagebind_cli.media.motion.recordings import Recording, in_standard_units, read_recording
from imagebind_cli.media.motion.signals import Gap, gaps, resample, slow_part, to_even_grid
from imagebind_cli.media.windows import cut, seconds, windows
from imagebind_cli.options.imu import IMUOptions

WINDOW_SECONDS = 5
WINDOWS_AT_ONCE = 64
WINDOWS_NAMED = 6  # at most, in a warning about windows that are left out
MAX_VALUES = 100_000_000  # of a whole recording at the encoder's rate: 11 hours at 400 Hz
MARGIN_SECONDS = 0.5
CLOCK_SECONDS = 1e-6  # a reading this close before a stretch is at its start
GRAVITY_HERTZ = 0.3  # what the accelerometer measures below this is taken for gravity, as in UCI HAR


class IMUStem(nn.Module):
    """Turns readings (b, 6, t) into tokens (b, n, d): stretches of `patch` time steps, flattened channel by channel, and projected."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, self.patch, self.stride = config.trunk.width, config.patch[0], config.stride[0]
        self.proj = nn.Linear(config.shape[0] * self.patch, width, bias=False)
        self.norm = nn.LayerNorm(width, eps=config.stem_norm_eps or 1e-5)
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.pos = nn.Parameter(torch.empty(1, config.tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x.unfold(-1, self.patch, self.stride).transpose(1, 2).flatten(2)  # (b, n - 1, 6 * patch)
        x = torch.cat([self.cls.expand(len(x), -1, -1), self.norm(self.proj(x))], dim=1)
        return x + self.pos


def read_imu(source: Source | np.ndarray, config: EncoderConfig, options: IMUOptions) -> Iterator[Sample]:
    """Read a recording in a table (CSV, NPY, HDF5, MATLAB, Parquet), or an array (6, t) or (t, 6): accelerometer and gyroscope x, y, z.

    Window times are in seconds on the recording's own clock; on one that counts from 1970, and without a clock, the first reading is at 0.

    Raises:
        OSError, ValueError: the file cannot be read, or has too few readings. UserError: `centres` is neither times nor a file of them.
    """
    target, length = config.shape[1] // WINDOW_SECONDS, config.shape[1]
    recording, origin, lacks = _cut(_near(in_standard_units(recording_of(source, options)), options), options, target)
    if len(recording.values) < 2:
        raise ValueError(f"{len(recording.values)} reading; at least 2 are needed")
    times, lost, even, rate, notes = _even(recording, options, target, origin)
    start = float(times[0])
    signal = resample(even.T, rate, target)  # (6, t)
    duration = signal.shape[1] / target
    spans, warnings = _unbroken(_windows(duration, start, options), lost, 1 / rate, options.max_gap)
    signal = _treated(signal, target, options, [(gap.start - start, gap.end - start) for gap in lost])
    firsts = [round((begin - Fraction(start)) * target) for begin, _ in spans]
    notes += _padding_notes(firsts, length, signal.shape[1])
    facts = _facts(recording, rate, even.shape[0]) | {
        "start": recording.start + start,
        "duration": round(duration, 6),
        "windows": len(spans),
        "coverage": _coverage(firsts, length, signal.shape[1]),
    }
    mean, std = (torch.tensor(values).view(-1, 1) for values in (config.mean, config.std))
    with np.errstate(over="ignore"):
        readings = torch.from_numpy(signal.astype(np.float32))
    if not readings.isfinite().all():
        raise ValueError("readings too large for numbers of 32 bits")
    for i in range(0, len(spans), WINDOWS_AT_ONCE):
        clips = torch.stack([_clip(readings, first, length) for first in firsts[i : i + WINDOWS_AT_ONCE]])  # (clips, 6, 2000)
        first_sample = i == 0
        yield Sample(
            (clips - mean) / std,
            seconds(spans[i : i + WINDOWS_AT_ONCE]),
            tuple(notes) if first_sample else (),
            facts if first_sample else {},
            (*recording.warnings, *lacks, *warnings) if first_sample else (),
            began=recording.began,
        )


def recording_of(source: Source | np.ndarray, options: IMUOptions) -> Recording:
    """Read a recording as the options say.

    Raises:
        OSError, ValueError: as `read_recording`.
    """
    columns = tuple(name.strip() for name in options.columns.split(",")) if options.columns else None
    return read_recording(
        source,
        layout=options.imu_layout,
        dataset=options.dataset,
        columns=columns,
        time_column=options.time_column,
        time_unit=options.time_unit,
        units={"accelerometer": options.accel, "gyroscope": options.gyro},
        placement=options.placement,
        row=options.row,
        timed=options.rate is None,
    )


def _near(recording: Recording, options: IMUOptions) -> Recording:
    """Return the readings in the stretch that training wants of a timed recording, with a margin from which its ends are resampled."""
    moment, times = options.moment, recording.times
    if moment is None or times is None or (moment.start, moment.end) == (None, None):
        return recording
    low, high = moment.start or times[0], times[-1] if moment.end is None else moment.end
    first, stop = np.searchsorted(times, [low - MARGIN_SECONDS, high + MARGIN_SECONDS])
    if stop - first < 2:
        raise ValueError(f"no readings between {low:g} and {high:g} s")
    return replace(recording, values=recording.values[first:stop], times=times[first:stop])


def _cut(recording: Recording, options: IMUOptions, target: int) -> tuple[Recording, float, tuple[str, ...]]:
    """Return the readings in the stretch that is read, the time of the first if they carry none, and in words what of it is missing."""
    if options.stretch is None or len(recording.values) < 2:
        return recording, 0.0, ()
    count, times = len(recording.values), recording.times
    known = np.arange(count) / (options.rate or recording.rate or target) if times is None else times
    try:
        begin, end, lacks = cut(options.stretch, float(known[-1] - known[0]) * count / (count - 1), float(known[0]))
    except ValueError as error:
        raise ValueError(f"{error}{' from its first reading on, where its clock starts here' if recording.start else ''}") from None
    first, stop = np.searchsorted(known, [float(begin) - CLOCK_SECONDS, float(end) - CLOCK_SECONDS])
    if stop - first < 2:
        raise ValueError(f"fewer than 2 readings from {float(begin):.10g} to {float(end):.10g} s")
    part = replace(recording, values=recording.values[first:stop], times=times if times is None else times[first:stop])
    return part, float(known[first]) if times is None else 0.0, lacks


def _even(
    recording: Recording, options: IMUOptions, target: int, origin: float
) -> tuple[np.ndarray, list[Gap], np.ndarray, float, list[str]]:
    """Return times (t,) of the readings, the gaps, evenly spaced readings (t', 6), their rate in Hz, and what was assumed."""
    notes = list(recording.notes)
    times = recording.times
    if times is None:
        rate = options.rate or recording.rate
        if rate is None:
            notes.append(f"recording taken to be at {target} Hz")
        times = origin + np.arange(len(recording.values)) / (rate or target)
    if (times[-1] - times[0]) * target * len(CHANNELS) > MAX_VALUES:
        raise ValueError(f"lasts {times[-1] - times[0]:.4g} s; more than {MAX_VALUES:,} values at {target} Hz")
    lost = gaps(times, recording.values, options.max_gap, CHANNELS)
    even, rate, as_it_was = to_even_grid(times, recording.values, inf, CHANNELS)
    if np.isnan(recording.values).any():
        notes.append("missing readings interpolated")
    if not as_it_was and recording.times is not None:
        notes.append("uneven timestamps interpolated onto an even grid")
    return times, lost, even, rate, notes


def _treated(signal: np.ndarray, rate: float, options: IMUOptions, lost: list[tuple[float, float]]) -> np.ndarray:
    """Remove gravity from the signal (6, t) and standardise it, as the options say. lost: seconds from its beginning without readings."""
    if options.remove_gravity:
        signal = np.concatenate([signal[:3] - slow_part(signal[:3], rate, GRAVITY_HERTZ), signal[3:]])
    if options.standardise:
        known = np.ones(signal.shape[1], bool)
        for begin, end in lost:
            known[round(begin * rate) : round(end * rate) + 1] = False
        deviation = signal[:, known].std(axis=1, keepdims=True)
        signal = (signal - signal[:, known].mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)
    return signal


def _windows(duration: float, start: float, options: IMUOptions) -> list[tuple[Fraction, Fraction]]:
    """Return start and end of each window, on the recording's clock.

    Raises:
        ValueError: a window is wholly outside the recording. UserError: `centres` is neither times nor a file of them.
    """
    if options.centres is not None:
        half = Fraction(WINDOW_SECONDS, 2)
        spans = [(centre - half, centre + half) for centre in _centres(options.centres)]
        for begin, end in spans:
            if end <= start or begin >= start + duration:
                lasts = f"the recording lasts from {start:.3f} to {start + duration:.3f} s"
                raise ValueError(f"nothing within {float(half):g} s of {float(begin + half):g} s; {lasts}")
        return spans
    spans = windows(duration, WINDOW_SECONDS, options.clips, options.moment and options.moment.since(start), options.hop)
    return [(begin + Fraction(start), end + Fraction(start)) for begin, end in spans]


def _unbroken(
    spans: list[tuple[Fraction, Fraction]], lost: list[Gap], step: float, largest: float
) -> tuple[list[tuple[Fraction, Fraction]], tuple[str, ...]]:
    """Return the windows without a long gap, and a warning that names the others. step: seconds that a reading covers.

    Raises:
        ValueError: no window is left.
    """
    lost = sorted(lost, key=lambda gap: gap.start)
    starts = [gap.start + step for gap in lost]
    ends = list(accumulate((gap.end for gap in lost), max))  # of all gaps up to this one
    before = [bisect_left(starts, end) for _, end in spans]  # gaps that start before a window ends
    broken = [span for span, count in zip(spans, before, strict=True) if count and ends[count - 1] > span[0]]
    if not broken:
        return spans, ()
    why = f"{max(lost, key=lambda gap: gap.seconds)}; --max-gap is {largest:g} s"
    if len(broken) == len(spans):
        raise ValueError(why)
    named = ", ".join(f"{float(begin):g} to {float(end):g} s" for begin, end in broken[:WINDOWS_NAMED])
    more = f" and {len(broken) - WINDOWS_NAMED} more" if len(broken) > WINDOWS_NAMED else ""
    left_out = set(broken)
    warning = f"{len(broken)} of {len(spans)} windows left out, {named}{more}: {why}"
    return [span for span in spans if span not in left_out], (warning,)


def _centres(text: str) -> list[Fraction]:
    """Parse times in seconds from `T,T,…`, or from a file with one per line."""
    try:
        return [Fraction(time.strip()) for time in text.split(",")]
    except (ValueError, ZeroDivisionError):
        pass
    try:
        lines = Path(text).read_text(encoding="utf-8").splitlines()
        found = [Fraction(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    except OSError as error:
        raise UserError(f"centres {text!r} is neither seconds, T,T,…, nor a file: {error.strerror}") from None
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"centres {text}: one time in seconds a line is needed: {error}") from None
    if not found:
        raise UserError(f"centres {text}: holds no times")
    return found


def _clip(readings: Tensor, first: int, length: int) -> Tensor:
    """Cut a window (6, length) that starts at a reading, with zeros where it reaches past the recording."""
    begin, end = max(first, 0), min(first + length, readings.shape[1])
    return F.pad(readings[:, begin:end], (begin - first, first + length - end))


def _padding_notes(firsts: list[int], length: int, samples: int) -> list[str]:
    if samples < length:
        return [f"a recording shorter than {WINDOW_SECONDS} s padded with zeros"]
    sticks_out = any(first < 0 or first + length > samples for first in firsts)
    return ["windows that reach past the recording padded with zeros"] if sticks_out else []


def _coverage(firsts: list[int], length: int, samples: int) -> float:
    """Return the share of the recording that windows cover."""
    covered = np.zeros(samples, dtype=bool)
    for first in firsts:
        covered[max(first, 0) : first + length] = True
    return round(float(covered.mean()), 6)


def _facts(recording: Recording, rate: float, expected: int) -> dict[str, Any]:
    """Describe what the file turned out to hold; `missing` is the share of readings that were interpolated."""
    there = int(np.isfinite(recording.values).sum())
    return {
        "layout": recording.layout,
        "columns": list(recording.columns),
        "units": dict(recording.units),
        "rate": round(rate, 6),
        "readings": len(recording.values),
        "missing": round(max(0.0, 1 - there / (expected * len(CHANNELS))), 6),
    }


MODALITY = Modality(name="imu", readers={"imu": read_imu}, stem=IMUStem)
