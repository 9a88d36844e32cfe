"""Readings over time: put on an even grid, resampled, and their slow part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

EVEN = 0.01  # timestamps this close to an even grid, as a share of its step, are taken for it, and the readings are not changed

MISSED = 1.5  # two readings further apart than this many usual steps have one missing between them

ZERO_CROSSINGS = 32
ROLLOFF = 0.9
VALUES_AT_ONCE = 1_000_000


def usual_step(times: np.ndarray) -> float:
    """Return the seconds between readings (t,) where none is missing: the mean of the steps up to `MISSED` medians.

    The median alone is wrong for a clock coarser than the readings: 400 Hz in whole milliseconds steps by 2 and 3 in turn.
    """
    steps = np.diff(times)
    return float(steps[steps <= MISSED * np.median(steps)].mean())


def to_even_grid(times: np.ndarray, values: np.ndarray, largest_gap: float, names: Sequence[str]) -> tuple[np.ndarray, float, bool]:
    """Put readings (t, channels) at increasing times (t,) in seconds on an even grid: (t', channels), rate in Hz, whether they were on one.

    Between neighbours a cubic is fitted, over missing readings (NaN, or no row at all) a straight line.

    Raises:
        ValueError: readings are missing for longer than `largest_gap`, in seconds, or altogether.
    """
    step, even = _step(times)
    if even and not np.isnan(values).any():
        return values, 1 / step, True
    missing = gaps(times, values, largest_gap, names)
    if missing:
        raise ValueError(f"{max(missing, key=lambda gap: gap.seconds)}; --max-gap is {largest_gap:g} s")
    grid = times[0] + step * np.arange(math.floor((times[-1] - times[0]) / step + 1e-6) + 1)
    gridded = np.empty((len(grid), values.shape[1]))
    for channel, name in enumerate(names):
        there = ~np.isnan(values[:, channel])
        if there.sum() < 2:
            raise ValueError(f"{name} holds nothing but NaN" if not there.any() else f"{name} holds one reading; at least 2 are needed")
        gridded[:, channel] = _curve(times[there], values[there, channel], grid, step)
    return gridded, 1 / step, False


@dataclass(frozen=True)
class Gap:
    """A stretch without readings, of one channel, or of all where none is named. seconds: from reading to reading. start: time of the first."""

    seconds: float
    start: float
    channel: str = ""

    @property
    def end(self) -> float:
        """The time of the next reading."""
        return self.start + self.seconds

    def __str__(self) -> str:
        return f"{self.channel}{': ' * bool(self.channel)}no readings for {self.seconds:.4g} s from {self.start:.3f} s on"


def gaps(times: np.ndarray, values: np.ndarray, largest: float, names: Sequence[str]) -> list[Gap]:
    """Find where readings (t, channels) at times (t,) are missing for longer than `largest`, in seconds; a channel without any has no gaps."""
    step, _ = _step(times)
    wide = _gaps(times, times, largest, step)
    of_all = set(wide)
    for name, channel in zip(names, values.T, strict=True):
        there = times[~np.isnan(channel)]
        if 0 < len(there) < len(times):
            wide += [gap for gap in _gaps(times, there, largest, step, name) if replace(gap, channel="") not in of_all]
    return wide


def _gaps(times: np.ndarray, there: np.ndarray, largest: float, step: float, name: str = "") -> list[Gap]:
    ends = np.concatenate([times[:1], there, times[-1:]])
    steps = np.diff(ends)
    long = np.flatnonzero(steps > max(largest, MISSED * step) * (1 + 1e-6))
    return [Gap(float(steps[i]), float(ends[i]), name) for i in long]


def _step(times: np.ndarray) -> tuple[float, bool]:
    """Return the seconds between readings, and whether they are practically even."""
    step = float(times[-1] - times[0]) / (len(times) - 1)
    even = bool(np.abs(times - (times[0] + step * np.arange(len(times)))).max() <= EVEN * step)
    return step if even else usual_step(times), even


def _curve(times: np.ndarray, values: np.ndarray, grid: np.ndarray, step: float) -> np.ndarray:
    """Interpolate values (t,) at times (t,) at the times of a grid: cubic Hermite with three-point slopes, straight over gaps, level at the ends."""
    width = np.diff(times)
    slope = np.diff(values) / width
    inner = (width[1:] * slope[:-1] + width[:-1] * slope[1:]) / (width[1:] + width[:-1])
    tangent = np.concatenate([slope[:1], inner, slope[-1:]])
    at = np.clip(np.searchsorted(times, grid, side="right") - 1, 0, len(width) - 1)
    width, slope = width[at], slope[at]
    # A slope measured over a few milliseconds says nothing about the next tenth of a second: extended there, noise would overshoot.
    gap = width > MISSED * step
    left, right = np.where(gap, 0, tangent[at] - slope), np.where(gap, 0, slope - tangent[at + 1])
    u = np.clip((grid - times[at]) / width, 0, 1)
    return values[at] + width * u * (slope + (1 - u) * ((1 - u) * left + u * right))


def on_one_clock(times: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Put sensors' readings (t, channels) at their own increasing times (t,), in seconds, on the times of the fastest sensor that all cover.

    Between neighbours a cubic is fitted; where a sensor's readings are missing, its channels are NaN.

    Returns:
        times (t',) and values (t', all channels).
    Raises:
        ValueError: the sensors have too few readings, or were not read at one time.
    """
    if min(map(len, times)) < 2:
        raise ValueError("a sensor with fewer than 2 readings")
    steps = [usual_step(clock) for clock in times]
    fastest = times[int(np.argmin(steps))]
    begin, end = (pick(clock[place] for clock in times) for pick, place in ((max, 0), (min, -1)))
    slack = max(steps)  # the sensors are not started and stopped in the same moment
    together = fastest[(fastest >= begin - slack) & (fastest <= end + slack)]
    if len(together) < 2:
        spans = " and ".join(f"{clock[0]:.3f} to {clock[-1]:.3f} s" for clock in times)
        raise ValueError(f"accelerometer and gyroscope have no time in common: {spans}")
    channels: list[np.ndarray] = []
    for clock, readings, step in zip(times, values, steps, strict=True):
        at = np.clip(np.searchsorted(clock, together, side="right") - 1, 0, len(clock) - 2)
        apart = (clock[at + 1] - clock[at] > MISSED * step) & (clock[at] != together) & (clock[at + 1] != together)
        for channel in readings.T:
            there = ~np.isnan(channel)
            curve = _curve(clock[there], channel[there], together, step) if there.sum() > 1 else np.full(len(together), np.nan)
            lost = apart | np.isnan(channel[at]) | np.isnan(channel[at + 1])
            channels.append(np.where(lost, np.nan, curve))
    return together, np.stack(channels, axis=1)


def reach_of(rate: float, target: float) -> int:
    """Return how many readings to each side of a resampled value, besides its own, have a part in it."""
    return math.ceil(ZERO_CROSSINGS / (ROLLOFF * min(1.0, target / rate)))


def resample(signal: np.ndarray, rate: float, target: float, first: int = 0, stop: int | None = None, held: int = 0) -> np.ndarray:
    """Resample a signal (channels, t) from one rate to another, in Hz: a sinc under a Blackman window, cut off at 0.9 of the lower half rate.

    32 zero crossings to each side: flat to 0.8 of that half rate, aliases more than 70 dB down. Past its ends the signal is
    taken to stay level, so that gravity does not ring there.

    Args:
        first, stop: the values that are wanted, all by default; counted from the first of the recording. held: readings of it before `signal`.
    """
    if abs(rate / target - 1) < 1e-9:
        return signal[:, first - held : None if stop is None else stop - held]
    cutoff = ROLLOFF * min(1.0, target / rate)
    half = ZERO_CROSSINGS / cutoff  # in samples of the input
    reach = reach_of(rate, target)
    taps = np.arange(1 - reach, reach + 1)
    padded = np.pad(signal, ((0, 0), (reach - 1, reach + 1)), mode="edge")
    stretches = np.lib.stride_tricks.sliding_window_view(padded, len(taps), axis=1)  # (channels, t + 1, taps)
    stop = max(1, round((held + signal.shape[1]) * target / rate)) if stop is None else stop
    output = np.empty((len(signal), stop - first))
    at_once = max(1, VALUES_AT_ONCE // len(taps))
    for start in range(0, output.shape[1], at_once):
        position = np.arange(first + start, first + min(start + at_once, output.shape[1])) * (rate / target) - held
        whole = np.floor(position).astype(np.int64)
        distance = taps - (position - whole)[:, None]  # (positions, taps)
        turn = np.pi / half * distance
        window = np.where(np.abs(distance) < half, 0.42 + 0.5 * np.cos(turn) + 0.08 * np.cos(2 * turn), 0)
        weights = np.sinc(cutoff * distance) * window
        weights /= weights.sum(axis=1, keepdims=True)
        for channel in range(len(signal)):
            output[channel, start : start + len(position)] = np.einsum("pk,pk->p", stretches[channel, whole], weights)
    return output


def slow_part(signal: np.ndarray, rate: float, cutoff: float) -> np.ndarray:
    """Return what changes more slowly than `cutoff` Hz in a signal (channels, t): a Gaussian low pass, 3 dB down there, without delay."""
    deviation = math.sqrt(math.log(2)) / (2 * math.pi * cutoff)  # in seconds
    reach = math.ceil(4 * deviation * rate)
    padded = np.pad(signal, ((0, 0), (reach, reach)), mode="edge")
    frequency = np.fft.rfftfreq(padded.shape[1], 1 / rate)
    response = np.exp(-2 * (math.pi * deviation * frequency) ** 2)
    return np.fft.irfft(np.fft.rfft(padded) * response, padded.shape[1])[:, reach:-reach]
