"""Boxes of rows: which region of its picture a row is of, how far two overlap, and which of many remain when overlapping ones are removed.

A box is x, y, width and height in pixels of the upright picture; a row has it as `box` in its `meta`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BOX = "box"


def box_of(meta: Mapping[str, Any]) -> list[float] | None:
    """Return the box in the `meta` of a row; None where the row is of a whole input, or has another column of that name."""
    box = meta.get(BOX)
    if isinstance(box, list) and len(box) == 4 and all(type(number) in (int, float) for number in box):
        return box
    return None


def holds_boxes(provenance: Mapping[str, Any]) -> bool:
    """Check by the record of how vectors were made whether they are of regions."""
    options = provenance.get("options")
    return bool(provenance.get("boxes")) or (isinstance(options, Mapping) and options.get("tiles") is not None)


def box_overlaps(one: Sequence[Sequence[float]] | np.ndarray, other: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """Compute intersection over union of boxes, (m, n), from (m, 4) and (n, 4); 0 where they only touch."""
    one, other = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (one, other))
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, :2] + one[:, None, 2:], other[None, :, :2] + other[None, :, 2:])
    common = (high - low).clip(min=0).prod(axis=2)
    whole = one[:, None, 2:].prod(axis=2) + other[None, :, 2:].prod(axis=2) - common
    shares: np.ndarray = common / np.where(whole > 0, whole, 1)
    return shares


def suppress(boxes: Sequence[Sequence[float]], most: float) -> list[int]:
    """Suppress boxes that overlap a better one (non-maximum suppression), and return the numbers of those that are left.

    Args:
        boxes: best first. most: the intersection over union with one that is left, beyond which a box goes.
    """
    kept: list[int] = []
    for number, box in enumerate(boxes):
        if not kept or box_overlaps([box], [boxes[other] for other in kept]).max() <= most:
            kept.append(number)
    return kept
