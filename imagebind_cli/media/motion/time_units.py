"""Times as seconds: the unit of a column by its name or its steps, whole seconds with their fraction, ISO 8601."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from imagebind_cli.media.motion.signals import MISSED
from imagebind_cli.media.motion.tables.table import THOUSANDS, Table

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
TIME_UNITS = {
    "ns": r"(ns|nsecs?|nanos|nanosec(ond)?s?)",
    "us": r"([uµμ]s|usecs?|micros|microsec(ond)?s?)",
    "ms": r"(ms|msecs?|millis|millisec(ond)?s?)",
    "s": r"(s|secs?|seconds?)",
}
# Seconds between readings that are plausible where no unit is given: 2000 Hz to 5 Hz. No step is within these in two units.
FASTEST, SLOWEST = 5e-4, 0.2
POSSIBLE_FASTEST, POSSIBLE_SLOWEST = 1e-4, 2.0  # seconds between readings that a unit may mean at all: 10 kHz to 0.5 Hz
SINCE_1970 = 1e8  # seconds; a clock beyond this counts from 1970, and not from a recording's or a device's start
THIS_CENTURY = 9.4e8, 4.2e9  # seconds since 1970: the years 2000 to 2103. No number is within these in two units.


def time_name(name: str) -> tuple[str, str | None]:
    """Split a time column's name into its letters without the unit, and the unit: `time_ms` and `ms` are (`time`, `ms`)."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).lower()
    for unit, pattern in TIME_UNITS.items():
        if match := re.search(rf"(?:^|[_ .(\[/])({pattern})[)\]]?$", name):
            rest = name[: match.start()]
            return time_name(rest)[0] if rest else "" if match.group(1) == "s" else "time", unit  # `time_ns (ns)` loses both
    letters = re.sub(r"[^a-zµμ]", "", name)
    return letters, "s" if re.fullmatch(r"sec(ond)?s(elapsed|since\w*)", letters) else None


def seconds_of(table: Table, columns: Sequence[int], unit: str | None, notes: list[str]) -> tuple[np.ndarray, float, str]:
    """Return times as seconds (t,) after an origin, NaN where there is none, the origin in seconds, and their columns' names.

    Args:
        columns: one, or one of whole seconds and one of what is to be added. unit: of the only column; by name or steps if not given.
    The origin is 0 unless numbers are so large that float64 would round the steps between them.

    Raises:
        ValueError: a cell is not a time, the unit is unknown, or the name states another than the steps.
    """
    names = [table.names[column] or f"column {column + 1}" for column in columns]
    if len(columns) == 2:
        fraction = SECONDS[str(time_name(names[1])[1])]
        offsets, origin = _less_first(table.numbers(columns[:1])[:, 0])
        return offsets + table.numbers(columns[1:])[:, 0] * fraction, origin, " and ".join(names)
    column, name = columns[0], names[0]
    words = table.words.get(column)
    if unit == "iso" or (words and unit is None and not THOUSANDS.fullmatch(next(iter(words.values())))):
        if not words:
            raise ValueError(f"{name} holds numbers and not ISO 8601 times; --time-unit s, ms, us or ns is needed")
        return _iso_seconds(table, column), 0.0, name
    values = table.numbers([column])[:, 0]
    if not np.isfinite(values).any():
        return values, 0.0, name
    if unit is None:
        unit = find_unit(name, values, table.exact.get(column), notes)
    if column not in table.exact and np.nanmin(values) * SECONDS[unit] <= SINCE_1970:
        return values * SECONDS[unit], 0.0, name
    offsets, origin = _less_first(values, table.exact.get(column))
    return offsets * SECONDS[unit], origin * SECONDS[unit], name


def _less_first(values: np.ndarray, exact: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Subtract the first number (t,) from all, and return both. exact: the same as whole numbers, for those that float64 cannot distinguish."""
    there = np.isfinite(values)
    first = int(there.argmax())
    if exact is not None:
        return np.where(there, exact - exact[first], np.nan), float(exact[first])
    return (values - values[first], float(values[first])) if there.any() else (values, 0.0)


def find_unit(name: str, values: np.ndarray, exact: np.ndarray | None, notes: list[str]) -> str:
    """Return the unit of a column's times, by its name or its steps, each checked against the other.

    Raises:
        ValueError: steps fit no unit, two, or another than the name's.
    """
    named = time_name(name)[1]
    offsets = values if exact is None else _less_first(values, exact)[0]
    step = row_step(offsets)
    if step == 0:
        return named or "s"  # no steps, and too few readings whatever the unit
    by_steps = next((unit for unit, scale in SECONDS.items() if FASTEST <= step * scale <= SLOWEST), None)
    if named is not None:
        if by_steps not in (None, named) and not POSSIBLE_FASTEST <= step * SECONDS[named] <= POSSIBLE_SLOWEST:
            rates = [f"{1 / (step * SECONDS[unit]):.4g} Hz in {unit}" for unit in (named, str(by_steps))]
            raise ValueError(f"{name} steps by {step:g}: {rates[0]}, as its name has it, but {rates[1]}; --time-unit is needed")
        return named
    largest = float(np.nanmax(values))
    by_date = next((unit for unit, scale in SECONDS.items() if THIS_CENTURY[0] <= largest * scale <= THIS_CENTURY[1]), None)
    dated = by_date is not None and POSSIBLE_FASTEST <= step * SECONDS[by_date] <= POSSIBLE_SLOWEST
    unit = by_steps or (by_date if dated else None)
    numbered = step >= SLOWEST and bool((np.diff(np.unique(offsets[np.isfinite(offsets)])) == 1).all())  # looks like 1 kHz in milliseconds
    if unit is None or (numbered and unit != by_date):
        raise ValueError(f"times in {name} step by {step:g} of an unknown unit; --time-unit or --rate is needed")
    if dated and unit != by_date:
        rates = [f"{1 / (step * SECONDS[which]):.4g} Hz in {which}" for which in (unit, str(by_date))]
        raise ValueError(f"times in {name} step by {step:g}: {rates[0]}, or {rates[1]} since 1970; --time-unit is needed")
    notes.append(f"{name} taken to be in {unit}, from its steps")
    return unit


def row_step(times: np.ndarray) -> float:
    """Return the usual step from row to row of times (t,), 0 if there is none; rows of one time share the step to the next.

    The median alone is wrong for a clock coarser than the readings: 400 Hz in whole milliseconds steps by 2 and 3 in turn.
    """
    stamps, counts = np.unique(times[np.isfinite(times)], return_counts=True)
    if len(stamps) < 2:
        return 0.0
    steps, counts = np.diff(stamps), counts[:-1]
    if len(steps) > 1:
        steps, counts = steps[1:], counts[1:]  # the first time may have begun before the recording
    each = steps / counts
    order = np.argsort(each)
    rows = np.cumsum(counts[order])
    regular = ~exceeds_step(steps, counts, float(each[order][np.searchsorted(rows, rows[-1] / 2)]))
    return float(steps[regular].sum() / counts[regular].sum())


def exceeds_step(steps: np.ndarray, counts: np.ndarray, step: float) -> np.ndarray:
    """Return which steps (n,) between times are longer than their counts of readings (n,) explain, so that some are missing."""
    return steps > MISSED * step * (counts + 1)


def _iso_seconds(table: Table, column: int) -> np.ndarray:
    """Return ISO 8601 times as seconds since 1970 (t,); one without a zone is taken for UTC, which shifts all alike."""
    seconds = np.full(len(table.values), np.nan)
    for row, word in table.words[column].items():
        try:
            time = datetime.fromisoformat(word)
        except ValueError:
            raise ValueError(
                f"{table.place(row)}: {word[:40]!r} is not an ISO 8601 time; --time-column names another, --rate replaces them"
            ) from None
        seconds[row] = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    numbers = ~np.isnan(table.values[:, column])
    if numbers.any():
        raise ValueError(f"{table.place(int(numbers.argmax()))}: {table.values[numbers, column][0]:g} is not an ISO 8601 time")
    return seconds
