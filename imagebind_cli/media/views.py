"""One way to look at a picture in training: a crop, a mirror image, distortions, changed colours, an erased rectangle.

Crop and erasing as torchvision's RandomResizedCrop and RandomErasing, distortions and colours as RandAugment's operations (Cubuk et al.
2019). Colour pictures and maps of one number per pixel go through the same steps with the same box and the same matrix, so that a depth map
stays aligned with its picture; colours are for pictures alone.

Two steps are not torchvision's. A crop's box is in fractions of a pixel: rounded to whole pixels, as there, a map of a quarter of its picture's
size would be off by 2 pixels of 224, and by up to 7. Erasing is a paste: through a tensor and back takes a hundred times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom

RATIOS = 3 / 4, 4 / 3  # width over height of a crop, in pixels


@dataclass(frozen=True)
class Crop:
    """A part of a picture. area: its share of the whole. ratio: width over height. left, top: its position in the spare room, 0 to 1."""

    area: float
    ratio: float
    left: float
    top: float

    def box(self, width: int, height: int) -> Box | None:
        """Return it in pixels of a picture; None where it does not fit."""
        across = math.sqrt(self.area * width * height * self.ratio)
        down = math.sqrt(self.area * width * height / self.ratio)
        if across > width or down > height:
            return None
        left, top = self.left * (width - across), self.top * (height - down)
        return left, top, left + across, top + down


@dataclass(frozen=True)
class View:
    """What is done to a picture, in this order. Every part is a share or an angle, so that pictures of one scene in other sizes agree.

    crops: tried in turn until one fits; where none does, the middle, as large as `RATIOS` let it be; empty for the middle square.
    bicubic: scaled so, else bilinear. mirror: left and right change places. operations: names from `DISTORTIONS` and `COLOURS` of
    `picture_operations`, how much of each. erased: a box in shares of the square, taken out before the pixels are normalised.
    """

    crops: tuple[Crop, ...] = ()
    bicubic: bool = False
    mirror: bool = False
    operations: tuple[tuple[str, float], ...] = ()
    erased: Box | None = None

    def picture(self, picture: Image.Image, size: int) -> Image.Image:
        """Apply the view to a picture in RGB, or of one float per pixel (mode F): (size, size)."""
        from imagebind_cli.media.picture_operations import COLOURS, DISTORTIONS, mirror  # only here: torchvision takes long to import

        resampling = Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.BILINEAR
        picture = picture.resize((size, size), resampling, box=self._box(picture.width, picture.height))
        if self.mirror:
            picture = mirror(picture)
        for name, amount in self.operations:
            if name in DISTORTIONS:
                picture = DISTORTIONS[name](picture, amount)
            elif picture.mode == "RGB":
                picture = COLOURS[name](picture, amount)
        if self.erased is not None:
            picture.paste(0, tuple(round(edge * size) for edge in self.erased))  # type: ignore[arg-type]
        return picture

    def plane(self, values: np.ndarray, size: int) -> np.ndarray:
        """Apply the view to a map (h, w): (size, size) float32."""
        return np.asarray(self.picture(Image.fromarray(values.astype(np.float32)), size))

    def _box(self, width: int, height: int) -> Box:
        if not self.crops:
            return _middle(width, height, 1.0)
        boxes = (crop.box(width, height) for crop in self.crops)
        return next((box for box in boxes if box), None) or _middle(width, height, min(max(width / height, RATIOS[0]), RATIOS[1]))


def _middle(width: int, height: int, ratio: float) -> Box:
    """Return the largest box of a ratio in the middle."""
    across, down = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, left + across, top + down
