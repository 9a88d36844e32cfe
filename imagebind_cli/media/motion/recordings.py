"""Recordings of an accelerometer and a gyroscope: six columns of a table, their units, and when each reading was taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from imagebind_cli.media.clock import epoch_clock
from imagebind_cli.media.decoding import Source, decoding
from imagebind_cli.media.motion.columns import CHANNELS, find_channels, unit_of
from imagebind_cli.media.motion.layouts import PHONE, PLAIN, Layout, find_layout
from imagebind_cli.media.motion.tables.table import Table
from imagebind_cli.media.motion.time_columns import find_time_columns, is_clock, is_local
from imagebind_cli.media.motion.time_order import order_by_time
from imagebind_cli.media.motion.time_units import seconds_of

# Factors of each unit to m/s² or rad/s.
TO_STANDARD = {"g": 9.80665, "mg": 0.00980665, "m/s2": 1.0, "deg/s": np.pi / 180, "mdeg/s": np.pi / 180_000, "rad/s": 1.0}


@dataclass(frozen=True)
class Recording:
    """Readings (t, 6) float64 in the order of CHANNELS, NaN where one is missing.

    times: (t,) increasing seconds, None where the file has none. rate: in Hz, where its kind gives it. start: what was subtracted from
    the times, so that they count from the recording's start and not from 1970. began: the clock time of second 0, in UTC or without a zone.
    units: per sensor, None where unknown. columns: what was picked. notes: what had to be assumed, in words. warnings: how much that changed
    in this recording.
    """

    values: np.ndarray
    times: np.ndarray | None
    units: Mapping[str, str | None]
    columns: tuple[str, ...]
    layout: str
    rate: float | None = None
    start: float = 0.0
    began: datetime | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@decoding("recording")
def read_recording(
    source: Source | np.ndarray,
    *,
    layout: str = "auto",
    dataset: str | None = None,
    columns: tuple[str, ...] | None = None,
    time_column: str | None = None,
    time_unit: str | None = None,
    units: Mapping[str, str | None] | None = None,
    placement: str | None = None,
    row: int = 0,
    timed: bool = True,
) -> Recording:
    """Read a recording without converting its units or times.

    Args:
        layout: `auto`, or the name of one. columns, time_column: names, or positions counted from 1. time_unit: s, ms, us, ns, iso.
        units: per sensor, in place of those that names give. placement: PAMAP2's hand, chest or ankle. row: UCI HAR's window.
        timed: whether to use its timestamps.
    Raises:
        OSError, ValueError: the file cannot be read, or its columns or times cannot be identified.
    """
    table, kind = find_layout(source, layout, dataset, columns, placement or "hand", row, time_unit)
    notes = [*table.notes]
    if kind not in (PLAIN, PHONE):
        where = f", the sensor on the {placement or 'hand'}" if kind.name == "pamap2" else ""
        notes.append(f"read as {kind.name}{where}: {kind.units['accelerometer']} and {kind.units['gyroscope']}")
    recording = _pick(table, kind, columns, time_column, None if kind is PHONE else time_unit, units or {}, timed)
    return replace(recording, notes=(*notes, *recording.notes))


def in_standard_units(recording: Recording) -> Recording:
    """Convert a recording to m/s² and rad/s, as far as its units are known."""
    notes = list(recording.notes)
    factors = np.ones(6)
    for sensor, part, standard in (("accelerometer", slice(0, 3), "m/s2"), ("gyroscope", slice(3, 6), "rad/s")):
        unit = recording.units[sensor]
        if unit is None:
            flag = "--accel g or m/s2" if sensor == "accelerometer" else "--gyro deg/s or rad/s"
            notes.append(f"{sensor} of unknown unit, values as they are ({flag} tells)")
        elif unit != standard:
            factors[part] = TO_STANDARD[unit]
            notes.append(f"{sensor} converted from {unit} to {standard}")
    return replace(recording, values=recording.values * factors, notes=tuple(notes))


def _pick(
    table: Table,
    layout: Layout,
    columns: tuple[str, ...] | None,
    time_column: str | None,
    time_unit: str | None,
    units: Mapping[str, str | None],
    timed: bool,
) -> Recording:
    """Pick the six columns of a table, their units and its times."""
    notes: list[str] = []
    warnings = [*table.warnings]
    wanted = time_column or layout.time_column
    time = (table.find(wanted),) if wanted else (find_time_columns(table) or ()) if layout.rate is None else ()
    if columns or layout.columns:
        picked = [table.find(name) for name in columns or layout.columns or ()]
    else:
        picked = find_channels(table, time)
        named = [table.names[column] for column in picked]
        notes.append(f"channels taken from columns {', '.join(named)}" if all(named) else f"channels taken as {', '.join(CHANNELS)}")
    values = table.numbers(picked)
    if np.isinf(values).any():
        raise ValueError(f"{table.place(int(np.isinf(values).any(axis=1).argmax()))}: an infinite reading")
    sensor_units = {
        sensor: units.get(sensor) or layout.units.get(sensor) or unit_of([table.names[column] for column in part], sensor)
        for sensor, part in (("accelerometer", picked[:3]), ("gyroscope", picked[3:]))
    }
    labels = tuple(table.names[column] or f"column {column + 1}" for column in picked)
    recording = Recording(values, None, sensor_units, labels, layout.name, layout.rate)
    if time and not timed:
        notes.append("timestamps not used, as a rate was given")
    elif time:
        unit = time_unit or (layout.time_unit if time_column is None else None)
        times, origin, name = seconds_of(table, time, unit, notes)
        times, values, start = order_by_time(times, origin, values, name, table.place, layout.unordered, notes, warnings)
        recording = replace(recording, values=values, times=times, start=start, began=epoch_clock(start, is_local(table, time)))
    elif timed and layout.rate is None:
        _check_for_clock(table, picked)
    return replace(recording, notes=tuple(notes), warnings=tuple(warnings))


def _check_for_clock(table: Table, picked: Sequence[int]) -> None:
    """Refuse to take a table for one without timestamps where a column looks like them."""
    unsure = [column for column, name in enumerate(table.names) if column not in picked or not name]
    clock = next((column for column in unsure if is_clock(table, column)), None)
    if clock is not None:
        name, use = table.names[clock], "is taken for a channel" if clock in picked else "is not used"
        raise ValueError(
            f"{name or f'column {clock + 1}'} looks like a clock and {use}; --time-column {name or clock + 1} or --rate is needed"
        )
