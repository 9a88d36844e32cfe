"""When each reading of a table was taken: which column tells, in which unit, and readings in the order of time."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from imagebind_cli.media.tables import Table

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
TIME_NAMES = re.compile(
    r"(sensor|event|unix|epoch|posix|elapsed|local|utc|system|sample|host|device|capture|recording|relative|frame)*"
    r"(time(stamp)?s?|ts?|epoch|elapsed|seconds?|secs?|datetime|clock|utc|millis|micros|nanos)"
    r"(elapsed|utc|unix|epoch|since\w*|stamp|iso)*"
)
TIME_UNITS = {
    "ns": r"(ns|nsec|nanos|nanosec(ond)?s?)",
    "us": r"([uµμ]s|usec|micros|microsec(ond)?s?)",
    "ms": r"(ms|msec|millis|millisec(ond)?s?)",
    "s": r"(s|sec|secs|seconds?)",
}
FASTEST, SLOWEST = 2.5e-4, 0.2
"""Seconds between readings that are believed where no unit is given: 4000 Hz to 5 Hz. No step lies within these in two units."""

SINCE_1970 = 1e8
"""Seconds: a clock beyond this counts from 1970, and not from a recording's or a device's start."""


def find_times(table: Table) -> int | None:
    """The column of the timestamps, by its name."""
    return next((column for column, name in enumerate(table.names) if name and TIME_NAMES.fullmatch(_time_name(name)[0])), None)


def _time_name(name: str) -> tuple[str, str | None]:
    """A time column's name, letters only and without its unit, and the unit: `time_ms` is (`time`, `ms`), `t [s]` (`t`, `s`)."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).lower()
    for unit, pattern in TIME_UNITS.items():
        if match := re.search(rf"(?:^|[_ .(\[/])({pattern})[)\]]?$", name):
            rest = re.sub(r"[^a-zµμ]", "", name[: match.start()])
            return rest or match.group(1), unit
    letters = re.sub(r"[^a-zµμ]", "", name)
    return letters, "s" if re.fullmatch(r"sec(ond)?s(elapsed|since\w*)", letters) else None


def seconds_of(table: Table, column: int, unit: str | None, notes: list[str]) -> tuple[np.ndarray, str]:
    """A time column as seconds (t,), NaN where there is none, and what it is called.

    Raises:
        ValueError: a cell is no time, or nothing tells the unit.
    """
    name = table.names[column] or f"column {column + 1}"
    words = table.words.get(column)
    if unit == "iso" or (words and unit is None):
        if not words:
            raise ValueError(f"{name} holds numbers and no ISO 8601 times; --time-unit s, ms, us or ns is needed")
        return _iso(table, column), name
    values = table.numbers([column])[:, 0]
    unit = unit or _time_name(name)[1]
    if unit is None and len(values) < 2:
        unit = "s"  # no steps, and too few readings whatever the unit
    if unit is None:
        steps = np.diff(values[np.isfinite(values)])
        step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
        counted = bool(step == 1 and (steps == 1).all())  # numbered samples look like 1 kHz in milliseconds
        unit = next((unit for unit, scale in SECONDS.items() if FASTEST <= step * scale <= SLOWEST), None)
        if unit is None or counted:
            raise ValueError(f"times in {name} step by {step:g} of an unknown unit; --time-unit or --rate is needed")
        notes.append(f"{name} taken to be in {unit}, from its steps")
    return values * SECONDS[unit], name


def _iso(table: Table, column: int) -> np.ndarray:
    """ISO 8601 times as seconds since 1970 (t,); one without a zone is taken for UTC, which shifts all alike."""
    seconds = np.full(len(table.values), np.nan)
    for row, word in table.words[column].items():
        try:
            time = datetime.fromisoformat(word)
        except ValueError:
            raise ValueError(f"{table.place(row)}: {word[:40]!r} is no ISO 8601 time") from None
        seconds[row] = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    numbers = ~np.isnan(table.values[:, column])
    if numbers.any():
        raise ValueError(f"{table.place(int(numbers.argmax()))}: {table.values[numbers, column][0]:g} is no ISO 8601 time")
    return seconds


def in_order(
    times: np.ndarray, values: np.ndarray, name: str, place: Callable[[int], str], unordered: bool, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Times (t,) and readings (t, channels) by time, rows without a time left out and rows of one time averaged, and the clock's start.

    Args:
        name: of the column the times are from. place: where a row stands, for messages. unordered: whether time may go back.
    The start is taken from the times where they count from 1970; else it is 0.

    Raises:
        ValueError: time goes back, or no row has one.
    """
    rows = np.flatnonzero(np.isfinite(times))
    if not rows.size:
        raise ValueError(f"{name} holds no times")
    if rows.size < len(times):
        notes.append("rows without a time left out")
    start = float(times[rows].min()) if times[rows].min() > SINCE_1970 else 0.0
    times = times[rows] - start
    back = np.diff(times) < 0
    if back.any():
        at = int(back.argmax())
        if not unordered:
            raise ValueError(f"{place(int(rows[at + 1]))}: time goes back from {times[at]:.6f} s to {times[at + 1]:.6f} s")
        notes.append("rows sorted by time")
        order = np.argsort(times, kind="stable")
        rows, times = rows[order], times[order]
    values = values[rows]
    unique, owner = np.unique(times, return_inverse=True)
    if len(unique) < len(times):
        notes.append("rows of the same time averaged")
        values, times = _averaged(values, owner, len(unique)), unique
    return times, values, start


def _averaged(values: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Means of the rows (t, channels) that belong together, (count, channels), NaN left out."""
    sums, there = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(sums, owner, np.nan_to_num(values))
    np.add.at(there, owner, ~np.isnan(values))
    return np.where(there > 0, sums / np.maximum(there, 1), np.nan)
