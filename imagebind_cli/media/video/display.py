"""How a video's frames are displayed: mirrored and turned by its display matrix, with pixels that need not be square."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import av

UNEVEN = 32  # pixels more than this many times as wide as high, or as high as wide, are taken for damage
TOLERANCE = 1.0  # degrees that a display matrix may differ from a quarter turn


@dataclass(frozen=True)
class Orientation:
    """mirrored: left and right are swapped before the turn. quarters: turns to the left."""

    mirrored: bool = False
    quarters: int = 0

    @property
    def lying(self) -> bool:
        """Whether width and height are swapped."""
        return self.quarters % 2 == 1

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """Turn a picture (h, w, 3) to its displayed orientation."""
        return np.ascontiguousarray(np.rot90(picture[:, ::-1] if self.mirrored else picture, self.quarters))


def orientation(frame: av.VideoFrame) -> Orientation:
    """Return the orientation that the frame's display matrix gives.

    Raises:
        ValueError: something else than quarter turns and mirroring.
    """
    matrix: Any = _side_data(frame).get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # a pixel at (x, y) is shown at (a x + c y, b x + d y)
    mirrored = a * d < b * c
    degrees = math.degrees(math.atan2(-b, -a) if mirrored else math.atan2(b, a))  # to the right, as y goes down
    quarters = round(degrees / 90)
    if abs(degrees - 90 * quarters) > TOLERANCE:
        raise ValueError(f"its display matrix turns the pictures by {degrees:.0f} degrees; quarter turns are understood")
    return Orientation(mirrored, -quarters % 4)


def _side_data(frame: av.VideoFrame) -> Any:
    """Return a frame's side data by name. PyAV gives none where one kind (EXIF, views of a spatial video) is newer than itself."""
    while True:
        try:
            return frame.side_data
        except ValueError as error:
            unknown = re.match(r"(\d+) is not a valid Type", str(error))
            if unknown is None:
                raise
            frame = _without(frame, int(unknown[1]))


def _without(frame: av.VideoFrame, kind: int) -> av.VideoFrame:
    """Return a frame without side data of one kind, by FFmpeg's number for it; its pixels are shared."""
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    graph.link_nodes(source, graph.add("sidedata", f"mode=delete:type={kind}"), graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def square_size(width: int, height: int, pixel: Fraction) -> tuple[int, int]:
    """Return width and height in square pixels of a picture whose pixels are `pixel` times as wide as high; neither side shrinks.

    Raises:
        ValueError: no pixels have such a shape.
    """
    if not Fraction(1, UNEVEN) <= pixel <= UNEVEN:
        raise ValueError(f"its pixels are said to be {pixel.numerator}:{pixel.denominator}, wide to high; at most {UNEVEN}:1 is understood")
    return (round(width * pixel), height) if pixel > 1 else (width, round(height / pixel))
