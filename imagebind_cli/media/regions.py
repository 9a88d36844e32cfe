"""Regions of a picture or map: boxes, masks and tiles, each cut out to be an input of its own.

A box is x, y, width and height in pixels of the upright picture, as COCO has it. Cuts are of whole pixels: every one that the box touches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from imagebind_cli.media.masks import Mask
from imagebind_cli.options.drawn import DrawnOptions

if TYPE_CHECKING:  # a search in a store imports no Pillow
    from PIL import Image

    from imagebind_cli.media.views import Box

MOST = 10_000  # regions of one input
TOUCH = 3  # decimals of a pixel to which an edge is rounded before it is said to touch the next pixel
FAR = 1e9  # pixels, farther than any picture reaches
LARGEST_SQUARE = 14_000  # pixels of a side: a square may be far larger than a long picture
BOX, SQUARE, MASK = "box", "square", "mask"

Edges = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels; right and bottom are outside


@dataclass(frozen=True)
class Region:
    """A part of a picture or map.

    box: x, y, width, height; None for the box around the mask. mask: which pixels are of it. about: what a row says of it besides: its label,
    its score.
    """

    box: Sequence[float] | None = None
    mask: Mask | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.box is None and self.mask is None:
            raise ValueError("a region has neither box nor mask")
        if self.box is not None:
            object.__setattr__(self, "box", parse_box(self.box))


def parse_box(value: Any) -> tuple[float, float, float, float]:
    """Read a box from four numbers, or from the text of them, as tables have it: `10 20 30 40`, `10,20,30,40` or with brackets.

    Raises:
        ValueError: it is not x, y, width and height.
    """
    parts = value.strip("[]() ").replace(",", " ").split() if isinstance(value, str) else value
    try:
        x, y, width, height = map(float, parts)
        if isinstance(parts, Mapping) or not all(map(math.isfinite, (x, y, width, height))):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"box {value!s:.60} is not x, y, width and height") from None
    return x, y, width, height


@dataclass(frozen=True)
class Cut:
    """A region as it is cut out of a picture of some size.

    box: the pixels of the region. edges: those that are cut out; they may reach outside the picture. mask: of the region, if it applies.
    """

    box: Edges
    edges: Edges
    about: Mapping[str, Any]
    mask: Mask | None = None

    @property
    def record(self) -> dict[str, Any]:
        """Return what a row says of the region: its `box` as x, y, width, height, and what is known of it."""
        left, top, right, bottom = self.box
        return {**self.about, "box": [left, top, right - left, bottom - top]}

    @overload
    def of(self, whole: Image.Image, fill: Sequence[float]) -> Image.Image: ...
    @overload
    def of(self, whole: np.ndarray, fill: Sequence[float]) -> np.ndarray: ...
    def of(self, whole: Image.Image | np.ndarray, fill: Sequence[float]) -> Image.Image | np.ndarray:
        """Cut the region out of a picture in RGB, or a map (h, w).

        Args:
            fill: what is put where the picture or the mask has nothing: of each channel a share of 1, or the map's value.
        """
        return self._of_map(whole, fill[0]) if isinstance(whole, np.ndarray) else self._of_picture(whole, fill)

    def _of_picture(self, whole: Image.Image, fill: Sequence[float]) -> Image.Image:
        from PIL import Image

        seen, inside = self._seen(*whole.size)
        part = whole.crop(seen)
        if seen == self.edges and inside is None:
            return part
        left, top, right, bottom = self.edges
        ground = Image.new("RGB", (right - left, bottom - top), tuple(round(255 * share) for share in fill))
        ground.paste(part, (seen[0] - left, seen[1] - top), None if inside is None else Image.fromarray(inside.astype(np.uint8) * 255))
        return ground

    def _of_map(self, whole: np.ndarray, fill: float) -> np.ndarray:
        seen, inside = self._seen(*whole.shape[::-1])
        part = whole[seen[1] : seen[3], seen[0] : seen[2]]
        left, top, right, bottom = self.edges
        ground = np.full((bottom - top, right - left), fill, whole.dtype)
        there = ground[seen[1] - top : seen[3] - top, seen[0] - left : seen[2] - left]
        np.copyto(there, part, where=True if inside is None else inside)
        return ground

    def _seen(self, width: int, height: int) -> tuple[Edges, np.ndarray | None]:
        """Return the pixels that the picture has of what is cut out, and which of them are inside the mask."""
        seen = _common(self.edges, (0, 0, width, height))
        return seen, None if self.mask is None else self.mask.plane(width, height)[seen[1] : seen[3], seen[0] : seen[2]]


def _common(one: Edges, other: Edges) -> Edges:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


@dataclass(frozen=True)
class Cuts:
    """The regions of one input. notes: what was assumed. warnings: which are clipped or left out."""

    cuts: tuple[Cut, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def cut_regions(options: DrawnOptions, width: int, height: int) -> Cuts:
    """Place the regions that options ask for in a picture or map of a size in pixels.

    Raises:
        ValueError: there are too many, none is inside, or a mask does not fit.
    """
    if options.regions is None:
        boxes = tiles(width, height, options.tile_sides())
        return Cuts(tuple(Cut(box, box, {}) for box in boxes))
    regions: Sequence[Region] = options.regions
    if len(regions) > MOST:
        raise ValueError(f"{len(regions):,} boxes; at most {MOST:,} of an input are read")
    shape = options.region_shape
    cuts, clipped, unmasked = [], 0, 0
    for region in regions:
        whole = _pixels(region, width, height)
        box = _common(whole, (0, 0, width, height))
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        mask = region.mask if shape == MASK else None
        clipped += box != whole
        unmasked += shape == MASK and mask is None
        is_whole_box = shape == BOX or (shape == MASK and mask is None)
        cuts.append(Cut(box, _middle(box) if is_whole_box else _square(box, width, height), region.about, mask))
    empty, count = len(regions) - len(cuts), len(regions)
    if not cuts:
        raise ValueError(f"none of its {count} boxes has a pixel of the picture, which is {width} x {height}" if count else "no boxes")
    of = f"of {count} box{'es' * (count > 1)}"
    warnings = [f"clipped, since they reach outside the picture: {clipped} {of}"] if clipped else []
    warnings += [f"left out, since they are empty or outside the picture: {empty} {of}"] if empty else []
    warnings += [f"cut as a box, since they have no mask: {unmasked} {of}"] if unmasked else []
    notes = []
    if shape == BOX and any(box[2] - box[0] != box[3] - box[1] for box in (cut.box for cut in cuts)):
        notes.append("only the middle of a box that is not square is seen; --region-shape square shows all of it, with its surroundings")
    if shape != MASK and any(region.mask is not None for region in regions):
        notes.append("masks are not applied; --region-shape mask does")
    return Cuts(tuple(cuts), tuple(notes), tuple(warnings))


def _pixels(region: Region, width: int, height: int) -> Edges:
    """Return the pixels that a region's box touches; some may be outside the picture."""
    if region.box is None:
        assert region.mask is not None
        inside = region.mask.plane(width, height)
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else (0, 0, 0, 0)
    x, y, across, down = region.box
    if across <= 0 or down <= 0:
        return 0, 0, 0, 0
    left, top, right, bottom = (round(min(max(edge, -FAR), FAR), TOUCH) for edge in (x, y, x + across, y + down))
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def _middle(box: Edges) -> Edges:
    """Return a box, or the middle of a very long one, as `media.image` reads a very long picture."""
    from imagebind_cli.media.image import middle

    left, top, right, bottom = box
    across, down = middle(right - left, bottom - top), middle(bottom - top, right - left)
    return left + across.start, top + down.start, left + across.stop, top + down.stop


def _square(box: Edges, width: int, height: int) -> Edges:
    """Return the smallest square around a box, moved into the picture where it fits.

    Raises:
        ValueError: it would not fit into memory.
    """
    side = max(box[2] - box[0], box[3] - box[1])
    if side > LARGEST_SQUARE:
        raise ValueError(f"a square around a box of {side:,} pixels; at most {LARGEST_SQUARE:,} are cut out, or choose --region-shape box")
    left, top = (_start(*place, side) for place in ((box[0], box[2], width), (box[1], box[3], height)))
    return left, top, left + side, top + side


def _start(first: int, stop: int, length: int, side: int) -> int:
    """Return where a stretch of `side` begins that has [first, stop) in its middle, or less so where it would leave [0, length)."""
    start = first - (side - (stop - first)) // 2
    return start if side > length else min(max(start, 0), length - side)


def tiles(width: int, height: int, sides: Sequence[Fraction]) -> list[Edges]:
    """Return squares that cover a picture, in whole pixels: those of each side in turn, row by row. Neighbours overlap by about half or more.

    sides: in fractions of the short side.
    Raises:
        ValueError: there are more than `MOST`.
    """
    found: list[Edges] = []
    for fraction in sides:
        side = max(1, round(min(width, height) * fraction))
        lefts, tops = (_steps(length, side) for length in (width, height))
        if len(found) + lefts * tops > MOST:
            raise ValueError(f"more than {MOST:,} tiles in {width} x {height} pixels; choose larger ones")
        places = ((round(left), round(top)) for left, top, _, _ in squares(width, height, side))
        found += [(left, top, left + side, top + side) for left, top in places]
    return found


def squares(width: float, height: float, side: float) -> list[Box]:
    """Return squares of a side that cover a picture, row by row: left, top, right, bottom. Neighbours overlap by half or more."""
    lefts, tops = (np.linspace(0, length - side, _steps(length, side)).tolist() for length in (width, height))
    return [(left, top, left + side, top + side) for top in tops for left in lefts]


def _steps(length: float, side: float) -> int:
    return math.ceil(round((length - side) / (side / 2), 6)) + 1
