"""Layouts of published recordings (Ego4D, PAMAP2, HAPT, UCI HAR, after their datasets' descriptions) and of phones' zip files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imagebind_cli.media.decoding import Source
from imagebind_cli.media.motion.columns import DERIVED, axes_of
from imagebind_cli.media.motion.signals import on_one_clock
from imagebind_cli.media.motion.tables.formats import read_table
from imagebind_cli.media.motion.tables.table import Table
from imagebind_cli.media.motion.tables.zipped import zipped_tables
from imagebind_cli.media.motion.time_columns import find_time_columns, is_local
from imagebind_cli.media.motion.time_order import order_by_time
from imagebind_cli.media.motion.time_units import seconds_of


@dataclass(frozen=True)
class Layout:
    """Facts about a file that follow from its layout; the user's choices override them.

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
# PAMAP2: the first column of each sensor, counted from 1: its temperature, accelerometer ±16 g, ±6 g, gyroscope.
PLACEMENTS = {"hand": 4, "chest": 21, "ankle": 38}

PHONE = Layout(PLAIN.name, tuple("234567"), "1", "s")
PHONE_FILES = {
    "accelerometer": re.compile(r"(?!.*uncalib).*acc(?!.*uncalib).*"),
    "gyroscope": re.compile(r"(?!.*uncalib).*gyr(?!.*uncalib).*"),
}

HAPT_NAME = re.compile(r"acc(_exp\d+_user\d+\.txt)")
UCIHAR_NAME = re.compile(r"(total|body)_acc_x(_(?:train|test)\.txt)")


def find_layout(
    source: Source | np.ndarray,
    layout: str,
    dataset: str | None,
    columns: tuple[str, ...] | None,
    placement: str,
    row: int,
    time_unit: str | None = None,
) -> tuple[Table, Layout]:
    """Read a file's table and recognise its layout. Arguments as `recordings.read_recording`'s.

    Raises:
        OSError, ValueError: the file, or one that belongs to it, cannot be read.
    """
    name = os.path.basename(os.fspath(source)) if isinstance(source, str | os.PathLike) else ""
    if layout == "hapt" or (layout == "auto" and re.fullmatch(r"(acc|gyro)_exp\d+_user\d+\.txt", name)):
        return _read_hapt(source, name), HAPT
    if layout == "ucihar" or (layout == "auto" and re.fullmatch(r"(total_acc|body_(acc|gyro))_[xyz]_(train|test)\.txt", name)):
        return _read_ucihar(source, name, row), UCIHAR
    if dataset is None and (files := _phone_files(zipped_tables(source))):
        return _read_phone(source, files, time_unit), PHONE
    table = read_table(source, dataset)
    return table, _by_columns(table, layout, columns, placement)


def _by_columns(table: Table, layout: str, columns: tuple[str, ...] | None, placement: str) -> Layout:
    wants_pamap2 = layout == "auto" and columns is None and len(table.names) == 54 and not any(table.names)
    wants_ego4d = layout == "auto" and columns is None and {"canonical_timestamp_ms", *(EGO4D.columns or ())} <= set(table.names)
    if layout == "ego4d" or wants_ego4d:
        return EGO4D
    if layout == "pamap2" or wants_pamap2:
        first = PLACEMENTS[placement]
        picked = tuple(str(first + i) for i in (1, 2, 3, 7, 8, 9))
        return Layout("pamap2", picked, "1", "s", {"accelerometer": "m/s2", "gyroscope": "rad/s"})
    return PLAIN


def _read_hapt(source: Source | np.ndarray, name: str) -> Table:
    """Read HAPT's raw data: `acc_expXX_userYY.txt` and the gyroscope's file beside it."""
    match = HAPT_NAME.fullmatch(name)
    if not match or not isinstance(source, str | os.PathLike):
        raise ValueError("of a HAPT recording, give the acc_expXX_userYY.txt; the gyro_ file beside it is read with it")
    parts = [read_table(source), _beside(source, f"gyro{match[1]}")]
    shapes = [part.values.shape for part in parts]
    if shapes[0] != shapes[1] or shapes[0][1] != 3:
        raise ValueError(f"shapes {shapes[0]} and {shapes[1]} of acc and gyro; two equal ones of three columns are needed")
    return Table(("",) * 6, np.concatenate([part.numbers([0, 1, 2]) for part in parts], axis=1), lines=parts[0].lines)


def _read_ucihar(source: Source | np.ndarray, name: str, row: int) -> Table:
    """Read one row of UCI HAR's `Inertial Signals`: 128 readings, 2.56 s, of each of six files in one folder."""
    match = UCIHAR_NAME.fullmatch(name)
    if not match or not isinstance(source, str | os.PathLike):
        raise ValueError("of a UCI HAR recording, give the total_acc_x_ or body_acc_x_ file; the others are read with it")
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


def _phone_files(names: list[str]) -> dict[str, str]:
    """Find the accelerometer's and the gyroscope's table in a zip file, as phyphox and Sensor Logger write them; none if not both.

    Raises:
        ValueError: there are several of one sensor.
    """
    files: dict[str, str] = {}
    for sensor, pattern in PHONE_FILES.items():
        stems = {name: re.sub(r"[^a-z]", "", Path(name).stem.lower()) for name in names if Path(name).parent.name != "meta"}
        whole = {name: stem for name, stem in stems.items() if pattern.fullmatch(stem)}
        whole = {name: stem for name, stem in whole.items() if stem.startswith("total")} or whole  # the other is then without gravity
        best = [name for name, stem in whole.items() if not DERIVED.search(stem)] or list(whole)
        if len(best) > 1:
            raise ValueError(f"its {sensor} may be {' or '.join(best[:4])}; a zip file of one {sensor} is needed")
        if best:
            files[sensor] = best[0]
    return files if len(files) == len(PHONE_FILES) else {}


def _read_phone(source: Source | np.ndarray, files: Mapping[str, str], time_unit: str | None) -> Table:
    """Read two tables of a zip file, put on the clock of the faster sensor: times in seconds, then six channels."""
    times: list[np.ndarray] = []
    values: list[np.ndarray] = []
    names = ["time (s)"]
    notes: list[str] = []
    warnings: list[str] = []
    for file in files.values():
        assumed, changed = list[str](), list[str]()
        try:
            table = read_table(source, file)
            assumed += table.notes
            clock = find_time_columns(table)
            if clock is None:
                raise ValueError(f"no column of times among {table.listing()}")
            picked = axes_of(table, clock)
            seconds, origin, name = seconds_of(table, clock, time_unit, assumed)
            ordered, readings, start = order_by_time(seconds, origin, table.numbers(picked), name, table.place, False, assumed, changed)
        except ValueError as error:
            raise ValueError(f"{file} in it: {error}") from None
        if is_local(table, clock):
            names[0] = "local time (s)"
        times.append(ordered + start)
        values.append(readings)
        names += [f"{Path(file).stem}: {table.names[column]}" for column in picked]
        notes += [f"{file}: {note}" for note in assumed]
        warnings += [f"{file}: {warning}" for warning in changed]
    together, joined = on_one_clock(times, values)
    if not all(np.array_equal(together, clock) for clock in times):
        notes.append(f"{' and '.join(files.values())} put on one clock")
    return Table(tuple(names), np.column_stack([together, joined]), notes=tuple(notes), warnings=tuple(warnings))


def _beside(path: str | os.PathLike[str], name: str) -> Table:
    """Read the table of this name in the same folder."""
    try:
        return read_table(Path(path).with_name(name))
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} beside it: {getattr(error, 'strerror', None) or error}") from None
