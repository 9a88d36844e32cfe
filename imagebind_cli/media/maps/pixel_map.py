"""A map: one number per pixel, in the file's own type, and the pixels it marks as having none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_MAP_PIXELS = 32_000_000  # a header that claims more is refused before memory is reserved: each pixel becomes several 64-bit numbers


@dataclass(frozen=True)
class PixelMap:
    """The numbers of a map.

    values: (h, w) in the file's own number type; (h, w, 3) uint8 where colours were allowed and found.
    notes: what was assumed to read it.
    missing: (h, w) bool, the pixels that the file itself marks as having no value; None where it marks none.
    """

    values: np.ndarray
    notes: tuple[str, ...] = ()
    missing: np.ndarray | None = None

    @property
    def known(self) -> np.ndarray:
        """(h, w) bool: the pixels with a finite value that the file does not mark as missing."""
        known = np.isfinite(self.values if self.values.ndim == 2 else self.values[..., 0])
        return known if self.missing is None else known & ~self.missing


def equals_code(values: np.ndarray, code: float) -> np.ndarray:
    """Return where a map holds a number that may have been written with fewer digits than it has."""
    return np.abs(values - np.float64(code)) <= 1e-6 * abs(code)


def scale_values(values: np.ndarray, codes: Any, scale: tuple[float, float], notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return numbers times the scale plus the offset that their file states, and which pixels hold one of its codes for no value."""
    missing = None
    for code in np.atleast_1d(np.asarray(codes)).ravel().tolist():
        try:
            same = equals_code(values, float(code.strip("\0 ") if isinstance(code, str) else code))
        except ValueError:
            notes.append(f"its code for pixels without a value, {code!r}, is not a number and is ignored")
            continue
        missing = same if missing is None else missing | same
    if scale != (1, 0):
        notes.append(f"numbers times {scale[0]:g} plus {scale[1]:g}, as the file says")
        values = values * scale[0] + scale[1]
    return values, missing
