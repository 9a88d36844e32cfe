"""Masks of regions, which pixels of a picture are of one: polygons and run lengths as COCO has them, or a picture beside it.

Each has `plane(width, height)`: the mask of a picture of that size, (height, width) bool. It raises a `ValueError` where it is of another size.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PolygonMask:
    """Polygons, each x, y, x, y, … in pixels. A pixel is inside if its centre is, by the even-odd rule; of several, in any of them."""

    polygons: Sequence[Sequence[float]]

    def plane(self, width: int, height: int) -> np.ndarray:
        """Fill the polygons."""
        inside = np.zeros((height, width), bool)
        for polygon in self.polygons:
            inside |= _filled(np.array(polygon, np.float64).reshape(-1, 2), width, height)
        return inside


def _filled(corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """Fill one polygon of corners (n, 2): every edge that crosses a row of pixel centres toggles all pixels to its right."""
    toggles = np.zeros((height, width + 1), np.uint8)
    for (x, y), (to_x, to_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        first, stop = (min(max(math.ceil(end - 0.5), 0), height) for end in sorted((y, to_y)))
        if first < stop:
            rows = np.arange(first, stop)
            crossed = x + (rows + 0.5 - y) * (to_x - x) / (to_y - y)
            toggles[rows, np.ceil(crossed - 0.5).clip(0, width).astype(np.int64)] ^= 1
    return np.bitwise_xor.accumulate(toggles, axis=1)[:, :width].astype(bool)


@dataclass(frozen=True)
class RunLengthMask:
    """Run lengths of pixels outside and inside in turn, column by column. size: height and width of the picture."""

    size: tuple[int, int]
    counts: tuple[int, ...]

    def plane(self, width: int, height: int) -> np.ndarray:
        """Spread the runs over the picture."""
        _check_size(self.size[1], self.size[0], width, height)
        if min(self.counts, default=0) < 0 or sum(self.counts) != width * height:
            raise ValueError(f"run lengths of {sum(self.counts):,} pixels; the mask has {width * height:,}")
        inside = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        return inside.reshape(width, height).T


@dataclass(frozen=True)
class PictureMask:
    """A picture file in which every pixel that is not 0 is inside; transparency does not count."""

    path: str

    def plane(self, width: int, height: int) -> np.ndarray:
        """Read the file."""
        from imagebind_cli.media.image import open_image  # only here: a search in a store imports no Pillow

        image = open_image(self.path)
        _check_size(image.width, image.height, width, height)
        if image.mode in ("LA", "RGBA", "PA"):
            image = image.convert({"LA": "L", "RGBA": "RGB", "PA": "P"}[image.mode])
        values = np.asarray(image) != 0
        return values.any(axis=2) if values.ndim == 3 else values


Mask = PolygonMask | RunLengthMask | PictureMask


def _check_size(width: int, height: int, wanted_width: int, wanted_height: int) -> None:
    if (width, height) != (wanted_width, wanted_height):
        raise ValueError(f"a mask of {width} x {height} pixels; the picture has {wanted_width} x {wanted_height}")


def parse_segmentation(value: Any) -> PolygonMask | RunLengthMask | None:
    """Read a COCO annotation's `segmentation`: polygons, or `counts` and `size`, the counts as numbers or as COCO's text. None where it is empty.

    Raises:
        ValueError: it is none of these.
    """
    if not value:
        return None
    if isinstance(value, list):
        return PolygonMask(tuple(map(_corners, value if isinstance(value[0], list | array) else [value])))
    counts, size = (value.get(key) for key in ("counts", "size")) if isinstance(value, dict) else (None, None)
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise ValueError("its segmentation is neither polygons nor run lengths with their counts and size")
    if isinstance(counts, str):
        return RunLengthMask((size[0], size[1]), _unpacked(counts))
    if isinstance(counts, list) and all(type(count) is int for count in counts):
        return RunLengthMask((size[0], size[1]), tuple(counts))
    raise ValueError("the counts of its segmentation are neither numbers nor COCO's text")


def _corners(polygon: Any) -> array[float]:
    """Return x, y, x, y, … of a polygon in 8 bytes each: a file may have millions.

    Raises:
        ValueError: they are not.
    """
    try:
        corners = array("d", polygon)
    except (TypeError, OverflowError):
        corners = array("d")
    if isinstance(polygon, str) or len(corners) < 6 or len(corners) % 2 or not np.isfinite(corners).all():
        raise ValueError("a polygon of its segmentation is not x, y of three corners or more")
    return corners


def _unpacked(text: str) -> tuple[int, ...]:
    """Unpack COCO's text of run lengths: 6 bits a letter from `0` on, 5 of a number, lowest first, and one that says whether more follow.

    Numbers are signed. From the fourth on each is the difference from the last but one.
    """
    counts: list[int] = []
    number = shift = 0
    for letter in text:
        bits = ord(letter) - ord("0")
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("the text of its run lengths is damaged")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("the text of its run lengths is torn")
    return tuple(counts)
