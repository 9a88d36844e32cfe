"""Sort readings by time, and average those that share a time, or spread them over the step to the next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from imagebind_cli.media.motion.signals import MISSED
from imagebind_cli.media.motion.time_units import SINCE_1970, exceeds_step, row_step

ACCIDENTAL = 0.2  # up to this share of readings share a time by accident; above it, the clock is coarser than the readings
MOST_SOURCES = 4  # up to this many sensors may be merged row by row under common times; more readings of one time are one sensor's


def order_by_time(
    times: np.ndarray,
    origin: float,
    values: np.ndarray,
    name: str,
    place: Callable[[int], str],
    unordered: bool,
    notes: list[str],
    warnings: list[str],
) -> tuple[np.ndarray, np.ndarray, float]:
    """Sort readings (t, channels) by their times (t,), rows without a time left out and no two of one time; return times, readings and start.

    Args:
        times, origin: seconds after an origin. name: of the column they are from. place: where a row is, for messages.
        unordered: whether time may go back. notes: what had to be assumed is added. warnings: how much that was in this recording is added.
    The start is taken from the times where they count from 1970; else it is 0. Rows of one time are averaged, or, where the clock is
    coarser than the readings, spread over the step to the next.

    Raises:
        ValueError: time goes back, no row has one, or too many have the same.
    """
    rows = np.flatnonzero(np.isfinite(times))
    if not rows.size:
        raise ValueError(f"{name} holds no times")
    if rows.size < len(times):
        notes.append("rows without a time left out")
    least = float(times[rows].min())
    start = origin + least if origin + least > SINCE_1970 else 0.0
    times = times[rows] - least if start else times[rows] + origin
    back = np.diff(times) < 0
    if back.any():
        at = int(back.argmax())
        if not unordered:
            raise ValueError(f"{place(int(rows[at + 1]))}: time goes back from {times[at]:.6f} s to {times[at + 1]:.6f} s")
        notes.append("rows sorted by time")
        order = np.argsort(times, kind="stable")
        rows, times = rows[order], times[order]
    values = values[rows]
    stamps, first, owner, counts = np.unique(times, return_index=True, return_inverse=True, return_counts=True)
    if len(stamps) == len(times):
        return times, values, start
    if _is_coarse(values, first, counts):
        spread = _spread(times, name)
        rate = f"{1 / np.median(np.diff(spread)):.4g} Hz"
        notes.append("readings of the same time spread evenly up to the next")
        warnings.append(f"{len(times):,} readings share {len(stamps):,} stamps in {name}: spread evenly, at {rate}; --rate sets another")
        return (spread - spread[0], values, start + spread[0]) if start else (spread, values, start)  # it starts at the first reading
    several = counts > 1
    notes.append("rows of the same time averaged")
    warnings.append(f"{counts[several].sum():,} rows share {several.sum():,} stamps in {name}: averaged to one each")
    return stamps, _average(values, owner, len(stamps)), start


def _is_coarse(values: np.ndarray, first: np.ndarray, counts: np.ndarray) -> bool:
    """Check whether readings (t, channels) that share times were taken one after the other; else they are repeated, or several sensors' at once.

    Args:
        first: where each time begins. counts: how many readings it has.
    """
    if (
        counts[counts > 1].sum() <= ACCIDENTAL * counts.sum()
        or not (np.fmax.reduceat(values, first) > np.fmin.reduceat(values, first)).any()
    ):
        return False
    each = int(counts[0])
    if each > MOST_SOURCES or (counts != each).any():
        return True
    # When sensors take turns, a reading is closer to its own sensor's last one than to the other's next to it.
    with np.errstate(invalid="ignore"):
        aside, same = (np.nansum((values[lag:] - values[:-lag]) ** 2, axis=0) for lag in (1, each))
    return bool(np.median(same[aside > 0] / aside[aside > 0]) > 0.25) if (aside > 0).any() else True


def _spread(times: np.ndarray, name: str) -> np.ndarray:
    """Move apart the times (t,) of a clock coarser than the readings: at an even rate where that fits, else evenly up to the next time.

    The first and the last time may have fewer readings than the others, which are then placed at its end and its beginning.

    Raises:
        ValueError: there are too few times to find the rate, or readings under them vary too much.
    """
    stamps, counts = np.unique(times, return_counts=True)
    if len(stamps) < 3:
        few = f"share {len(stamps)} stamps in {name}, too few to tell their rate" if len(stamps) > 1 else f"share one stamp in {name}"
        raise ValueError(f"{len(times):,} readings {few}; --rate is needed")
    step = row_step(times)
    steps, inner = np.diff(stamps), counts[1:-1]
    odd = np.abs(steps[1:] - inner * step) > np.maximum(0.5 * inner, 1.5) * step
    if inner[odd].sum() > ACCIDENTAL * inner.sum():
        raise ValueError(f"from {counts.min()} to {counts.max()} readings share a stamp in {name}, not at a steady rate; --rate is needed")
    missed = exceeds_step(steps, counts[:-1], step)
    after = np.concatenate([[True], missed[:-1]])  # a stretch may begin amid a time, which then has fewer readings
    breaks = np.flatnonzero(missed & (~after | (steps > MISSED * np.median(steps)))) + 1
    parts = zip(np.split(stamps, breaks), np.split(counts, breaks), strict=True)
    spread = np.concatenate([_spread_unbroken(part, count, step) for part, count in parts])
    if not (np.diff(spread) > 0).all():
        raise ValueError(f"readings that share stamps in {name} cannot be told apart; --rate is needed")
    return spread


def _spread_unbroken(stamps: np.ndarray, counts: np.ndarray, step: float) -> np.ndarray:
    """Spread readings over a stretch in which none is missing: stamps (n,), and how many readings (n,) each has. step: between readings."""
    rows = np.arange(counts.sum())
    starts = np.cumsum(counts) - counts
    if len(stamps) == 1:
        return stamps[0] + step * rows
    whole = 1 / max(1, round(1 / step))
    for even, off in (
        (whole, 1.01),
        (step, 2),
    ):  # a whole rate where it explains every time; else the mean, in steps that a time may be off
        drift = stamps[1:] - even * starts[1:]
        if np.ptp(drift) <= off * even:
            return drift.max() + even * rows  # no reading before its time
    lengths = np.diff(stamps, append=stamps[-1] + step * counts[-1])
    owner = np.repeat(np.arange(len(stamps)), counts)
    spread = stamps[owner] + (rows - starts[owner]) * (lengths / counts)[owner]
    if lengths[0] > step * counts[0]:
        spread[: counts[0]] = stamps[1] - step * (counts[0] - rows[: counts[0]])
    return spread


def _average(values: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Return the means (count, channels) of the rows (t, channels) that belong together, NaN left out."""
    sums, there = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(sums, owner, np.nan_to_num(values))
    np.add.at(there, owner, ~np.isnan(values))
    return np.where(there > 0, sums / np.maximum(there, 1), np.nan)
