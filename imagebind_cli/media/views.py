"""One way to look at a picture in training: a crop, a mirror image, distortions, changed colours, an erased rectangle.

Crop and erasing as torchvision's RandomResizedCrop and RandomErasing, distortions and colours as RandAugment's operations in Pillow
(Cubuk et al. 2019). Colour pictures and maps of one number per pixel go through the same steps with the same box and the same matrix, so
that a depth map stays over its picture; colours are for pictures alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

RATIOS = 3 / 4, 4 / 3
"""Width over height of a crop, in pixels."""

GREY = 128
"""What shows of a colour picture where a distortion moved it away; of a map it is 0, which is nothing known."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture. area: its share of the whole. ratio: width over height. left, top: where it lies in the spare room, 0 to 1."""

    area: float
    ratio: float
    left: float
    top: float

    def box(self, width: int, height: int) -> Box | None:
        """In pixels of a picture; None where it does not fit in."""
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
    bicubic: scaled so, else bilinear. mirror: left and right change places. operations: names from `DISTORTIONS` and `COLOURS`, how much
    of each. erased: a box in shares of the square, taken out before the pixels are normalised.
    """

    crops: tuple[Crop, ...] = ()
    bicubic: bool = False
    mirror: bool = False
    operations: tuple[tuple[str, float], ...] = ()
    erased: Box | None = None

    def picture(self, picture: Image.Image, size: int) -> Image.Image:
        """A picture in RGB, or of one floating-point number per pixel (mode F), as (size, size)."""
        resampling = Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.BILINEAR
        picture = picture.resize((size, size), resampling, box=self._box(picture.width, picture.height))
        if self.mirror:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for name, amount in self.operations:
            if name in DISTORTIONS:
                picture = DISTORTIONS[name](picture, amount)
            elif picture.mode == "RGB":
                picture = COLOURS[name](picture, amount)
        if self.erased is not None:
            picture.paste(0, tuple(round(edge * size) for edge in self.erased))  # type: ignore[arg-type]
        return picture

    def plane(self, values: np.ndarray, size: int) -> np.ndarray:
        """A map (h, w) as (size, size) float32."""
        return np.asarray(self.picture(Image.fromarray(values.astype(np.float32)), size))

    def _box(self, width: int, height: int) -> Box:
        if not self.crops:
            return _middle(width, height, 1.0)
        boxes = (crop.box(width, height) for crop in self.crops)
        return next((box for box in boxes if box), None) or _middle(width, height, min(max(width / height, RATIOS[0]), RATIOS[1]))


def _middle(width: int, height: int, ratio: float) -> Box:
    """The largest box of a ratio in the middle."""
    across, down = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, left + across, top + down


def _moved(picture: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    """Each pixel (x, y) from (a x + b y + c, d x + e y + f)."""
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_fill(picture))


def _fill(picture: Image.Image) -> tuple[int, int, int] | int:
    return (GREY, GREY, GREY) if picture.mode == "RGB" else 0


def _turned(picture: Image.Image, degrees: float) -> Image.Image:
    return picture.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=_fill(picture))


def _hue(picture: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(round(turn * 255) % 256)  # wraps round
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


def _solarize_add(picture: Image.Image, amount: float) -> Image.Image:
    """The darker half of the levels brighter."""
    return picture.point([min(255, level + int(amount)) if level < 128 else level for level in range(256)] * 3)


Operation = Callable[[Image.Image, float], Image.Image]

DISTORTIONS: dict[str, Operation] = {
    "rotate": _turned,  # degrees
    "shear_x": lambda picture, amount: _moved(picture, (1, amount, 0, 0, 1, 0)),
    "shear_y": lambda picture, amount: _moved(picture, (1, 0, 0, amount, 1, 0)),
    "translate_x": lambda picture, share: _moved(picture, (1, 0, share * picture.width, 0, 1, 0)),
    "translate_y": lambda picture, share: _moved(picture, (1, 0, 0, 0, 1, share * picture.height)),
}
"""What moves pixels."""

COLOURS: dict[str, Operation] = {
    "brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    "saturation": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "sharpness": lambda picture, factor: ImageEnhance.Sharpness(picture).enhance(factor),
    "hue": _hue,  # share of the circle
    "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "invert": lambda picture, _: ImageOps.invert(picture),
    "posterize": lambda picture, bits: ImageOps.posterize(picture, int(bits)),
    "solarize": lambda picture, threshold: ImageOps.solarize(picture, int(threshold)),
    "solarize_add": _solarize_add,
}
"""What changes them where they are."""
