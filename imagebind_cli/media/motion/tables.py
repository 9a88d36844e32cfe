"""Tables of readings to named columns of float64: CSV and its kin, NPY, NPZ, zipped tables, Parquet, HDF5, MATLAB. Nothing is unpickled."""

from __future__ import annotations

import csv
import importlib
import io
import math
import os
import re
import zipfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from imagebind_cli.media.arrays import head, read_header, read_npy
from imagebind_cli.media.decoding import Source, check_file, decoding

MAX_VALUES = 50_000_000
"""A table that holds or promises more is refused: 400 MB as float64, and several times that on the way to the encoder."""

MAX_BYTES = 20 * MAX_VALUES
"""Of a table in a zip file, unpacked."""

MAX_LINE = 1 << 20
"""Letters of a line of a table."""

EXACT = 2**53
"""Whole numbers beyond it are rounded in float64: nanoseconds since 1970 to 256."""

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
TABLES = (".csv", ".tsv", ".txt")

MISSING = frozenset(("", "na", "n/a", "null", "none"))
"""What stands in a cell without a reading, besides `nan`, in any case."""


DECIMAL_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)(e[+-]?\d+)?", re.IGNORECASE)
UNIT_CELL = re.compile(r"^([nuµμm]?s|m?g|m/s.*|rad/.*|m?deg/.*|m?dps|°/.*)$", re.IGNORECASE)
"""A cell of a line of units, as it stands below a name."""

SPLIT_DECIMALS = re.compile(r"[\d,+ -]*,0\d+(,[\d,+ -]*)?")
"""A line of decimal commas between commas, `0,010,9,81`: nothing but whole numbers, one of which begins with a zero."""

THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?|[+-]?[1-9]\d{0,2}(\.\d{3})+,\d*")
"""What a comma or a point may have been put into to part thousands."""


FOREIGN = (
    (rb"#ROSBAG", "a ROS bag; write its imu topic as CSV (rostopic echo -b FILE -p /imu > imu.csv)"),
    (rb"\x89MCAP", "an MCAP file; write its imu topic as CSV"),
    (rb"SQLite format 3\0", "an SQLite database, such as ROS 2 bags are; write its readings as CSV"),
    (rb".{8}\.FIT", "a FIT file; write its accelerometer and gyroscope messages as CSV (FitCSVTool)"),
    (rb"\xd0\xcf\x11\xe0", "an old Excel workbook; save the sheet as CSV"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf", "compressed; unpack it first"),
    (rb"ARROW1", "an Arrow or Feather file; save it as Parquet"),
    (rb"\x80[\x02-\x05]", "a pickle, which is never loaded; save it as CSV, Parquet or NPZ"),
)
"""What files begin with that are not tables, and what to do with them."""


@dataclass(frozen=True)
class Table:
    """Columns in the file's order.

    names: one per column, empty for a column that has none. values: (rows, columns) float64, NaN where nothing was read.
    words: per column, the cells that are no numbers, by row. lines: where each row stands in its file, if it has lines.
    notes: what had to be assumed to read it. exact: per column of whole numbers beyond 2^53, the same as int64 (rows,).
    warnings: how much of it was changed to read it.
    """

    names: tuple[str, ...]
    values: np.ndarray
    words: Mapping[int, Mapping[int, str]] = field(default_factory=dict)
    lines: Sequence[int] | None = None
    notes: tuple[str, ...] = ()
    exact: Mapping[int, np.ndarray] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

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
            if THOUSANDS.fullmatch(word):
                raise ValueError(
                    f"{self.place(row)}: {word[:40]!r} may have a thousands separator; write numbers without, and decimals with a point"
                )
            raise ValueError(f"{self.place(row)}: could not convert string to float: {word[:40]!r}")
        return self.values[:, columns]


def read_table(source: Source | np.ndarray, dataset: str | None = None) -> Table:
    """A table in any of the formats, told by its first bytes.

    Args:
        dataset: which array or group of an HDF5, MATLAB or NPZ file, all that fit together if not given, or which table of a zip file.
    Raises:
        OSError, ValueError: the file cannot be read, a row is short, or a package is missing that reads this format.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    check_file(source)
    start = head(source, 20)
    for first_bytes, read in READERS.items():
        if start.startswith(first_bytes):
            return read(source, dataset)
    if dataset:
        raise ValueError("--dataset is for HDF5, MATLAB, NPZ and zip files; this is none of them")
    if start.startswith(b"PAR1"):
        return _read_parquet(source)
    if start.startswith(b"\x93NUMPY"):
        return _from_array(read_npy(source, MAX_VALUES))
    for pattern, what in FOREIGN:
        if re.match(pattern, start, re.DOTALL):
            raise ValueError(f"is {what}")
    return _read_text(source, _encodings(start))


def _encodings(start: bytes) -> tuple[str, ...]:
    """Encodings to try: UTF-16 by its mark, or by the zero that every other byte of plain text is, else UTF-8, then Latin-1."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ("utf-16",)
    even, odd = start[::2], start[1::2]
    for zeros, letters, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if zeros and not any(zeros) and all(letters):
            return (encoding,)
    return "utf-8-sig", "latin-1"


def _read_text(source: Source, encodings: Sequence[str]) -> Table:
    """Lines of cells between commas, tabs, semicolons, bars or spaces; lines that start with # are comments.

    Lines without a number before the first reading are column names, and joined where there are several (names, then units).
    """
    with decoding("table"), open(source, "rb") if isinstance(source, str | os.PathLike) else nullcontext(source) as file:
        for encoding in encodings:
            file.seek(0)
            text = io.TextIOWrapper(file, encoding, newline="")
            try:
                return _parsed(text)
            except UnicodeDecodeError:
                continue
            finally:
                text.detach()
    raise ValueError(f"not {encodings[0].upper()} throughout; save it as UTF-8")


def _parsed(text: io.TextIOWrapper) -> Table:
    start = text.read(65536)
    delimiter = _delimiter(start)
    _check_for_table(start, delimiter)
    text.seek(0)
    values, lines, words = array("d"), array("q"), dict[int, dict[int, str]]()
    heading: list[list[str]] = []
    comment: list[str] = []
    commas: dict[int, tuple[int, str]] = {}  # by column: the first row of a number with one, and it
    width, numbered, decimal = 0, False, False
    for line, cells in _lines(text, delimiter):
        if cells[0].lstrip().startswith("#"):
            comment = comment if width else cells
            continue
        try:
            row: list[float | None] = [float(cell) for cell in cells]
        except ValueError:
            with_comma = {column: cell.strip() for column, cell in enumerate(cells) if DECIMAL_COMMA.fullmatch(cell.strip())}
            row = [_number(cell.replace(",", ".") if column in with_comma else cell) for column, cell in enumerate(cells)]
            decimal = decimal or not all(map(THOUSANDS.fullmatch, with_comma.values()))
            commas = {column: (len(lines), cell) for column, cell in with_comma.items()} | commas
        if not width and all(value is None or math.isnan(value) for value in row) and None in row:
            heading += [] if cells[0].lower().startswith("sep=") else [cells]  # Excel's own first line
            continue
        if not width and not heading and _numbers_columns(cells):
            width, numbered = len(row), True
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
    for column, (first, cell) in commas.items() if not decimal else ():
        words.setdefault(column, {})[first] = cell  # they may all be thousands
    notes = ("commas taken for decimal points",) * decimal + ("a first row of 0, 1, 2, … taken for names of columns",) * numbered
    table = np.frombuffer(values).reshape(-1, width)
    return Table(_names(heading, comment, width), table, words, lines, notes, _exact(text, delimiter, lines, table))


def _check_for_table(start: str, delimiter: str | None) -> None:
    """Refuse what is not a table by the first letters of its text, with what to do.

    Raises:
        ValueError: it is something else, or cells cannot be told apart.
    """
    if "\0" in start[:4096]:
        raise ValueError("not a text file; a table is needed, best as CSV in UTF-8")
    if re.match(r"\s*(\{|\[\s*[\[{\d\"-])", start):
        raise ValueError("is JSON; write its readings as CSV, one column per channel")
    if re.match(r"\s*<", start):
        raise ValueError("is XML or HTML; write its readings as CSV, one column per channel")
    if delimiter == "," and any(SPLIT_DECIMALS.fullmatch(line[:1000]) for line in start.splitlines()[:50]):
        raise ValueError("decimal commas between commas cannot be told apart; put semicolons between the cells")


def _numbers_columns(cells: list[str]) -> bool:
    """Check whether a row counts from 0, as the names do that pandas gives to columns without any; the one of its index is empty."""
    counted = cells[1:] if not cells[0].strip() else cells
    return len(counted) > 3 and counted == [str(i) for i in range(len(counted))]


def _exact(text: io.TextIOWrapper, delimiter: str | None, lines: Sequence[int], values: np.ndarray) -> dict[int, np.ndarray]:
    """Columns of whole numbers that float64 rounds, read again to the last digit: int64 (rows,), 0 where there is none."""
    columns = [column for column, cells in enumerate(values.T) if _is_large(cells)]
    exact = {column: np.zeros(len(values), np.int64) for column in columns}
    if not columns:
        return {}
    text.seek(0)
    wanted = enumerate(lines)
    row, place = next(wanted)
    for line, cells in _lines(text, delimiter):
        if line != place:
            continue
        for column in columns:
            if np.isfinite(values[row, column]):
                cell = cells[column].strip()
                exact[column][row] = int(cell) if cell.isdecimal() else int(Decimal(cell.replace(",", ".")))
        row, place = next(wanted, (0, 0))
    return exact


def _is_large(cells: np.ndarray) -> bool:
    """Check whether a column holds whole numbers that int64 can tell apart and float64 cannot."""
    cells = np.abs(cells[np.isfinite(cells)])
    return bool(cells.size and EXACT < cells.max() < 2**63 and (cells % 1 == 0).all())


def _check_size(values: float, remedy: str = "") -> None:
    if values > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values{remedy}")


def _delimiter(text: str) -> str | None:
    """What separates the cells of the last of the first lines, which is likely a reading; None for spaces."""
    some = [line for line in text.splitlines()[:50] if line.strip() and not line.lstrip().startswith("#")]
    last = some[-2 if len(some) > 2 else -1] if some else ""  # the very last may be cut off
    by_spaces = last.split()
    decimals = ("," not in cell or (DECIMAL_COMMA.fullmatch(cell) and "," not in (cell[0], cell[-1])) for cell in by_spaces)
    if len(by_spaces) > 1 and ";" not in last and all(decimals):
        return next((delimiter for delimiter in "\t|" if delimiter in last), None)
    return next((delimiter for delimiter in "\t;|," if delimiter in last), None)


def _lines(text: io.TextIOWrapper, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line that is not blank."""
    lines = _bounded(text)
    if delimiter is None:
        for number, line in enumerate(lines, start=1):
            if cells := line.split():
                yield number, cells
        return
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    last = 0
    try:
        for cells in reader:
            last = reader.line_num
            if len(cells) > 1 or (cells and cells[0].strip()):
                yield last, cells
    except csv.Error:
        raise ValueError(f"line {last + 1}: a quotation mark opens here and takes in the columns and lines behind it") from None


def _bounded(text: io.TextIOWrapper) -> Iterator[str]:
    """Lines of a text, none of which may fill the memory."""
    while line := text.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(f"a line of more than {MAX_LINE:,} letters; not a table")
        yield line


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
    fitting = fitting[:1] + [[UNIT_CELL.sub(r"(\g<0>)", cell.strip()) for cell in row] for row in fitting[1:]]
    return tuple(" ".join(filter(None, map(str.strip, cells))) for cells in zip(*fitting, strict=True)) if fitting else ("",) * width


def _from_array(values: np.ndarray) -> Table:
    """An array (t, channels) or (channels, t): a side of six is the channels, else the longer side is time."""
    if values.ndim != 2 or not values.size or values.dtype.kind not in "biuf":
        raise ValueError(f"shape {values.shape} of {values.dtype}; a table of readings, (time, channels), is needed")
    values = _time_first(values)
    exact = {column: cells.astype(np.int64) for column, cells in enumerate(values.T) if cells.dtype.kind in "iu" and _is_large(cells)}
    return Table(("",) * values.shape[1], values.astype(np.float64, copy=False), exact=exact)


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
    exact: dict[int, np.ndarray] = {}
    for name, table in tables.items():
        if len(table) != rows:
            continue
        if table.dtype.kind in "mM":
            table, name = table.astype(f"{table.dtype.kind}8[ns]"), f"{name} (ns)"  # noqa: PLW2901
        for axis, cells in enumerate(table.T):
            numbers, words_here = _floats(cells)
            if cells.dtype.kind in "iumM" and _is_large(numbers):
                exact[len(names)] = np.where(np.isnan(numbers), 0, np.ma.getdata(cells).astype(np.int64))
            if words_here:
                words[len(names)] = words_here
            names.append(name if table.shape[1] == 1 else f"{name}_{'xyz'[axis]}" if table.shape[1] == 3 else "")
            columns.append(numbers)
    if not rows:
        raise ValueError("holds no rows of numbers")
    return Table(tuple(names), np.stack(columns, axis=1), words, exact=exact)


def _floats(cells: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """A column as float64 and its words; an array of strings is read cell by cell."""
    if cells.dtype.kind in "biuf":
        return np.ma.filled(cells.astype(np.float64, copy=False), np.nan), {}
    if cells.dtype.kind in "mM":
        return np.where(np.isnat(cells), np.nan, cells.astype(np.int64)), {}
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
            values = column.to_numpy()
            if column.null_count and str(column.type) in ("int64", "uint64"):  # which came as float64
                values = np.ma.masked_array(column.fill_null(0).to_numpy(), np.isnan(values))
            arrays |= {name: values} if values.dtype.kind in "biufOmM" else {}
    return _from_arrays(arrays)


def _read_zip(source: Source, dataset: str | None) -> Table:
    """An NPZ file, or a table in a zip file; nothing is unpacked to disk."""
    with decoding("zip file"), zipfile.ZipFile(source) as archive:
        names = _members(archive)
        if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
            raise ValueError("is an Excel workbook; save the sheet as CSV")
        if "content.xml" in names and "mimetype" in names:
            raise ValueError("is an OpenDocument file; save the sheet as CSV")
        if names and all(name.endswith(".npy") for name in names):
            return _read_npz(archive, dataset)
        tables = [name for name in names if name.lower().endswith(TABLES)]
        if dataset is not None and dataset not in tables:
            raise ValueError(f"no table {dataset!r}; it has {', '.join(tables[:12]) or 'none'}")
        if dataset is None and len(tables) != 1:
            what = f"several tables, {', '.join(tables[:6])}; --dataset names one" if tables else "no table that ends in .csv, .tsv or .txt"
            raise ValueError(f"is a zip file of {what}")
        info = archive.getinfo(dataset or tables[0])
        if info.file_size > MAX_BYTES:
            raise ValueError(f"{info.filename} unpacks to {info.file_size:,} bytes; at most {MAX_BYTES:,} are read")
        with archive.open(info) as member:
            start = member.read(20)
            return _read_text(member, _encodings(start))  # type: ignore[arg-type]  # it reads and seeks


def _members(archive: zipfile.ZipFile) -> list[str]:
    """Names of a zip file's files, without those that a Mac adds."""
    return [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]


def zipped_tables(source: Source | np.ndarray) -> list[str]:
    """Names of the tables in a zip file; none if it is another file."""
    if isinstance(source, np.ndarray):
        return []
    check_file(source)
    if not head(source, 20).startswith(ZIP):
        return []
    with decoding("zip file"), zipfile.ZipFile(source) as archive:
        return [name for name in _members(archive) if name.lower().endswith(TABLES)]


def _read_npz(archive: zipfile.ZipFile, dataset: str | None) -> Table:
    """NumPy's arrays in a zip file, as columns; arrays of objects are left out, and none is unpickled."""
    found: dict[str, Any] = {}
    for name in archive.namelist():
        with archive.open(name) as member:
            header = read_header(member)
        if header.shape and not header.dtype.hasobject:
            found[name.removesuffix(".npy")] = header
    arrays: dict[str, np.ndarray] = {}
    for name in _choose(found, dataset):
        with archive.open(f"{name}.npy") as member:
            values = np.lib.format.read_array(member, allow_pickle=False)
        arrays |= {field: values[field] for field in values.dtype.names} if values.dtype.names else {name: values}
    arrays = {name: values for name, values in arrays.items() if values.dtype.kind in "biufmMU"}
    if not arrays:
        raise ValueError("holds no arrays of numbers; objects are never unpickled")
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


READERS: dict[bytes, Callable[[Source, str | None], Table]] = {
    b"\x89HDF\r\n\x1a\n": _read_hdf5,
    b"MATLAB 7.3": _read_hdf5,
    b"MATLAB 5.0": _read_matlab5,
    **dict.fromkeys(ZIP, _read_zip),
}
"""By the first bytes of a file: formats of several arrays or tables, of which `dataset` names some."""
