"""Text files with one number per pixel, as thermal cameras' programs and spreadsheets export them, to arrays."""

from __future__ import annotations

import codecs
import csv
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np

from imagebind_cli.media.decoding import Source, decoding

MAX_BYTES = 64_000_000
"""Of a text file; longer ones are refused before they are read."""

MISSING = frozenset(("", "nan", "na", "n/a", "null", "none", "-"))
NO_DATA = re.compile(r"no_?data(?:_?value)?[\s:=;,]+(-?[\d.]+(?:e[+-]?\d+)?)", re.IGNORECASE)  # ESRI's ASCII grids

QUOTED_COMMA = re.compile(r'"-?\d+,\d+"')
SPACED_COMMAS = re.compile(r"(-?\d+(,\d+)?\s+)+-?\d+(,\d+)?\s*")


def looks_like_text(start: bytes) -> bool:
    """Check whether a file that begins with these bytes can be text: no NUL, unless it says that it is UTF-16."""
    return start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or not re.search(rb"[\0-\x08\x0e-\x1a]", start)


def read_matrix(source: Source, most: int) -> tuple[np.ndarray, float | None, tuple[str, ...]] | None:
    """The block of numbers (h, w) of a text file: int64 where all are whole, else float64 with NaN for empty cells.

    Cells stand between semicolons, tabs, commas or spaces; commas are decimal where they cannot be separators. Lines before the block,
    and the numbers of its rows and columns, are left out.

    Args:
        most: numbers that are read at the most.
    Returns:
        The values, what its header says pixels without a value hold, and what was assumed; None where no line holds numbers.
    Raises:
        OSError, ValueError: the file cannot be read, is too long, or a line within the block is none of its rows.
    """
    with decoding("text file"), open(source, "rb") if isinstance(source, str | os.PathLike) else nullcontext(source) as file:
        file.seek(0)
        data = file.read(MAX_BYTES + 1)
        file.seek(0)
    if len(data) > MAX_BYTES:
        raise ValueError(f"a text file of more than {MAX_BYTES // 1_000_000} MB; save it as NPY")
    lines = [line.strip(" ") for line in _decoded(data).splitlines()]
    rows = [_row(line) for line in lines]
    widths = Counter(len(row) for row in rows if row is not None and len(row) > 1)
    if not widths:
        return None
    width = max(widths, key=lambda each: widths[each] * each)
    first = next(number for number, row in enumerate(rows) if row is not None and len(row) == width)
    block: list[Sequence[float]] = []
    for number, row in enumerate(rows[first:], start=first + 1):
        if row is not None and len(row) == width:
            block.append(row)
        elif lines[number - 1].strip():
            what = f"{len(row)} numbers" if row else repr(lines[number - 1][:40])
            raise ValueError(f"line {number}: {what}; a row of {width} numbers is needed, and one map in a file")
        if len(block) * width > most:
            raise ValueError(f"more than {most:,} values")
    values, numbered = _without_numbering(np.array(block))
    heading = [line for line in lines[:first] if line.strip()]
    commas = any(map(_has_decimal_comma, lines[first:]))
    said = {
        f"{len(heading)} line{'s' * (len(heading) > 1)} before the numbers left out": len(heading),
        "commas taken for decimal points": commas,
        "the numbers of its rows and columns left out": numbered,
    }
    whole = not commas and not any("." in line for line in lines[first:]) and bool((np.abs(values) < 2**53).all())
    if whole and (values == np.rint(values)).all():
        values = values.astype(np.int64)
    no_data = NO_DATA.search("\n".join(heading))
    return values, float(no_data[1]) if no_data else None, tuple(note for note, holds in said.items() if holds)


def _decoded(data: bytes) -> str:
    """UTF-8 or UTF-16, or Latin-1 if it is neither."""
    try:
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _has_decimal_comma(line: str) -> bool:
    if not re.search(r"\d,\d", line):
        return False
    return ";" in line or "\t" in line or bool(QUOTED_COMMA.search(line) or SPACED_COMMAS.fullmatch(line))


def _row(line: str) -> list[float] | None:
    """The numbers of a line, NaN for an empty cell; None where there are none, or other things are among them."""
    if not line or not (line[0] in '+-.,;\t"' or line[0].isdigit() or line[:3].lower() in MISSING):
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
    try:
        numbers = [_number(cell.replace(",", ".") if comma else cell) for cell in cells]
    except ValueError:
        return None
    return None if all(map(math.isnan, numbers)) else numbers


def _number(cell: str) -> float:
    cell = cell.strip().strip('"')
    return math.nan if cell.lower() in MISSING else float(cell)


def _without_numbering(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """A table (h, w) without a first row and a first column that only count, and whether there were any."""
    size = values.shape
    if len(values) > 2 and _counts(values[0, 1:]) and not _counts(values[1, 1:]):
        values = values[1:]
    if values.shape[1] > 2 and len(values) > 2 and _counts(values[:, 0]) and not _counts(values[:, 1]):
        values = values[:, 1:]
    return values, values.shape != size


def _counts(numbers: np.ndarray) -> bool:
    """Check whether numbers go up in ones from 0, 1 or 2; two is what is left of a count from one without its first."""
    return len(numbers) > 2 and numbers[0] in (0, 1, 2) and bool((np.diff(numbers) == 1).all())
