"""When each reading of a table was taken: which columns tell, in which unit, readings in the order of time, and those that share a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from imagebind_cli.media.motion.signals import MISSED
from imagebind_cli.media.motion.tables import THOUSANDS, Table

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
TIME_NAMES = re.compile(
    r"(sensor|event|unix|epoch|posix|elapsed|local|utc|system|sample|host|device|capture|recording|relative|frame|field|header|msg|ros)*"
    r"(time(stamp)?s?|stamps?|ts?|epoch|elapsed|seconds?|secs?|datetime|clock|utc|millis|micros|nanos)"
    r"(elapsed|utc|unix|epoch|since\w*|stamp|iso)*"
)
TIME_UNITS = {
    "ns": r"(ns|nsecs?|nanos|nanosec(ond)?s?)",
    "us": r"([uµμ]s|usecs?|micros|microsec(ond)?s?)",
    "ms": r"(ms|msecs?|millis|millisec(ond)?s?)",
    "s": r"(s|secs?|seconds?)",
}
FASTEST, SLOWEST = 5e-4, 0.2
"""Seconds between readings that are believed where no unit is given: 2000 Hz to 5 Hz. No step lies within these in two units."""

POSSIBLE_FASTEST, POSSIBLE_SLOWEST = 1e-4, 2.0
"""Seconds between readings that a unit may mean at all: 10 kHz to 0.5 Hz."""

SINCE_1970 = 1e8
"""Seconds: a clock beyond this counts from 1970, and not from a recording's or a device's start."""

THIS_CENTURY = 9.4e8, 4.2e9
"""Seconds since 1970: the years 2000 to 2103. No number lies within these in two units."""

FEWEST_FOR_CLOCK = 8
"""Fewer rows may rise by chance."""

MOST_LABELS = 20
"""A column of no more whole numbers than this, beside others of many, says what was done and is no reading."""

FEW = 0.2
"""Up to this share of readings share a time by accident; above it, the clock is coarser than the readings."""

MOST_SOURCES = 4
"""So many sensors may be merged row by row under common times; more readings of one time are one sensor's."""


def find_times(table: Table) -> tuple[int, ...] | None:
    """The column of the timestamps, by its name; two where whole seconds and the rest stand apart, as ROS writes them.

    A column that holds one number throughout, as an unset stamp does, is taken only where there is no other.
    """
    parts = [_time_name(name) for name in table.names]
    seconds = {stem: column for column, (stem, unit) in enumerate(parts) if unit == "s"}
    pairs = [
        (seconds[stem], column)
        for column, (stem, unit) in enumerate(parts)
        if stem in seconds and unit not in ("s", None) and _is_fraction(table, seconds[stem], column, SECONDS[unit])
    ]
    single = [(column,) for column, (stem, _) in enumerate(parts) if TIME_NAMES.fullmatch(stem)]
    single.sort(key=lambda columns: not parts[columns[0]][0].endswith("headerstamp"))  # ROS: when it was read, before when it arrived
    return next((columns for columns in (*pairs, *single) if any(_varies(table, column) for column in columns)), next(iter(single), None))


def _time_name(name: str) -> tuple[str, str | None]:
    """A time column's name, letters only and without its unit, and the unit: `time_ms` and `ms` are (`time`, `ms`)."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).lower()
    for unit, pattern in TIME_UNITS.items():
        if match := re.search(rf"(?:^|[_ .(\[/])({pattern})[)\]]?$", name):
            rest = name[: match.start()]
            return _time_name(rest)[0] if rest else "" if match.group(1) == "s" else "time", unit  # `time_ns (ns)` loses both
    letters = re.sub(r"[^a-zµμ]", "", name)
    return letters, "s" if re.fullmatch(r"sec(ond)?s(elapsed|since\w*)", letters) else None


def _varies(table: Table, column: int) -> bool:
    values = table.values[:, column]
    values = values[np.isfinite(values)]
    return column in table.words or bool(values.size and values.min() < values.max())


def _is_fraction(table: Table, seconds: int, fraction: int, scale: float) -> bool:
    """Check whether one column holds whole seconds and the other, in units of `scale` seconds, what is to be added to them."""
    if seconds in table.words or fraction in table.words:
        return False
    whole, rest = (table.values[np.isfinite(table.values[:, column]), column] for column in (seconds, fraction))
    return bool(whole.size and rest.size and (whole == np.floor(whole)).all() and rest.min() >= 0 and rest.max() * scale < 1)


def has_rest(table: Table, column: int) -> bool:
    """Check whether a column of whole seconds is followed by one of the nanoseconds or microseconds that are to be added to them."""
    if column + 1 >= len(table.names) or not any(_is_fraction(table, column, column + 1, scale) for scale in (1e-6, 1e-9)):
        return False
    rest = table.values[:, column + 1]
    return float(np.nanmax(rest)) > 1e5 and bool((rest[np.isfinite(rest)] % 1 == 0).all())


def seconds_of(table: Table, columns: Sequence[int], unit: str | None, notes: list[str]) -> tuple[np.ndarray, float, str]:
    """Times as seconds (t,) after an origin, NaN where there is none, the origin in seconds, and what their columns are called.

    Args:
        columns: one, or one of whole seconds and one of what is to be added. unit: of the only column; by name or steps if not given.
    The origin is 0 unless numbers are so large that float64 would round the steps between them.

    Raises:
        ValueError: a cell is no time, nothing tells the unit, or the name tells another than the steps.
    """
    names = [table.names[column] or f"column {column + 1}" for column in columns]
    if len(columns) == 2:
        finer = SECONDS[str(_time_name(names[1])[1])]
        offsets, origin = _less_first(table.numbers(columns[:1])[:, 0])
        return offsets + table.numbers(columns[1:])[:, 0] * finer, origin, " and ".join(names)
    column, name = columns[0], names[0]
    words = table.words.get(column)
    if unit == "iso" or (words and unit is None and not THOUSANDS.fullmatch(next(iter(words.values())))):
        if not words:
            raise ValueError(f"{name} holds numbers and no ISO 8601 times; --time-unit s, ms, us or ns is needed")
        return _iso(table, column), 0.0, name
    values = table.numbers([column])[:, 0]
    if not np.isfinite(values).any():
        return values, 0.0, name
    if unit is None:
        unit = _unit_of(name, values, table.exact.get(column), notes)
    if column not in table.exact and np.nanmin(values) * SECONDS[unit] <= SINCE_1970:
        return values * SECONDS[unit], 0.0, name
    offsets, origin = _less_first(values, table.exact.get(column))
    return offsets * SECONDS[unit], origin * SECONDS[unit], name


def _less_first(values: np.ndarray, exact: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Numbers (t,) less the first of them, and the first. exact: the same as whole numbers, for those that float64 cannot tell apart."""
    there = np.isfinite(values)
    first = int(there.argmax())
    if exact is not None:
        return np.where(there, exact - exact[first], np.nan), float(exact[first])
    return (values - values[first], float(values[first])) if there.any() else (values, 0.0)


def _unit_of(name: str, values: np.ndarray, exact: np.ndarray | None, notes: list[str]) -> str:
    """The unit of a column's times, by its name or its steps, and each checked against the other.

    Raises:
        ValueError: steps fit no unit, two, or another than the name's.
    """
    named = _time_name(name)[1]
    offsets = values if exact is None else _less_first(values, exact)[0]
    step = _row_step(offsets)
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


def _row_step(times: np.ndarray) -> float:
    """The usual step from row to row of times (t,), 0 if there is none; rows of one time share the step to the next.

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
    kept = ~_missed(steps, counts, float(each[order][np.searchsorted(rows, rows[-1] / 2)]))
    return float(steps[kept].sum() / counts[kept].sum())


def _missed(steps: np.ndarray, counts: np.ndarray, step: float) -> np.ndarray:
    """Return which steps (n,) between times are too long for the rows (n,) of the earlier one: readings are missing there."""
    return steps > MISSED * step * (counts + 1)


def is_clock(table: Table, column: int) -> bool:
    """Check whether a column without a telling name looks like timestamps: it rises in like steps of a believable size, and most others do not."""
    if words := table.words.get(column):
        return len(words) == len(table.values) and _is_iso(words[0])
    values = table.values[:, column]
    if len(values) < FEWEST_FOR_CLOCK or not _rises(values) or 2 * sum(map(_rises, table.values.T)) > len(table.names):
        return False
    stamps, counts = np.unique(values, return_counts=True)
    steps = np.diff(stamps)[1:] / counts[1:-1]
    # Numbered activities, one after the other, rise too; a clock that does stands first.
    numbers = column > 0 and len(stamps) <= MOST_LABELS and len(stamps) < len(values) / FEWEST_FOR_CLOCK
    if not steps.size or numbers or (np.abs(steps - np.median(steps)) <= 0.5 * np.median(steps)).mean() < 1 - FEW:
        return False
    try:
        return bool(_unit_of("", values, table.exact.get(column), []))
    except ValueError:
        return False


def _is_iso(word: str) -> bool:
    try:
        return bool(datetime.fromisoformat(word))
    except ValueError:
        return False


def counts_rows(table: Table, column: int) -> bool:
    """Check whether a column numbers the rows."""
    return column not in table.words and len(table.values) > 1 and bool((np.diff(table.values[:, column]) == 1).all())


def _rises(values: np.ndarray) -> bool:
    with np.errstate(invalid="ignore"):  # of infinite cells
        steps = np.diff(values)
    return bool((steps >= 0).all() and values[0] < values[-1])


def _iso(table: Table, column: int) -> np.ndarray:
    """ISO 8601 times as seconds since 1970 (t,); one without a zone is taken for UTC, which shifts all alike."""
    seconds = np.full(len(table.values), np.nan)
    for row, word in table.words[column].items():
        try:
            time = datetime.fromisoformat(word)
        except ValueError:
            raise ValueError(
                f"{table.place(row)}: {word[:40]!r} is no ISO 8601 time; --time-column names another, --rate replaces them"
            ) from None
        seconds[row] = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    numbers = ~np.isnan(table.values[:, column])
    if numbers.any():
        raise ValueError(f"{table.place(int(numbers.argmax()))}: {table.values[numbers, column][0]:g} is no ISO 8601 time")
    return seconds


def in_order(
    times: np.ndarray,
    origin: float,
    values: np.ndarray,
    name: str,
    place: Callable[[int], str],
    unordered: bool,
    notes: list[str],
    warnings: list[str],
) -> tuple[np.ndarray, np.ndarray, float]:
    """Times (t,) and readings (t, channels) by time, rows without a time left out and no two of one time, and the clock's start.

    Args:
        times, origin: seconds after an origin. name: of the column they are from. place: where a row stands, for messages.
        unordered: whether time may go back. notes: gets what had to be assumed. warnings: gets how much that was in this recording.
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
    return stamps, _averaged(values, owner, len(stamps)), start


def _is_coarse(values: np.ndarray, first: np.ndarray, counts: np.ndarray) -> bool:
    """Check whether readings (t, channels) that share times were taken one after the other; else they are repeated, or several sensors' at once.

    Args:
        first: where each time begins. counts: how many readings it has.
    """
    if counts[counts > 1].sum() <= FEW * counts.sum() or not (np.fmax.reduceat(values, first) > np.fmin.reduceat(values, first)).any():
        return False
    each = int(counts[0])
    if each > MOST_SOURCES or (counts != each).any():
        return True
    # Of sensors in turn, a reading is nearer to its own sensor's last one than to the other's beside it.
    with np.errstate(invalid="ignore"):
        aside, own = (np.nansum((values[lag:] - values[:-lag]) ** 2, axis=0) for lag in (1, each))
    return bool(np.median(own[aside > 0] / aside[aside > 0]) > 0.25) if (aside > 0).any() else True


def _spread(times: np.ndarray, name: str) -> np.ndarray:
    """Times (t,) of a clock coarser than the readings, moved apart: at an even rate where that fits, else evenly up to the next time.

    The first and the last time may have fewer readings than the others, which are then taken to lie at its end and its beginning.

    Raises:
        ValueError: there are too few times to tell the rate, or readings under them vary too much.
    """
    stamps, counts = np.unique(times, return_counts=True)
    if len(stamps) < 3:
        few = f"share {len(stamps)} stamps in {name}, too few to tell their rate" if len(stamps) > 1 else f"share one stamp in {name}"
        raise ValueError(f"{len(times):,} readings {few}; --rate is needed")
    step = _row_step(times)
    steps, inner = np.diff(stamps), counts[1:-1]
    odd = np.abs(steps[1:] - inner * step) > np.maximum(0.5 * inner, 1.5) * step
    if inner[odd].sum() > FEW * inner.sum():
        raise ValueError(f"from {counts.min()} to {counts.max()} readings share a stamp in {name}, not at a steady rate; --rate is needed")
    missed = _missed(steps, counts[:-1], step)
    after = np.concatenate([[True], missed[:-1]])  # a stretch may begin amid a time, which then has fewer readings
    breaks = np.flatnonzero(missed & (~after | (steps > MISSED * np.median(steps)))) + 1
    parts = zip(np.split(stamps, breaks), np.split(counts, breaks), strict=True)
    spread = np.concatenate([_spread_unbroken(part, count, step) for part, count in parts])
    if not (np.diff(spread) > 0).all():
        raise ValueError(f"readings that share stamps in {name} cannot be told apart; --rate is needed")
    return spread


def _spread_unbroken(stamps: np.ndarray, counts: np.ndarray, step: float) -> np.ndarray:
    """The same for a stretch in which no reading is missing: stamps (n,) and how many readings (n,) each has. step: between readings."""
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


def _averaged(values: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Means of the rows (t, channels) that belong together, (count, channels), NaN left out."""
    sums, there = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(sums, owner, np.nan_to_num(values))
    np.add.at(there, owner, ~np.isnan(values))
    return np.where(there > 0, sums / np.maximum(there, 1), np.nan)
