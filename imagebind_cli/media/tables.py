"""Tables of readings to named columns of float64: CSV and its kin, NPY, Parquet, HDF5, MATLAB. Nothing is unpickled."""

from __future__ import annotations

import csv
import importlib
import io
import math
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imagebind_cli.media.arrays import head, read_npy
from imagebind_cli.media.decoding import Source, check_file, decoding

MAX_VALUES = 50_000_000
"""A table that holds or promises more is refused: 400 MB as float64, and several times that on the way to the encoder."""

MISSING = frozenset(("", "na", "n/a", "null", "none"))
"""What stands in a cell without a reading, besides `nan`, in any case."""


@dataclass(frozen=True)
class Table:
    """Columns in the file's order.

    names: one per column, empty for a column that has none. values: (rows, columns) float64, NaN where nothing was read.
    words: per column, the cells that are no numbers, by row. lines: where each row stands in its file, if it has lines.
    notes: what had to be assumed to read it.
    """

    names: tuple[str, ...]
    values: np.ndarray
    words: Mapping[int, Mapping[int, str]] = field(default_factory=dict)
    lines: Sequence[int] | None = None
    notes: tuple[str, ...] = ()

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"

    def find(self, wanted: str) -> int:
        """The column with this name, else the one at this position, counted from 1.

        Raises:
            ValueError: there is none; the message lists those there are.
        """
        if wanted in self.names:
            return self.names.index(wanted)
        if wanted.isdecimal() and 1 <= int(wanted) <= len(self.names):
            return int(wanted) - 1
        raise ValueError(f"no column {wanted!r}; it has {self.listing()}")

    def listing(self) -> str:
        """The names of its columns, or how many there are, in few words."""
        if not any(self.names):
            return f"{len(self.names)} columns without names"
        shown = [name or "(no name)" for name in self.names[:12]]
        rest = len(self.names) - len(shown)
        return ", ".join(name[:24] for name in shown) + (f" and {rest} more" if rest else "")

    def numbers(self, columns: Sequence[int]) -> np.ndarray:
        """Some columns, (rows, columns) float64.

        Raises:
            ValueError: a cell of theirs is no number; its place is named.
        """
        bad = [(row, word) for column in columns for row, word in self.words.get(column, {}).items()]
        if bad:
            row, word = min(bad)
            raise ValueError(f"{self.place(row)}: could not convert string to float: {word[:40]!r}")
        return self.values[:, columns]


def read_table(source: Source | np.ndarray, dataset: str | None = None) -> Table:
    """A table in any of the formats, told by its first bytes.

    Args:
        dataset: which array or group of an HDF5 or MATLAB file; all that fit together if not given.
    Raises:
        OSError, ValueError: the file cannot be read, a row is short, or a package is missing that reads this format.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    check_file(source)
    start = head(source, 20)
    if start.startswith((b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3")):
        return _read_hdf5(source, dataset)
    if start.startswith(b"MATLAB 5.0"):
        return _read_matlab5(source, dataset)
    if dataset:
        raise ValueError("--dataset is for HDF5 and MATLAB files; this is neither")
    if start.startswith(b"PAR1"):
        return _read_parquet(source)
    if start.startswith(b"\x93NUMPY"):
        return _from_array(read_npy(source, MAX_VALUES))
    return _read_text(source)


def _read_text(source: Source) -> Table:
    """Lines of cells between commas, tabs, semicolons or spaces; lines that start with # are comments.

    Lines without a number before the first reading are column names, and joined where there are several (names, then units). UTF-8, or
    Latin-1 if it is not that.
    """
    with decoding("table"), open(source, "rb") if isinstance(source, str | os.PathLike) else nullcontext(source) as file:
        for encoding in ("utf-8-sig", "latin-1"):
            file.seek(0)
            text = io.TextIOWrapper(file, encoding, newline="")
            try:
                return _parsed(text)
            except UnicodeDecodeError:
                continue
            finally:
                text.detach()
    raise AssertionError("every byte is a letter of Latin-1")


def _parsed(text: io.TextIOWrapper) -> Table:
    start = text.read(65536)
    if "\0" in start[:4096]:
        raise ValueError("not a text file")
    text.seek(0)
    delimiter = _delimiter(start)
    values, lines, words = array("d"), array("q"), dict[int, dict[int, str]]()
    heading: list[list[str]] = []
    comment: list[str] = []
    width, decimal_comma = 0, False
    for line, cells in _lines(text, delimiter):
        if cells[0].lstrip().startswith("#"):
            comment = comment if width else cells
            continue
        try:
            row: list[float | None] = [float(cell) for cell in cells]
        except ValueError:
            row = [_number(cell) for cell in cells]
            if delimiter in ("\t", ";") and any("," in cell for cell in cells):
                row = [_number(cell.replace(",", ".")) for cell in cells]
                decimal_comma = decimal_comma or any(value is not None for value in row)
        if not width and all(value is None or math.isnan(value) for value in row) and None in row:
            heading.append(cells)
            continue
        width = width or len(row)
        if len(row) != width:
            raise ValueError(f"line {line}: {len(row)} columns, {width} before")
        for column in [i for i, value in enumerate(row) if value is None]:
            words.setdefault(column, {})[len(lines)] = cells[column].strip()
        values.extend(math.nan if value is None else value for value in row)
        lines.append(line)
        _check_size(len(values))
    if not lines:
        raise ValueError("holds no rows of numbers")
    notes = ("commas taken for decimal points",) if decimal_comma else ()
    return Table(_names(heading, comment, width), np.frombuffer(values).reshape(-1, width), words, lines, notes)


def _check_size(values: int, remedy: str = "") -> None:
    if values > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values{remedy}")


def _delimiter(text: str) -> str | None:
    """What separates the cells of the last of the first lines, which is likely a reading; None for spaces."""
    some = [line for line in text.splitlines()[:50] if line.strip() and not line.lstrip().startswith("#")]
    last = some[-2 if len(some) > 2 else -1] if some else ""  # the very last may be cut off
    return next((delimiter for delimiter in "\t;," if delimiter in last), None)


def _lines(text: Iterable[str], delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line that is not blank."""
    if delimiter is None:
        for number, line in enumerate(text, start=1):
            if cells := line.split():
                yield number, cells
        return
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    last = 0
    try:
        for cells in reader:
            last = reader.line_num
            if len(cells) > 1 or (cells and cells[0].strip()):
                yield last, cells
    except csv.Error:
        raise ValueError(f"line {last + 1}: a quotation mark opens here and takes in the columns and lines behind it") from None


def _number(cell: str) -> float | None:
    """A cell's number, NaN if it is empty, None if it is a word."""
    cell = cell.strip()
    if cell.lower() in MISSING:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return None


def _names(heading: list[list[str]], comment: list[str], width: int) -> tuple[str, ...]:
    fitting = [row for row in heading if len(row) == width]
    if heading and not fitting:
        raise ValueError(f"{len(heading[-1])} column names and {width} columns")
    if not fitting and comment:  # numpy.savetxt writes the names as a comment
        comment = comment[1:] if comment[0].strip() == "#" else [comment[0].lstrip("# "), *comment[1:]]
        fitting = [comment] if len(comment) == width else []
    return tuple(" ".join(filter(None, map(str.strip, cells))) for cells in zip(*fitting, strict=True)) if fitting else ("",) * width


def _from_array(values: np.ndarray) -> Table:
    """An array (t, channels) or (channels, t): a side of six is the channels, else the longer side is time."""
    if values.ndim != 2 or not values.size or values.dtype.kind not in "biuf":
        raise ValueError(f"shape {values.shape} of {values.dtype}; a table of readings, (time, channels), is needed")
    values = _time_first(values)
    return Table(("",) * values.shape[1], values.astype(np.float64, copy=False))


def _time_first(values: np.ndarray) -> np.ndarray:
    rows, columns = values.shape
    return values.T if rows == 6 or (columns != 6 and rows < columns) else values


def _from_arrays(arrays: Mapping[str, np.ndarray]) -> Table:
    """Arrays that share a length as one table: vectors under their own names, (t, 3) as NAME_x, _y, _z, others without names."""
    tables = {
        name: _time_first(values if values.ndim == 2 else values[:, None]) for name, values in arrays.items() if values.ndim in (1, 2)
    }
    rows = max((len(table) for table in tables.values()), default=0)
    names: list[str] = []
    columns: list[np.ndarray] = []
    words: dict[int, dict[int, str]] = {}
    for name, table in tables.items():
        if len(table) != rows:
            continue
        for axis, cells in enumerate(table.T):
            numbers, words_here = _floats(cells)
            if words_here:
                words[len(names)] = words_here
            names.append(name if table.shape[1] == 1 else f"{name}_{'xyz'[axis]}" if table.shape[1] == 3 else "")
            columns.append(numbers)
    if not rows:
        raise ValueError("holds no rows of numbers")
    return Table(tuple(names), np.stack(columns, axis=1), words)


def _floats(cells: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """A column as float64 and its words; an array of strings is read cell by cell."""
    if cells.dtype.kind in "biuf":
        return cells.astype(np.float64, copy=False), {}
    texts = [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else "" if cell is None else str(cell) for cell in cells]
    numbers = [_number(text) for text in texts]
    words = {row: text for row, (text, number) in enumerate(zip(texts, numbers, strict=True)) if number is None}
    return np.array([math.nan if number is None else number for number in numbers]), words


def _choose(arrays: dict[str, Any], dataset: str | None) -> dict[str, Any]:
    """The arrays of one file that are to be read: the named one, those of the named group, or all."""
    if dataset is None:
        chosen = arrays
    else:
        name = dataset.strip("/")
        chosen = {key: arrays[key] for key in arrays if key == name or key.startswith(f"{name}/")}
        if not chosen:
            raise ValueError(f"no dataset {dataset!r}; it has {', '.join(list(arrays)[:12]) or 'none'}")
    _check_size(sum(values.size for values in chosen.values()), "; --dataset names a part")
    return chosen


def _read_hdf5(source: Source, dataset: str | None) -> Table:
    """An HDF5 file or a MATLAB v7.3 one, which is HDF5. An attribute `units` of a dataset is taken for part of its name."""
    import h5py

    with decoding("HDF5 file"), h5py.File(source, "r") as file:
        found: dict[str, Any] = {}

        def note(name: str, entry: Any) -> None:
            if isinstance(entry, h5py.Dataset) and entry.ndim in (1, 2) and entry.size and not name.startswith("#"):
                found[name] = entry

        file.visititems(note)
        chosen = _choose(found, dataset)
        arrays: dict[str, np.ndarray] = {}
        for name, entry in chosen.items():
            unit = next((entry.attrs[key] for key in ("units", "unit") if key in entry.attrs), None)
            unit = f" ({unit.decode() if isinstance(unit, bytes) else unit})" if unit is not None else ""
            values = entry[()]
            if values.dtype.names:
                arrays |= {field: values[field] for field in values.dtype.names}
            elif (values.dtype.kind in "biufSUO" and entry.dtype.metadata is None) or h5py.check_string_dtype(entry.dtype):
                arrays[name.rpartition("/")[2] + unit] = values
    return _from_arrays(arrays)


def _read_matlab5(source: Source, dataset: str | None) -> Table:
    matlab = _package("scipy.io", "a MATLAB v5 file; pip install scipy reads it, or save it with -v7.3")
    with decoding("MATLAB file"):
        _check_size(sum(math.prod(shape) for _, shape, _ in matlab.whosmat(source)))
        found = {name: values for name, values in matlab.loadmat(source).items() if isinstance(values, np.ndarray)}
    arrays = {name: values for name, values in _choose(found, dataset).items() if values.dtype.kind in "biuf" and values.size}
    return _from_arrays(arrays)


def _read_parquet(source: Source) -> Table:
    parquet = _package("pyarrow.parquet", "a Parquet file; pip install pyarrow reads it")
    with decoding("Parquet file"):
        file = parquet.ParquetFile(source)
        _check_size(file.metadata.num_rows * file.metadata.num_columns)
        table = file.read()
        arrays: dict[str, np.ndarray] = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            stamped = str(column.type).startswith("timestamp")
            values = (column.cast("timestamp[ns]").cast("int64") if stamped else column).to_numpy()
            arrays |= {f"{name} (ns)" if stamped else name: values} if values.dtype.kind in "biufO" else {}
    return _from_arrays(arrays)


def _package(name: str, otherwise: str) -> Any:
    """A package that is no dependency of this one.

    Raises:
        ValueError: it is not there; `otherwise` in words.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(otherwise) from None
