"""Rows of CSV, TSV and JSON Lines files, read strictly: anything ambiguous is refused with its line."""

from __future__ import annotations

import codecs
import csv
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.file_kinds import archive

DELIMITERS = {".csv": ",", ".tsv": "\t"}
LONGEST = 1 << 26  # characters of a line or a cell: a file's size must not decide how much memory one takes
WORDS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
DOUBLED = 'a quotation mark inside a cell is written "", in a cell between quotation marks'


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used; those after it can be read.

    reason: what it has or lacks, as `has 3 cells for 2 columns`. cells: those of a row that is too short.
    """

    reason: str
    cells: dict[str, str] = field(default_factory=dict)


Row = dict[str, Any]


def is_table(path: Path | str) -> bool:
    """Check whether a file is CSV or TSV by its name."""
    return Path(path).suffix.lower() in DELIMITERS


def read_rows(path: Path, required: Iterable[str] = (), columns: Mapping[str, str] | None = None) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield the rows of a file, each with the line it begins on: CSV or TSV with a line of column names, else JSON Lines.

    Empty cells are left out of a row.

    Args:
        required: columns a table must have.
        columns: names to give to columns, as `parse_columns` returns them: `{"image": "file_name"}` reads the column `file_name` as `image`.
            A table must have each of them.
    Raises:
        UserError: the file cannot be read, is not UTF-8, or nothing after some line is certain; a missing or repeated column; a line that
            is not a JSON object.
    """
    lines, columns = read_lines(path), columns or {}
    if not is_table(path):
        for number, row in _json_rows(lines, path):
            yield number, row if isinstance(row, BadRow) else _renamed(row, columns)
        return
    required = [*(columns.get(name, name) for name in required), *columns.values()]
    for number, row in table_rows(lines, path, DELIMITERS[path.suffix.lower()], required=required):
        if isinstance(row, BadRow):
            yield number, BadRow(row.reason, _renamed(row.cells, columns))
        else:
            yield number, _renamed({name: cell for name, cell in row.items() if cell}, columns)


def parse_columns(texts: Iterable[str]) -> dict[str, str]:
    """Read names of columns from flags: `image=file_name` means that the column `file_name` holds what is called `image` elsewhere.

    A column may have several names: `image=file_name` and `id=file_name`.

    Raises:
        UsageError: not NAME=COLUMN, or one name twice.
    """
    columns: dict[str, str] = {}
    for text in texts:
        name, equals, column = text.partition("=")
        if not equals or not name or not column:
            raise UsageError(f"--column {text!r}: NAME=COLUMN is needed, as in image=file_name")
        if name in columns:
            raise UsageError(f"--column {text}: {name} is given twice")
        columns[name] = column
    return columns


def _renamed(row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Give columns their new names; a column that has such a name already is left out."""
    if not columns:
        return row
    others = {name: value for name, value in row.items() if name not in columns and name not in columns.values()}
    return others | {name: row[column] for name, column in columns.items() if column in row}


def read_good_rows(path: Path, required: Iterable[str] = (), columns: Mapping[str, str] | None = None) -> Iterator[tuple[int, Row]]:
    """Yield rows like `read_rows`, for files of which every row is needed.

    Raises:
        UserError: as `read_rows`, or a row cannot be used.
    """
    for number, row in read_rows(path, required, columns):
        if isinstance(row, BadRow):
            raise UserError(f"{path}:{number}: {row.reason}")
        yield number, row


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file in UTF-8, with or without a byte order mark, as they come, with their ends.

    Raises:
        UserError: it cannot be read, or a line is not UTF-8: which one, and how to convert the file; one has more than `LONGEST` characters.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            for number, line in enumerate(iter(partial(file.readline, LONGEST + 1), ""), start=1):
                if len(line) > LONGEST:
                    raise UserError(
                        f"{path}: line {number}: has more than {LONGEST:,} characters, as no line of a table or of JSON Lines does"
                    )
                data = line.encode("utf-8", "surrogateescape")
                fault = (archive(data, str(path)) if number == 1 else None) or encoding_fault(data, str(path))
                if fault:
                    raise UserError(f"{path}: line {number}: {fault}")
                yield line
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def encoding_fault(line: bytes, file: str = "FILE") -> str | None:
    """Return why a line is not text in UTF-8, with the command that converts its file; None if it is."""
    if line.isascii() and b"\0" not in line:
        return None
    encoding = next((name for mark, name in MARKS.items() if line.startswith(mark)), None)
    zeros = line.count(b"\0") / len(line)
    if encoding is None and zeros > 1 / 4:
        encoding = f"utf-{32 if zeros > 0.6 else 16}{'le' if line[0] else 'be'}"
    if encoding is not None:
        return f"not UTF-8 text but {encoding.upper()}, and cannot be decoded; convert it: {_conversion(encoding, file)}"
    try:
        line.decode()
    except UnicodeDecodeError as error:
        windows = any(0x80 <= byte < 0xA0 for byte in error.object)  # control characters in Latin-1
        name, encoding = ("Windows-1252", "cp1252") if windows else ("Latin-1", "latin1")
        byte = error.object[error.start]
        return f"not UTF-8 text: byte 0x{byte:02X} cannot be decoded; if it is {name}, convert it: {_conversion(encoding, file)}"
    return None


def _conversion(encoding: str, file: str) -> str:
    path = Path(file)
    return f"iconv -f {encoding} -t utf-8 {shlex.quote(file)} > {shlex.quote(path.stem + '.utf8' + path.suffix)}"


def table_rows(
    lines: Iterable[str], place: Path, delimiter: str, names: Sequence[str] | None = None, required: Iterable[str] = ()
) -> Iterator[tuple[int, dict[str, str] | BadRow]]:
    """Yield the rows of a table, each with the line it begins on. In TSV quotation marks are ordinary characters. Blank rows are left out.

    Args:
        names: the columns, if the first row is not that of their names. required: columns that must be there.
    Raises:
        UserError: a column is missing or comes twice; a quotation mark is open at the end, or spans lines.
    """
    for number, cells in _cells(lines, place, delimiter):
        if isinstance(cells, list) and not any(cell.strip() for cell in cells):
            continue
        if names is None:
            if isinstance(cells, BadRow):
                raise UserError(f"{place}:{number}: {cells.reason}")
            names = _checked_names(cells, place, required, delimiter)
        else:
            yield number, _row(cells, names, delimiter)
    if names is None:
        _checked_names([], place, required, delimiter)


def _cells(lines: Iterable[str], place: Path, delimiter: str) -> Iterator[tuple[int, list[str] | BadRow]]:
    csv.field_size_limit(LONGEST)  # a long sentence is not an error
    plain = delimiter == "\t"
    reader = csv.reader(
        lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL, skipinitialspace=not plain, strict=True
    )
    while True:
        number = reader.line_num + 1
        try:
            yield number, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field limit" in str(error):
                raise UserError(f"{place}:{number}: a cell begins here that has more than {LONGEST:,} characters") from None
            if "end of data" in str(error):
                raise UserError(f"{place}:{number}: a quotation mark opens here and is never closed; {DOUBLED}") from None
            if reader.line_num > number:
                raise UserError(
                    f"{place}:{number}: a quotation mark opens here and the next one, on line {reader.line_num}, does not end a cell; {DOUBLED}"
                ) from None
            yield number, BadRow(f"has text after a closing quotation mark; {DOUBLED}")


def _checked_names(cells: Sequence[str], place: Path, required: Iterable[str], delimiter: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    missing = next((name for name in required if name not in names), None)
    other = next((mark for mark in WORDS if len(names) == 1 and mark in names[0]), None)
    if missing is not None or other:
        hint = f": {WORDS[other]} separate its cells, and {WORDS[delimiter]} are needed" if other else ""
        lacking = "" if missing is None else f"no column {missing!r}; "
        raise UserError(f"{place}: {lacking}it has {', '.join(names) or 'none'}{hint}")
    twice = next((name for number, name in enumerate(names) if name and name in names[:number]), None)
    if twice is not None:
        raise UserError(f"{place}: column {twice!r} occurs twice; give each its own name")
    return names


def _row(cells: list[str] | BadRow, names: Sequence[str], delimiter: str) -> dict[str, str] | BadRow:
    if isinstance(cells, BadRow):
        return cells
    counts = f"{len(cells)} cell{'s' * (len(cells) != 1)} for {len(names)} column{'s' * (len(names) != 1)}"
    if len(cells) > len(names):
        remedy = "put a cell that holds a comma between quotation marks" if delimiter == "," else "a cell cannot hold a tab"
        return BadRow(f"has {counts}; {remedy}")
    if len(cells) < len(names):
        remedy = "a cell that is empty has its delimiter, too"
        return BadRow(f"has {counts}; {remedy}", dict(zip(names, cells, strict=False)))
    nameless = next((cell for name, cell in list(zip(names, cells, strict=True))[1:] if not name and cell.strip()), None)
    if nameless is not None:  # the first column is often the row's number
        return BadRow(f"has {nameless!r} in a column without a name")
    return {name: cell for name, cell in zip(names, cells, strict=True) if name}


def json_object(text: str) -> Row | BadRow | None:
    """Return a line's JSON object; None if it is not one."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = parse_json(text, _unique)
    except _Twice as twice:
        return BadRow(f"has {twice.args[0]!r} twice")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class _Twice(Exception):
    """A key occurs twice in a JSON object."""


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for number, key in enumerate(keys) if key in keys[:number]))
    return row


def _json_rows(lines: Iterable[str], path: Path) -> Iterator[tuple[int, Row | BadRow]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = json_object(line)
        if row is None:
            raise UserError(f"{path}:{number}: not a JSON object; JSON Lines has one on each line, and a table's name ends in .csv or .tsv")
        yield number, row
