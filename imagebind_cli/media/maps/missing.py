"""Find pixels without a value: by the codes that programs write for them, and by the few values that stretch a range."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# What programs write where they have no value, besides the largest numbers of a type.
CODES = -99999, -32768, -32767, -10000, -9999, -999, -273.15
BEYOND_MEASURE = 1e20  # no depth or temperature is as large


def coded_as_missing(values: np.ndarray, known: np.ndarray, codes: Iterable[float], notes: list[str]) -> np.ndarray:
    """Find the pixels that hold one of the codes for no value, or an immense number, each only where it is far from all other values.

    Args:
        values: (h, w). known: (h, w) bool. notes: each code that was found is added to it.
    Returns:
        (h, w) bool.
    """
    missing = np.zeros_like(known)
    if values.dtype.itemsize < 2 or values.ndim > 2:
        return missing
    numbers = values.astype(np.float64)
    kind = np.promote_types(values.dtype, np.float32)  # -273.15 in 32 bits is another number than in 64
    groups = [known & (numbers == kind.type(code)) for code in codes]
    groups += [known & (numbers >= BEYOND_MEASURE), known & (numbers <= -BEYOND_MEASURE)]
    groups = [group for group in groups if group.any()]
    others = numbers[known & ~np.any(groups, axis=0)] if groups else numbers[:0]
    if not others.size:
        return missing
    low, high = float(others.min()), float(others.max())
    for group in groups:
        code = float(numbers[group][0])
        if low < high and max(low - code, code - high) > (high - low) / 2:
            missing |= group
            notes.append(f"{group.sum():,} pixels hold {code:g}, far from all others ({low:g} to {high:g}): taken as missing")
    return missing


def stretched_range(values: np.ndarray) -> tuple[float, float] | None:
    """Find the range of values (n,) without the few, or the one number at its end, that alone make it ten times as wide.

    Returns:
        The range of nearly all of them; None where it is as wide as that of all, within that factor.
    """
    smallest, largest = float(values.min()), float(values.max())
    inside = values[(values > smallest) & (values < largest)]
    ranges = [tuple(float(limit) for limit in np.percentile(values, (1, 99)))]
    ranges += [(float(inside.min()), float(inside.max()))] if inside.size else []
    for low, high in ranges:
        if 0 < 10 * (high - low) < largest - smallest:
            return low, high
    return None
