"""Recordings of an accelerometer and a gyroscope: which columns they are, in which unit, and when each reading was taken."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from imagebind_cli.media.decoding import Source
from imagebind_cli.media.tables import Table, read_table

CHANNELS = tuple(f"{sensor} {axis}" for sensor in ("accelerometer", "gyroscope") for axis in "xyz")

TO_STANDARD = {"g": 9.80665, "mg": 0.00980665, "m/s2": 1.0, "deg/s": np.pi / 180, "mdeg/s": np.pi / 180_000, "rad/s": 1.0}
"""What a reading in each unit is multiplied by to be in m/s² or rad/s."""

UNITS_IN_NAMES = {
    "accelerometer": {
        "m/s2": r"m\W*s(ec)?(ec)?(\^|\*\*)?\W?[2²]|m/s/s|m_?p?_?s-?2",
        "mg": r"[(\[]\s*mg\s*[)\]]|_mg$",
        "g": r"[(\[]\s*(g|gs|g's|g0|gee)\s*[)\]]|_g$",
    },
    "gyroscope": {
        "mdeg/s": r"(?<![a-z])(mdps|mdeg)",
        "deg/s": r"(?<![a-z])(dps|deg)|[°º]",
        "rad/s": r"(?<![a-z])rad",
    },
}

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

# Columns that are not the plain accelerometer: without gravity, or the phone's estimate. Taken where there is nothing better.
DERIVED = re.compile(r"lin|user|body|free|motion")
SENSORS = {
    "accelerometer": re.compile(r"(total)?a|arss|.*acc.*|gf|gforce"),
    "gyroscope": re.compile(r"[gw]|wrss|.*gyr.*|.*omega.*|.*angularvel.*|.*angvel.*|.*angularrate.*|.*rotationrate.*"),
}


@dataclass(frozen=True)
class Layout:
    """What the kind of a file tells about it; a user's own choices come first.

    columns: names or positions, in the order of CHANNELS. rate: in Hz, of files without timestamps.
    unordered: rows are known to come out of order, or without a time.
    """

    name: str
    columns: tuple[str, ...] | None = None
    time_column: str | None = None
    time_unit: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    rate: float | None = None
    unordered: bool = False


PLAIN = Layout("plain")
EGO4D = Layout(
    "ego4d",
    ("accl_x", "accl_y", "accl_z", "gyro_x", "gyro_y", "gyro_z"),
    "canonical_timestamp_ms",
    "ms",
    {"accelerometer": "m/s2", "gyroscope": "rad/s"},
    unordered=True,
)
SMARTPHONE = {"accelerometer": "g", "gyroscope": "rad/s"}
UCIHAR = Layout("ucihar", units=SMARTPHONE, rate=50.0)
HAPT = Layout("hapt", units=SMARTPHONE, rate=50.0)
PLACEMENTS = {"hand": 4, "chest": 21, "ankle": 38}
"""PAMAP2: the first column of each sensor, counted from 1: its temperature, accelerometer ±16 g, ±6 g, gyroscope."""

HAPT_NAME = re.compile(r"acc(_exp\d+_user\d+\.txt)")
UCIHAR_NAME = re.compile(r"(total|body)_acc_x(_(?:train|test)\.txt)")


@dataclass(frozen=True)
class Recording:
    """Readings (t, 6) float64 in the order of CHANNELS, NaN where one is missing.

    times: (t,) increasing seconds, None where the file has none. rate: in Hz, where its kind tells. start: what was taken from
    the times, so that they count from the recording's start and not from 1970. units: per sensor, None where unknown.
    columns: what was picked. notes: what had to be assumed, in words.
    """

    values: np.ndarray
    times: np.ndarray | None
    units: Mapping[str, str | None]
    columns: tuple[str, ...]
    layout: str
    rate: float | None = None
    start: float = 0.0
    notes: tuple[str, ...] = ()


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
    """A recording as its file has it, in its own units and at its own times.

    Args:
        layout: `auto`, or the name of one. columns, time_column: names, or positions counted from 1. time_unit: s, ms, us, ns, iso.
        units: per sensor, where they are not to be read from names. placement: PAMAP2's hand, chest or ankle. row: UCI HAR's window.
        timed: whether its timestamps are to be used.
    Raises:
        OSError, ValueError: the file cannot be read, or does not say what its columns or its times are.
    """
    name = os.path.basename(os.fspath(source)) if isinstance(source, str | os.PathLike) else ""
    if layout == "hapt" or (layout == "auto" and re.fullmatch(r"(acc|gyro)_exp\d+_user\d+\.txt", name)):
        table, kind = _read_hapt(source, name), HAPT
    elif layout == "ucihar" or (layout == "auto" and re.fullmatch(r"(total_acc|body_(acc|gyro))_[xyz]_(train|test)\.txt", name)):
        table, kind = _read_ucihar(source, name, row), UCIHAR
    else:
        table = read_table(source, dataset)
        kind = _layout(table, layout, columns, placement or "hand")
    notes = [*table.notes]
    if kind is not PLAIN:
        where = f", the sensor on the {placement or 'hand'}" if kind.name == "pamap2" else ""
        notes.append(f"read as {kind.name}{where}: {kind.units['accelerometer']} and {kind.units['gyroscope']}")
    recording = _pick(table, kind, columns, time_column, time_unit, units or {}, timed)
    return replace(recording, notes=(*notes, *recording.notes))


def in_standard_units(recording: Recording) -> Recording:
    """The same in m/s² and rad/s, as far as its units are known."""
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


def _layout(table: Table, layout: str, columns: tuple[str, ...] | None, placement: str) -> Layout:
    wants_pamap2 = layout == "auto" and columns is None and len(table.names) == 54 and not any(table.names)
    wants_ego4d = layout == "auto" and columns is None and {"canonical_timestamp_ms", *(EGO4D.columns or ())} <= set(table.names)
    if layout == "ego4d" or wants_ego4d:
        return EGO4D
    if layout == "pamap2" or wants_pamap2:
        first = PLACEMENTS[placement]
        picked = tuple(str(first + i) for i in (1, 2, 3, 7, 8, 9))
        return Layout("pamap2", picked, "1", "s", {"accelerometer": "m/s2", "gyroscope": "rad/s"})
    return PLAIN


def _pick(
    table: Table,
    layout: Layout,
    columns: tuple[str, ...] | None,
    time_column: str | None,
    time_unit: str | None,
    units: Mapping[str, str | None],
    timed: bool,
) -> Recording:
    """The recording in a table: its six columns, their units, its times."""
    notes: list[str] = []
    wanted = time_column or layout.time_column
    time = table.find(wanted) if wanted else _time_by_name(table) if layout.rate is None else None
    if columns or layout.columns:
        picked = [table.find(name) for name in columns or layout.columns or ()]
    else:
        picked = _channels(table, time)
        named = [table.names[column] for column in picked]
        notes.append(f"channels taken from columns {', '.join(named)}" if all(named) else f"channels taken as {', '.join(CHANNELS)}")
    values = table.numbers(picked)
    if np.isinf(values).any():
        raise ValueError(f"{table.place(int(np.isinf(values).any(axis=1).argmax()))}: an infinite reading")
    found = {
        sensor: units.get(sensor) or layout.units.get(sensor) or _unit([table.names[column] for column in part], sensor)
        for sensor, part in (("accelerometer", picked[:3]), ("gyroscope", picked[3:]))
    }
    labels = tuple(table.names[column] or f"column {column + 1}" for column in picked)
    recording = Recording(values, None, found, labels, layout.name, layout.rate)
    if time is not None and not timed:
        notes.append("timestamps not used, as a rate was given")
    elif time is not None:
        own_unit = time_unit or (layout.time_unit if time_column is None else None)
        recording = _timed(recording, *_seconds(table, time, own_unit, notes), table.place, layout.unordered, notes)
    return replace(recording, notes=tuple(notes))


def _channels(table: Table, time: int | None) -> list[int]:
    """The six columns by their names, or the only six there are.

    Raises:
        ValueError: they are not to be found, or there are several; the message lists the columns there are.
    """
    groups: dict[str, dict[str, dict[str, int]]] = {sensor: {} for sensor in SENSORS}
    for column, name in enumerate(table.names):
        stem, axis = _axis(_bare(name))
        for sensor, pattern in SENSORS.items():
            if axis and pattern.fullmatch(stem):
                groups[sensor].setdefault(stem, {})[axis] = column
                break
    picked: list[int] = []
    missing: list[str] = []
    for sensor, found in groups.items():
        whole = {stem: axes for stem, axes in found.items() if len(axes) == 3}
        best = {stem: axes for stem, axes in whole.items() if not DERIVED.search(stem)} or whole
        if len(best) > 1:
            several = " or ".join(table.names[axes["x"]] for axes in best.values())
            raise ValueError(f"{sensor} x may be {several}; name six with --columns")
        picked += [axes[axis] for axes in best.values() for axis in "xyz"]
        missing += [] if best else [sensor]
    if not missing:
        return picked
    unnamed = [column for column, name in enumerate(table.names) if not name and column != time]
    if len(unnamed) == 6 and not picked:
        return unnamed
    if not any(table.names):
        raise ValueError(f"{len(table.names)} columns without names; six channels are needed; --columns 1,2,3,4,5,6 says which")
    raise ValueError(f"no {' or '.join(missing)} x, y, z among the columns {table.listing()}; --columns names six")


def _bare(name: str) -> str:
    """A column's name in lower case without its unit: `Accelerometer X (g)`, `acc_x_g` and `gyro x [dps]` lose theirs."""
    name = re.sub(r"[(\[].*?[)\]]", " ", name.lower())
    return re.sub(r"[_ ](mg|g|m_?p?_?s(ec)?-?2|m?dps|(deg|rad)_?p?(s|sec)?)\s*$", "", name).strip()


def _axis(name: str) -> tuple[str, str]:
    """What is left of a bare name without its axis, letters only, and the axis: x, y, z, or nothing."""
    match = re.search(r"(?<![a-z])[xyz](?![a-z])", name) or re.search(r"[xyz](?![a-z])", name)
    if not match:
        return name, ""
    return re.sub(r"[^a-z]", "", name[: match.start()] + name[match.end() :]), match.group()


def _unit(names: Sequence[str], sensor: str) -> str | None:
    """The unit that all three names of a sensor tell."""
    found = {next((unit for unit, pattern in UNITS_IN_NAMES[sensor].items() if re.search(pattern, name.lower())), None) for name in names}
    return found.pop() if len(found) == 1 else None


def _time_by_name(table: Table) -> int | None:
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


def _seconds(table: Table, column: int, unit: str | None, notes: list[str]) -> tuple[np.ndarray, str]:
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


def _timed(recording: Recording, times: np.ndarray, name: str, place: Callable[[int], str], unordered: bool, notes: list[str]) -> Recording:
    """The recording with its times, rows without a time left out and rows of one time averaged.

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
    values = recording.values[rows]
    unique, owner = np.unique(times, return_inverse=True)
    if len(unique) < len(times):
        notes.append("rows of the same time averaged")
        values, times = _averaged(values, owner, len(unique)), unique
    return replace(recording, values=values, times=times, start=start)


def _averaged(values: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Means of the rows (t, channels) that belong together, (count, channels), NaN left out."""
    sums, there = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(sums, owner, np.nan_to_num(values))
    np.add.at(there, owner, ~np.isnan(values))
    return np.where(there > 0, sums / np.maximum(there, 1), np.nan)


def _read_hapt(source: Source | np.ndarray, name: str) -> Table:
    """HAPT's raw data: `acc_expXX_userYY.txt` and the gyroscope's file beside it."""
    match = HAPT_NAME.fullmatch(name)
    if not match or not isinstance(source, str | os.PathLike):
        raise ValueError("a HAPT recording goes by its acc_expXX_userYY.txt, which takes the gyro_ file beside it along")
    parts = [read_table(source), _beside(source, f"gyro{match[1]}")]
    shapes = [part.values.shape for part in parts]
    if shapes[0] != shapes[1] or shapes[0][1] != 3:
        raise ValueError(f"shapes {shapes[0]} and {shapes[1]} of acc and gyro; two equal ones of three columns are needed")
    return Table(("",) * 6, np.concatenate([part.numbers([0, 1, 2]) for part in parts], axis=1), lines=parts[0].lines)


def _read_ucihar(source: Source | np.ndarray, name: str, row: int) -> Table:
    """One row of UCI HAR's `Inertial Signals`: 128 readings, 2.56 s, of each of six files that lie side by side."""
    match = UCIHAR_NAME.fullmatch(name)
    if not match or not isinstance(source, str | os.PathLike):
        raise ValueError("a UCI HAR recording goes by its total_acc_x_ or body_acc_x_ file, which takes the others along")
    kind, ending = match.groups()
    files = [f"{sensor}_{axis}{ending}" for sensor in (f"{kind}_acc", "body_gyro") for axis in "xyz"]
    tables = [_beside(source, file) for file in files]
    rows = min(len(table.values) for table in tables)
    if row >= rows:
        raise ValueError(f"no row {row}; it has {rows}, counted from 0")
    widths = {table.values.shape[1] for table in tables}
    if len(widths) > 1:
        raise ValueError(f"rows of {' and '.join(map(str, sorted(widths)))} readings side by side")
    channels = [table.numbers(range(table.values.shape[1]))[row] for table in tables]
    return Table(("",) * 6, np.stack(channels, axis=1))


def _beside(path: str | os.PathLike[str], name: str) -> Table:
    """The table of this name in the same folder."""
    try:
        return read_table(Path(path).with_name(name))
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} beside it: {getattr(error, 'strerror', None) or error}") from None
