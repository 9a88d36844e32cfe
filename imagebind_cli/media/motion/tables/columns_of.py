"""One table of an array, or of several arrays that share a length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np

from imagebind_cli.media.motion.tables.table import EXACT, Table, TextMemory, check_size
from imagebind_cli.media.number_text import parse_number

Entry = TypeVar("Entry")


def table_of_array(values: np.ndarray) -> Table:
    """Return an array (t, channels) or (channels, t) as a table: a side of six is the channels, else the longer side is time."""
    if values.ndim != 2 or not values.size or values.dtype.kind not in "biuf":
        raise ValueError(f"shape {values.shape} of {values.dtype}; a table of readings, (time, channels), is needed")
    values = _time_first(values)
    exact = {column: cells.astype(np.int64) for column, cells in enumerate(values.T) if cells.dtype.kind in "iu" and is_large(cells)}
    return Table(("",) * values.shape[1], values.astype(np.float64, copy=False), exact=exact)


def table_of_arrays(arrays: Mapping[str, np.ndarray], memory: TextMemory) -> Table:
    """Return arrays that share a length as a table: vectors under their own names, (t, 3) as NAME_x, _y, _z, others without names.

    memory: for the cells of arrays of text.
    """
    tables = {
        name: _time_first(values if values.ndim == 2 else values[:, None]) for name, values in arrays.items() if values.ndim in (1, 2)
    }
    rows = max((len(table) for table in tables.values()), default=0)
    if not rows:
        raise ValueError("holds no rows of numbers")
    tables = {name: table for name, table in tables.items() if len(table) == rows}
    width = sum(table.shape[1] for table in tables.values())
    check_size(rows * width)
    names: list[str] = []
    filled = np.empty((rows, width))
    words: dict[int, dict[int, str]] = {}
    exact: dict[int, np.ndarray] = {}
    for name, table in tables.items():
        if table.dtype.kind in "mM":
            table, name = table.astype(f"{table.dtype.kind}8[ns]"), f"{name} (ns)"  # noqa: PLW2901
        for axis, cells in enumerate(table.T):
            column = len(names)
            if cells.dtype.kind in "biuf":
                filled[:, column] = np.ma.filled(cells.astype(np.float64, copy=False), np.nan)
            elif cells.dtype.kind in "mM":
                filled[:, column] = np.where(np.isnat(cells), np.nan, cells.astype(np.int64))
            elif found := _read_cells(cells, filled[:, column], memory):
                words[column] = found
            if cells.dtype.kind in "iumM" and is_large(filled[:, column]):
                exact[column] = np.where(np.isnan(filled[:, column]), 0, np.ma.getdata(cells).astype(np.int64))
            names.append(name if table.shape[1] == 1 else f"{name}_{'xyz'[axis]}" if table.shape[1] == 3 else "")
    return Table(tuple(names), filled, words, exact=exact)


def _read_cells(cells: Iterable[object], numbers: np.ndarray, memory: TextMemory) -> dict[int, str]:
    """Parse cells of text into numbers (rows,), and return those that are words."""
    words: dict[int, str] = {}
    last, number = "", parse_number("")  # a long word that all cells repeat is parsed once
    for row, cell in enumerate(cells):
        text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else "" if cell is None else str(cell)
        if text != last:
            last, number = text, parse_number(text)
        numbers[row] = np.nan if number is None else number
        if number is None:
            words[row] = memory.keep(text)
    return words


def is_large(cells: np.ndarray) -> bool:
    """Check whether a column holds whole numbers that int64 can distinguish and float64 cannot."""
    cells = np.abs(cells[np.isfinite(cells)])
    return bool(cells.size and EXACT < cells.max() < 2**63 and (cells % 1 == 0).all())


def _time_first(values: np.ndarray) -> np.ndarray:
    rows, columns = values.shape
    return values.T if rows == 6 or (columns != 6 and rows < columns) else values


def choose_arrays(arrays: Mapping[str, Entry], dataset: str | None) -> dict[str, Entry]:
    """Return the arrays of a file to read: the named one, those of the named group, or all.

    Raises:
        ValueError: none has that name.
    """
    if dataset is None:
        return dict(arrays)
    name = dataset.strip("/")
    chosen = {key: entry for key, entry in arrays.items() if key == name or key.startswith(f"{name}/")}
    if not chosen:
        raise ValueError(f"no dataset {dataset!r}; it has {', '.join(list(arrays)[:12]) or 'none'}")
    return chosen
