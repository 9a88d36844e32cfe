"""Text files with one number per pixel, as thermal cameras' programs and spreadsheets export them, to arrays."""

from __future__ import annotations

import codecs
import csv
import math
import re
from array import array
from collections import Counter

import numpy as np

from imagebind_cli.media.decoding import Source, decoding, opened
from imagebind_cli.media.number_text import parse_number

MAX_BYTES = 64_000_000  # of a text file; longer ones are refused before they are read
MAX_LINE = 4_000_000  # letters
NO_DATA = re.compile(r"no_?data(?:_?value)?[\s:=;,]+(-?[\d.]+(?:e[+-]?\d+)?)", re.IGNORECASE)  # ESRI's ASCII grids

QUOTED_COMMA = re.compile(r'"-?\d+,\d+"')
SPACED_COMMAS = re.compile(r"(-?\d+(,\d+)?\s+)+-?\d+(,\d+)?\s*")


def looks_like_text(start: bytes) -> bool:
    """Check whether a file that begins with these bytes can be text: it holds no NUL, unless it is marked as UTF-16."""
    return start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or not re.search(rb"[\0-\x08\x0e-\x1a]", start)


@decoding("text file")
def read_matrix(source: Source, most: int) -> tuple[np.ndarray, float | None, tuple[str, ...]] | None:
    """Read the block of numbers (h, w) of a text file: int64 where all are whole, else float64 with NaN for empty cells.

    Cells are separated by semicolons, tabs, commas or spaces; commas are decimal where they cannot be separators. Lines before the block,
    and the numbers of its rows and columns, are left out.

    Args:
        most: numbers that are read.
    Returns:
        The values, the number that its header says marks missing pixels, and what was assumed; None where no line holds numbers.
    Raises:
        OSError, ValueError: the file cannot be read, is too long, or a line within the block is not one of its rows.
    """
    with opened(source) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"a text file of more than {MAX_BYTES // 1_000_000} MB; save it as NPY")
    lines = [line.strip(" ") for line in _decode(data).splitlines()]
    del data
    if max(map(len, lines), default=0) > MAX_LINE:
        raise ValueError(f"a line of more than {MAX_LINE:,} letters; a map of text has a line for each row")
    rows = [_row(line) for line in lines]
    widths = Counter(len(row) for row in rows if row is not None and len(row) > 1)
    if not widths:
        return None
    width = max(widths, key=lambda each: widths[each] * each)
    first = next(number for number, row in enumerate(rows) if row is not None and len(row) == width)
    block = array("d")
    height = 0
    for number, row in enumerate(rows[first:], start=first + 1):
        if row is not None and len(row) == width:
            block.extend(row)
            height += 1
        elif lines[number - 1].strip():
            what = f"{len(row)} numbers" if row else repr(lines[number - 1][:40])
            raise ValueError(f"line {number}: {what}; a row of {width} numbers is needed, and one map in a file")
        if height * width > most:
            raise ValueError(f"more than {most:,} values")
    values, numbered = _without_numbering(np.frombuffer(block).reshape(height, width))
    heading = [line for line in lines[:first] if line.strip()]
    commas = any(map(_has_decimal_comma, lines[first:]))
    assumed = {
        f"{len(heading)} line{'s' * (len(heading) > 1)} before the numbers left out": len(heading),
        "commas taken for decimal points": commas,
        "the numbers of its rows and columns left out": numbered,
    }
    whole = not commas and not any("." in line for line in lines[first:]) and bool((np.abs(values) < 2**53).all())
    if whole and (values == np.rint(values)).all():
        values = values.astype(np.int64)
    no_data = NO_DATA.search("\n".join(heading))
    return values, float(no_data[1]) if no_data else None, tuple(note for note, holds in assumed.items() if holds)


def _decode(data: bytes) -> str:
    """Decode UTF-8 or UTF-16, or Latin-1 if it is neither."""
    try:
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _has_decimal_comma(line: str) -> bool:
    if not re.search(r"\d,\d", line):
        return False
    return ";" in line or "\t" in line or bool(QUOTED_COMMA.search(line) or SPACED_COMMAS.fullmatch(line))


def _row(line: str) -> array[float] | None:
    """Return the numbers of a line, NaN for an empty cell; None where there are none, or words are among them."""
    if not line or not (line[0] in '+-.,;\t"' or line[0].isdigit() or line[:3].lower() in ("nan", "na", "n/a")):
        return None
    comma = _has_decimal_comma(line)
    separator = next((each for each in ";\t" if each in line), None)
    if separator is not None:
        cells = line.split(separator)
    elif '"' in line or ("," in line and not comma):
        cells = next(csv.reader([line]))
    else:
        cells = line.split()
    if not cells[-1].strip():  # a separator ends the line
        cells.pop()
    numbers = array("d")
    for cell in cells:
        number = _number(cell.replace(",", ".") if comma else cell)
        if number is None:
            return None
        numbers.append(number)
    return None if all(map(math.isnan, numbers)) else numbers


def _number(cell: str) -> float | None:
    cell = cell.strip().strip('"')
    return math.nan if cell == "-" else parse_number(cell)


def _without_numbering(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return a table (h, w) without a first row and a first column that only count, and whether there were any."""
    size = values.shape
    if len(values) > 2 and _counts(values[0, 1:]) and not _counts(values[1, 1:]):
        values = values[1:]
    if values.shape[1] > 2 and len(values) > 2 and _counts(values[:, 0]) and not _counts(values[:, 1]):
        values = values[:, 1:]
    return values, values.shape != size


def _counts(numbers: np.ndarray) -> bool:
    """Check whether numbers go up in ones from 0, 1 or 2; two is what is left of a count from one without its first."""
    return len(numbers) > 2 and numbers[0] in (0, 1, 2) and bool((np.diff(numbers) == 1).all())
