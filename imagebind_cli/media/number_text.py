"""Parse numbers in text: in recordings' tables and in maps of one number per pixel."""

from __future__ import annotations

import math

MISSING = frozenset(("", "na", "n/a", "null", "none"))  # cells without a number, besides `nan`, in any case


def parse_number(cell: str) -> float | None:
    """Return a cell's number, NaN if it is empty or marks a missing number, None if it is a word."""
    cell = cell.strip()
    if cell.lower() in MISSING:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return None
