"""Find which columns of a table belong to an accelerometer and a gyroscope, and their units, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from imagebind_cli.media.motion.tables.table import Table
from imagebind_cli.media.motion.time_columns import MOST_LABELS, counts_rows, has_fraction, is_clock

CHANNELS = tuple(f"{sensor} {axis}" for sensor in ("accelerometer", "gyroscope") for axis in "xyz")

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

GRAVITY = 9.80665, 1.0, 1000.0  # what an accelerometer's three axes come to together, in m/s², g and mg

# Columns that are not the plain accelerometer: without gravity, or the phone's estimate. Used only where no other exists.
DERIVED = re.compile(r"lin|user|body|free|motion")
SENSORS = {
    "accelerometer": re.compile(r"(total)?a|arss|.*acc.*|gf|gforce"),
    "gyroscope": re.compile(r"[gw]|wrss|.*gyr.*|.*omega.*|.*angularvel.*|.*angvel.*|.*angularrate.*|.*rotationrate.*"),
}


def find_channels(table: Table, time: Sequence[int]) -> list[int]:
    """Find the six columns by their names, or take the only six there are.

    Raises:
        ValueError: they cannot be found, or there are several candidates; the message lists the columns.
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
    for sensor, stems in groups.items():
        whole = {stem: axes for stem, axes in stems.items() if len(axes) == 3}
        best = {stem: axes for stem, axes in whole.items() if not DERIVED.search(stem)} or whole
        if len(best) > 1:
            several = " or ".join(table.names[axes["x"]] for axes in best.values())
            raise ValueError(f"{sensor} x may be {several}; name six with --columns")
        picked += [axes[axis] for axes in best.values() for axis in "xyz"]
        missing += [] if best else [sensor]
    if not missing:
        return picked
    unnamed = [column for column, name in enumerate(table.names) if not name and column not in time]
    if len(unnamed) == 6 and not picked and not any(is_clock(table, column) for column in unnamed):
        return unnamed
    if not any(table.names):
        raise ValueError(f"{len(table.names)} columns without names; six channels are needed{_suggest_flags(table, time)}")
    raise ValueError(f"no {' or '.join(missing)} x, y, z among the columns {table.listing()}; --columns names six")


def axes_of(table: Table, without: Sequence[int]) -> list[int]:
    """Find the columns x, y, z of a table of one sensor. without: columns that are ignored.

    Raises:
        ValueError: there is none, or there are several, for an axis.
    """
    axes = [_axis(_bare(name))[1] if column not in without else "" for column, name in enumerate(table.names)]
    if any(axes.count(axis) != 1 for axis in "xyz"):
        raise ValueError(f"no x, y, z among the columns {table.listing()}")
    return [axes.index(axis) for axis in "xyz"]


def _suggest_flags(table: Table, time: Sequence[int]) -> str:
    """Suggest flags that read a table without names, as far as its numbers show which columns are which."""
    columns = [column for column in range(len(table.names)) if column not in time]
    clock = next((column for column in columns if is_clock(table, column)), None)
    numbers = [column for column in columns if column not in table.words and column != clock and not counts_rows(table, column)]
    kinds = {column: len(np.unique(table.values[:, column])) for column in numbers}
    sensors = [column for column in numbers if kinds[column] > min(MOST_LABELS, max(kinds.values()) / 10)]
    sensors = sensors if len(sensors) >= 6 else numbers
    if clock is not None and has_fraction(table, clock):
        return (
            f"; columns {clock + 1} and {clock + 2} look like seconds and the rest of them; name all columns, these secs and nsecs or usecs"
        )
    flags = "" if clock is None else f"--time-column {clock + 1} "
    hint = "" if clock is None else f"; column {clock + 1} looks like a clock"
    if len(sensors) < 6:
        return hint
    triples = [sensors[i : i + 3] for i in range(0, len(sensors) - 2, 3)]
    heavy = [triple for triple in triples if _is_gravity(table, triple)]
    first = (heavy or triples)[0]
    others = [triple for triple in triples if triple is not first]
    second = next((triple for triple in others if triple not in heavy), others[0])
    flags += f"--columns {','.join(str(column + 1) for column in (*first, *second))}"
    flags += " --rate HZ" if clock is None and not time else ""
    return f"{hint}; {flags} takes accelerometer x, y, z, then gyroscope x, y, z"


def _is_gravity(table: Table, columns: Iterable[int]) -> bool:
    """Check whether three columns together are as large as gravity, in any of its units, most of the time."""
    low, size, high = np.percentile(np.sqrt((table.values[:, list(columns)] ** 2).sum(axis=1)), [25, 50, 75])
    return bool(high - low < 0.4 * size) and any(0.75 < size / gravity < 1.25 for gravity in GRAVITY)


def _bare(name: str) -> str:
    """Return a column's name in lower case without its unit: `Accelerometer X (g)`, `acc_x_g` and `gyro x [dps]` lose theirs."""
    name = re.sub(r"[(\[].*?[)\]]", " ", name.lower())
    return re.sub(r"[_ ](mg|g|m_?p?_?s(ec)?-?2|m?dps|(deg|rad)_?p?(s|sec)?)\s*$", "", name).strip()


def _axis(name: str) -> tuple[str, str]:
    """Split a bare name into its letters without the axis, and the axis: x, y, z, or nothing."""
    match = re.search(r"(?<![a-z])[xyz](?![a-z])", name) or re.search(r"[xyz](?![a-z])", name)
    if not match:
        return name, ""
    return re.sub(r"[^a-z]", "", name[: match.start()] + name[match.end() :]), match.group()


def unit_of(names: Sequence[str], sensor: str) -> str | None:
    """Return the unit that all three names of a sensor state, else None."""
    units = {next((unit for unit, pattern in UNITS_IN_NAMES[sensor].items() if re.search(pattern, name.lower())), None) for name in names}
    return units.pop() if len(units) == 1 else None
