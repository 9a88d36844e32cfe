"""A table of readings, and how much memory one may take."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

# What one recording may take: numbers, text, and a copy of each on the way to the encoder stay below 2 GB.
MAX_VALUES = 50_000_000  # numbers: 400 MB as float64
MAX_TEXT_BYTES = 800_000_000  # of memory for the cells that are text
CELL_BYTES = 150  # of memory for one such cell, besides its letters

EXACT = 2**53  # larger whole numbers are rounded in float64: nanoseconds since 1970 to 256
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?|[+-]?[1-9]\d{0,2}(\.\d{3})+,\d*")  # a comma or a point may part thousands


@dataclass(frozen=True)
class Table:
    """Columns in the file's order.

    names: one per column, empty for a column without one. values: (rows, columns) float64, NaN where nothing was read.
    words: per column, the cells that are not numbers, by row. lines: the line of the file of each row, if it has lines.
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
        """Return where a row is in the file, for messages."""
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"

    def find(self, wanted: str) -> int:
        """Return the column with this name, else the one at this position, counted from 1.

        Raises:
            ValueError: there is none; the message lists the columns.
        """
        if wanted in self.names:
            return self.names.index(wanted)
        if wanted.isdecimal() and 1 <= int(wanted) <= len(self.names):
            return int(wanted) - 1
        raise ValueError(f"no column {wanted!r}; it has {self.listing()}")

    def listing(self) -> str:
        """Return the names of its columns, or how many there are, in few words."""
        if not any(self.names):
            return f"{len(self.names)} columns without names"
        shown = [name or "(no name)" for name in self.names[:12]]
        rest = len(self.names) - len(shown)
        return ", ".join(name[:24] for name in shown) + (f" and {rest} more" if rest else "")

    def numbers(self, columns: Sequence[int]) -> np.ndarray:
        """Return the given columns, (rows, columns) float64.

        Raises:
            ValueError: one of their cells is not a number; the message gives its line.
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


def check_size(values: float, remedy: str = "") -> None:
    """Refuse more numbers than a recording may have. remedy: added to the message."""
    if values > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values{remedy}")


class TextMemory:
    """The memory that a table's cells of text take; equal cells share their letters."""

    def __init__(self) -> None:
        self._left = MAX_TEXT_BYTES
        self._distinct: dict[str, str] = {}

    def reserve(self, cells: float, letters: float = 0) -> None:
        """Count cells of text before they are made. letters: bytes in all of them.

        Raises:
            ValueError: there are more than fit.
        """
        self._left -= CELL_BYTES * cells + letters  # type: ignore[assignment]
        if self._left < 0:
            raise ValueError(f"its text takes more than {MAX_TEXT_BYTES // 1_000_000} MB of memory; keep the columns of numbers")

    def keep(self, cell: str) -> str:
        """Count a cell, and return it or an equal one that is kept already."""
        shared = self._distinct.get(cell)
        self.reserve(1 if shared is not None else 2, 0 if shared is not None else sys.getsizeof(cell))
        return self._distinct.setdefault(cell, cell) if shared is None else shared
