"""Recordings as text: lines of cells between commas, tabs, semicolons, bars or spaces."""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from decimal import Decimal

import numpy as np

from imagebind_cli.media.decoding import Source, decoding, first_bytes, opened
from imagebind_cli.media.motion.tables.columns_of import is_large
from imagebind_cli.media.motion.tables.table import THOUSANDS, Table, TextMemory, check_size
from imagebind_cli.media.number_text import parse_number

MAX_LINE = 1 << 20  # letters of a line, and of lines that quotation marks join

DECIMAL_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)(e[+-]?\d+)?", re.IGNORECASE)
# A cell of a line of units, as found below a name.
UNIT_CELL = re.compile(r"^([nuµμm]?s|m?g|m/s.*|rad/.*|m?deg/.*|m?dps|°/.*)$", re.IGNORECASE)
# A line of decimal commas between commas, `0,010,9,81`: nothing but whole numbers, one of which begins with a zero.
SPLIT_DECIMALS = re.compile(r"[\d,+ -]*,0\d+(,[\d,+ -]*)?")


def _encodings(start: bytes) -> tuple[str, ...]:
    """Return the encodings to try: UTF-16 by its mark, or where every other byte is zero, else UTF-8, then Latin-1."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ("utf-16",)
    even, odd = start[::2], start[1::2]
    for zeros, letters, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if zeros and not any(zeros) and all(letters):
            return (encoding,)
    return "utf-8-sig", "latin-1"


@decoding("table")
def read_text_table(source: Source) -> Table:
    """Read lines of cells; lines that start with # are comments.

    Lines without a number before the first reading are column names, and joined where there are several (names, then units).
    """
    encodings = _encodings(first_bytes(source, 20))
    with opened(source) as file:
        for encoding in encodings:
            file.seek(0)
            text = io.TextIOWrapper(file, encoding, newline="")
            try:
                return _parse(text)
            except UnicodeDecodeError:
                continue
            finally:
                text.detach()
    raise ValueError(f"not {encodings[0].upper()} throughout; save it as UTF-8")


def _parse(text: io.TextIOWrapper) -> Table:
    start = text.read(65536)
    delimiter = _delimiter(start)
    _check_for_table(start, delimiter)
    text.seek(0)
    values, lines, words = array("d"), array("q"), dict[int, dict[int, str]]()
    memory = TextMemory()
    heading: list[list[str]] = []
    comment: list[str] = []
    commas: dict[int, tuple[int, str]] = {}  # by column: the first number with a comma, after its row
    width, numbered, decimal = 0, False, False
    for line, cells in _records(text, delimiter):
        if cells[0].lstrip().startswith("#"):
            comment = comment if width else cells
            continue
        try:
            row: list[float | None] = [float(cell) for cell in cells]
        except ValueError:
            with_comma = {column: cell.strip() for column, cell in enumerate(cells) if DECIMAL_COMMA.fullmatch(cell.strip())}
            row = [parse_number(cell.replace(",", ".") if column in with_comma else cell) for column, cell in enumerate(cells)]
            decimal = decimal or not all(map(THOUSANDS.fullmatch, with_comma.values()))
            commas = {column: (len(lines), cell) for column, cell in with_comma.items()} | commas
        if not width and all(value is None or math.isnan(value) for value in row) and None in row:
            if not cells[0].lower().startswith("sep="):  # Excel's own first line
                heading.append(list(map(memory.keep, cells)))
            continue
        if not width and not heading and _is_numbering(cells):
            width, numbered = len(row), True
            continue
        width = width or len(row)
        if len(row) != width:
            raise ValueError(f"line {line}: {len(row)} columns, {width} before")
        for column in [i for i, value in enumerate(row) if value is None]:
            words.setdefault(column, {})[len(lines)] = memory.keep(cells[column].strip())
        values.extend(math.nan if value is None else value for value in row)
        lines.append(line)
        check_size(len(values))
    if not lines:
        raise ValueError("holds no rows of numbers")
    for column, (first, cell) in commas.items() if not decimal else ():
        words.setdefault(column, {})[first] = cell  # they may all be thousands
    notes = ("commas taken for decimal points",) * decimal + ("a first row of 0, 1, 2, … taken for names of columns",) * numbered
    table = np.frombuffer(values).reshape(-1, width)
    return Table(_names(heading, comment, width), table, words, lines, notes, _exact(text, delimiter, lines, table))


def _check_for_table(start: str, delimiter: str | None) -> None:
    """Refuse what is not a table by the beginning of its text, with what to do.

    Raises:
        ValueError: it is something else, or cells cannot be separated.
    """
    if "\0" in start[:4096]:
        raise ValueError("not a text file; a table is needed, best as CSV in UTF-8")
    if re.match(r"\s*(\{|\[\s*[\[{\d\"-])", start):
        raise ValueError("is JSON; write its readings as CSV, one column per channel")
    if re.match(r"\s*<", start):
        raise ValueError("is XML or HTML; write its readings as CSV, one column per channel")
    if delimiter == "," and any(SPLIT_DECIMALS.fullmatch(line[:1000]) for line in start.splitlines()[:50]):
        raise ValueError("decimal commas between commas cannot be told apart; put semicolons between the cells")


def _is_numbering(cells: list[str]) -> bool:
    """Check whether a row counts from 0, as pandas names columns that have no names; its index has an empty one."""
    counted = cells[1:] if not cells[0].strip() else cells
    return len(counted) > 3 and counted == [str(i) for i in range(len(counted))]


def _exact(text: io.TextIOWrapper, delimiter: str | None, lines: Sequence[int], values: np.ndarray) -> dict[int, np.ndarray]:
    """Read columns of whole numbers that float64 rounds again, to the last digit: int64 (rows,), 0 where there is none."""
    columns = [column for column, cells in enumerate(values.T) if is_large(cells)]
    exact = {column: np.zeros(len(values), np.int64) for column in columns}
    if not columns:
        return {}
    text.seek(0)
    wanted = enumerate(lines)
    row, place = next(wanted)
    for line, cells in _records(text, delimiter):
        if line != place:
            continue
        for column in columns:
            if np.isfinite(values[row, column]):
                cell = cells[column].strip()
                exact[column][row] = int(cell) if cell.isdecimal() else int(Decimal(cell.replace(",", ".")))
        row, place = next(wanted, (0, 0))
    return exact


def _delimiter(text: str) -> str | None:
    """Return what separates cells, by the last of the first lines, which is likely a reading; None for spaces."""
    first = [line for line in text.splitlines()[:50] if line.strip() and not line.lstrip().startswith("#")]
    last = first[-2 if len(first) > 2 else -1] if first else ""  # the very last may be cut off
    by_spaces = last.split()
    decimals = ("," not in cell or (DECIMAL_COMMA.fullmatch(cell) and "," not in (cell[0], cell[-1])) for cell in by_spaces)
    if len(by_spaces) > 1 and ";" not in last and all(decimals):
        return next((delimiter for delimiter in "\t|" if delimiter in last), None)
    return next((delimiter for delimiter in "\t;|," if delimiter in last), None)


def _records(text: io.TextIOWrapper, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each line that is not blank; quotation marks may join several lines to one.

    Raises:
        ValueError: a line is too long, or a quotation mark stays open.
    """
    letters = 0  # since the last record

    def lines() -> Iterator[str]:
        nonlocal letters
        while line := text.readline(MAX_LINE):
            letters += len(line)
            if letters >= MAX_LINE:
                raise ValueError(f"a line of more than {MAX_LINE:,} letters; not a table")
            yield line

    if delimiter is None:
        for number, line in enumerate(lines(), start=1):
            letters = 0
            if cells := line.split():
                yield number, cells
        return
    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    last = 0
    try:
        for cells in reader:
            last, letters = reader.line_num, 0
            if len(cells) > 1 or (cells and cells[0].strip()):
                yield last, cells
    except csv.Error:
        raise ValueError(f"line {last + 1}: a quotation mark opens here and includes the columns and lines after it") from None


def _names(heading: list[list[str]], comment: list[str], width: int) -> tuple[str, ...]:
    """Name the columns by the lines above the numbers, the lowest last, or by the comment before them."""
    fitting = [row for row in heading if len(row) == width]
    if heading and not fitting:
        raise ValueError(f"{len(heading[-1])} column names and {width} columns")
    if not fitting and comment:  # numpy.savetxt writes the names as a comment
        comment = comment[1:] if comment[0].strip() == "#" else [comment[0].lstrip("# "), *comment[1:]]
        fitting = [comment] if len(comment) == width else []
    fitting = fitting[:1] + [[UNIT_CELL.sub(r"(\g<0>)", cell.strip()) for cell in row] for row in fitting[1:]]
    return tuple(" ".join(filter(None, map(str.strip, cells))) for cells in zip(*fitting, strict=True)) if fitting else ("",) * width
