"""Find the columns of a table that are timestamps: by their names, or because their numbers rise like a clock's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from imagebind_cli.media.motion.tables.table import Table
from imagebind_cli.media.motion.time_units import SECONDS, find_unit, time_name

TIME_NAMES = re.compile(
    r"(sensor|event|unix|epoch|posix|elapsed|local|utc|system|sample|host|device|capture|recording|relative|frame|field|header|msg|ros)*"
    r"(time(stamp)?s?|stamps?|ts?|epoch|elapsed|seconds?|secs?|datetime|clock|utc|millis|micros|nanos)"
    r"(elapsed|utc|unix|epoch|since\w*|stamp|iso)*"
)
FEWEST_FOR_CLOCK = 8  # fewer rows may rise by chance
MOST_LABELS = 20  # a column of no more whole numbers than this, among others of many, holds labels and not readings
ODD_STEPS = 0.2  # share of a clock's steps that may be of another size than the others


def find_time_columns(table: Table) -> tuple[int, ...] | None:
    """Find the column of the timestamps by its name; two where whole seconds and their fraction have a column each, as ROS writes them.

    A column that holds one number throughout, as an unset stamp does, is used only where no other exists.
    """
    parts = [time_name(name) for name in table.names]
    seconds = {stem: column for column, (stem, unit) in enumerate(parts) if unit == "s"}
    pairs = [
        (seconds[stem], column)
        for column, (stem, unit) in enumerate(parts)
        if stem in seconds and unit not in ("s", None) and _is_fraction(table, seconds[stem], column, SECONDS[unit])
    ]
    single = [(column,) for column, (stem, _) in enumerate(parts) if TIME_NAMES.fullmatch(stem)]
    single.sort(key=lambda columns: not parts[columns[0]][0].endswith("headerstamp"))  # ROS: when it was read, before when it arrived
    return next((columns for columns in (*pairs, *single) if any(_varies(table, column) for column in columns)), next(iter(single), None))


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


def has_fraction(table: Table, column: int) -> bool:
    """Check whether a column of whole seconds is followed by one of the nanoseconds or microseconds that are to be added to them."""
    if column + 1 >= len(table.names) or not any(_is_fraction(table, column, column + 1, scale) for scale in (1e-6, 1e-9)):
        return False
    rest = table.values[:, column + 1]
    return float(np.nanmax(rest)) > 1e5 and bool((rest[np.isfinite(rest)] % 1 == 0).all())


def is_clock(table: Table, column: int) -> bool:
    """Check whether a column whose name does not say so looks like timestamps: it rises in like steps of a believable size, and others do not."""
    if words := table.words.get(column):
        return len(words) == len(table.values) and _is_iso(words[0])
    values = table.values[:, column]
    if len(values) < FEWEST_FOR_CLOCK or not _rises(values) or 2 * sum(map(_rises, table.values.T)) > len(table.names):
        return False
    stamps, counts = np.unique(values, return_counts=True)
    steps = np.diff(stamps)[1:] / counts[1:-1]
    # Numbered activities, one after the other, rise too; a clock comes first.
    numbers = column > 0 and len(stamps) <= MOST_LABELS and len(stamps) < len(values) / FEWEST_FOR_CLOCK
    if not steps.size or numbers or (np.abs(steps - np.median(steps)) <= 0.5 * np.median(steps)).mean() < 1 - ODD_STEPS:
        return False
    try:
        return bool(find_unit("", values, table.exact.get(column), []))
    except ValueError:
        return False


def _is_iso(word: str) -> bool:
    try:
        return bool(datetime.fromisoformat(word))
    except ValueError:
        return False


def is_local(table: Table, columns: Sequence[int]) -> bool:
    """Check whether timestamps are of a clock whose zone is not known: by a column's name, or ISO 8601 without a zone."""
    words = [word for column in columns for word in list(table.words.get(column, {}).values())[:1]]
    named = any("local" in table.names[column].lower() for column in columns)
    return named or any(_is_iso(word) and datetime.fromisoformat(word).tzinfo is None for word in words)


def counts_rows(table: Table, column: int) -> bool:
    """Check whether a column numbers the rows."""
    return column not in table.words and len(table.values) > 1 and bool((np.diff(table.values[:, column]) == 1).all())


def _rises(values: np.ndarray) -> bool:
    with np.errstate(invalid="ignore"):  # of infinite cells
        steps = np.diff(values)
    return bool((steps >= 0).all() and values[0] < values[-1])
