"""Squares that cover a picture, and the heat map that adds up what each says of the places in it.

Dimensions: q queries, (gh, gw) a grid of patches, (rows, columns) a heat map.
"""

from __future__ import annotations

import numpy as np

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.media.views import Box, Crop, View

SHORT = 256  # cells of a heat map along the short side of a picture, at most
LONGEST = 4096  # and along the long side
NEAR = 1e-6  # of the range of a map: values this close to the largest are equally large


def square_view(box: Box, width: int, height: int) -> View:
    """Return the view of a picture that is one square of it."""
    side = box[2] - box[0]
    left, top = (start / (length - side) if length > side else 0.0 for start, length in zip(box[:2], (width, height), strict=True))
    area = side**2 / (width * height) * (1 - 1e-12)  # else rounding may make the square larger than the picture
    return View(crops=(Crop(area, 1.0, left, top),), bicubic=True)


class Axis:
    """The patches of an encoder along one axis of its input: a patch of `kernel` pixels every `step` pixels."""

    def __init__(self, kernel: int, step: int, patches: int) -> None:
        self.centres = kernel / 2 + step * np.arange(patches)

    def weights(self, places: np.ndarray) -> np.ndarray:
        """Return how much each patch counts at places in pixels of the input, (places, patches): linear between two centres."""
        weights = np.zeros((len(places), len(self.centres)), np.float32)
        if len(self.centres) == 1:
            return weights + 1
        step = self.centres[1] - self.centres[0]
        at = ((places - self.centres[0]) / step).clip(0, len(self.centres) - 1)
        left = np.minimum(at.astype(np.int64), len(self.centres) - 2)
        rows = np.arange(len(places))
        weights[rows, left], weights[rows, left + 1] = 1 - (at - left), at - left
        return weights


def map_axes(config: EncoderConfig) -> tuple[Axis, Axis]:
    """Return the two axes of the patches of pictures or spectrograms: down and across."""
    down, across = (Axis(*patch) for patch in zip(config.patch[-2:], config.stride[-2:], config.grid[-2:], strict=True))
    return down, across


class Canvas:
    """Heat maps of some queries over a picture: at each place the mean of what covers it.

    Args:
        width, height: of the picture, in any unit.
        queries: how many there are. short, longest: cells along its short and its long side, at most; a cell is never smaller than one unit.
    """

    def __init__(self, width: float, height: float, queries: int, short: int = SHORT, longest: int = LONGEST) -> None:
        self.width, self.height = width, height
        scale = min(1.0, short / min(width, height), longest / max(width, height))
        rows, columns = (max(1, round(length * scale)) for length in (height, width))
        self._down, self._across = ((np.arange(cells) + 0.5) * length / cells for cells, length in ((rows, height), (columns, width)))
        self._sums = np.zeros((queries, rows, columns), np.float32)
        self._counts = np.zeros((rows, columns), np.float32)

    def add(self, box: Box, level: np.ndarray, maps: np.ndarray | None, axes: tuple[Axis, Axis], pixels: tuple[float, float]) -> None:
        """Add what a part of the picture says.

        Args:
            box: the part. level: what counts in all of it, (q,). maps: what each patch adds, (q, gh, gw), if any.
            axes: of the patches. pixels: height and width of the part in pixels of the encoder's input.
        """
        down, across = (slice(*np.searchsorted(places, edges)) for places, edges in ((self._down, box[1::2]), (self._across, box[0::2])))
        if maps is None:
            values = level[:, None, None]
        else:
            weights = (
                axis.weights((places - start) / (end - start) * size)
                for axis, places, start, end, size in (
                    (axes[0], self._down[down], box[1], box[3], pixels[0]),
                    (axes[1], self._across[across], box[0], box[2], pixels[1]),
                )
            )
            rows, columns = weights
            values = level[:, None, None] + rows @ maps @ columns.T
        self._sums[:, down, across] += values
        self._counts[down, across] += 1

    def heat(self) -> np.ndarray:
        """Return the maps (q, rows, columns) float32."""
        return self._sums / np.maximum(self._counts, 1)


def peak_cell(heat: np.ndarray) -> tuple[int, int]:
    """Return row and column of the largest value (rows, columns); of several cells that are equally large, the one nearest to their middle."""
    rows, columns = np.nonzero(heat >= heat.max() - NEAR * (heat.max() - heat.min()))
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(rows[nearest]), int(columns[nearest])


def region_box(heat: np.ndarray, cell: tuple[int, int], threshold: float) -> tuple[int, int, int, int]:
    """Return the box around what is connected with a cell and not below a threshold: left, top, right, bottom in cells, the last two exclusive."""
    inside = heat >= threshold
    region = np.zeros_like(inside)
    region[cell] = True
    while True:
        grown = region.copy()
        grown[1:] |= region[:-1]
        grown[:-1] |= region[1:]
        grown[:, 1:] |= region[:, :-1]
        grown[:, :-1] |= region[:, 1:]
        grown = grown & inside | region
        if (grown == region).all():
            break
        region = grown
    rows, columns = np.nonzero(region)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
