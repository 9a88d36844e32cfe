"""Rows of a thermal camera's frame that are telemetry and not picture."""

from __future__ import annotations

import numpy as np

# Height and width of frames with telemetry, and how many rows it takes: FLIR's Lepton 3 and 2, Boson and Tau 2.
ROWS = {(122, 160): 2, (63, 80): 3, (258, 320): 2, (514, 640): 2, (513, 640): 1, (257, 336): 1, (257, 324): 1}
# Height and width of a Lepton's packets as they come over its wire, one or two in a row.
PACKETS = {(60, 82), (63, 82), (240, 82), (244, 82), (120, 164), (122, 164)}
FOREIGN_SHARE = 0.02  # share of the numbers in rows of telemetry that are outside the picture's range


def picture_rows(values: np.ndarray, notes: list[str]) -> slice:
    """Find the rows of a frame (h, w) that are not telemetry, by the frame's size and by numbers that its other rows do not have.

    Args:
        notes: what was cut off is added to it.
    Raises:
        ValueError: the frame holds a Lepton's packets, whose numbers and checksums are among the pixels.
    """
    height, width = values.shape
    if values.dtype.itemsize < 2:
        return slice(None)
    if values.shape in PACKETS and values.dtype.kind in "iu" and (np.diff(values[:, 0].astype(np.int64) & 0xFFF) > 0).mean() > 0.9:
        raise ValueError(f"{width} x {height} numbers are a Lepton's packets, numbers and checksums included; give the pixels alone")
    count = ROWS.get(values.shape, 0)
    picture = values[count : height - count]
    if not count or np.isnan(picture).all():
        return slice(None)
    low, high = np.nanmin(picture), np.nanmax(picture)
    first, last = (float(((rows < low) | (rows > high)).mean()) for rows in (values[:count], values[height - count :]))
    if max(first, last) < FOREIGN_SHARE:
        return slice(None)
    notes.append(f"its {'first' if first > last else 'last'} {count} rows hold telemetry, and are cut off")
    return slice(count, None) if first > last else slice(height - count)
