"""The outcome of an item: its unit vectors, the assumptions made to read it, and warnings of what was lost. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Embedding:
    """A unit vector (dim,) float32. span: the seconds of its window, where windows are kept apart.

    clock: when that began, in ISO 8601, where the file states it: `2024-05-01T12:00:05.250Z`, without the Z where it does not state the zone.
    region: of a part of a picture or map what is known of it, its `box` (x, y, width, height in pixels) above all.
    length: that the mean of its clips had before it was made a unit vector.
    """

    vector: np.ndarray
    span: tuple[float, float] | None = None
    clock: str | None = None
    length: float = 1.0
    region: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Embedded:
    """The result of an item.

    embeddings: one, or one per window or region. notes: assumptions made in reading the item. warnings: parts of the item that were lost.
    """

    embeddings: list[Embedding]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
