"""Mirroring, distortions and changes of colour in training, by torchvision's functionals on Pillow pictures.

Import this only where a picture is varied: torchvision takes a second or two, and `embed` does without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

GREY = 128  # fills a colour picture where a distortion moved it away; in a map the fill is 0, which means unknown

Operation = Callable[[Image.Image, float], Image.Image]


def mirror(picture: Image.Image) -> Image.Image:
    """Mirror left and right."""
    return F.horizontal_flip(picture)


def _fill(picture: Image.Image) -> int:
    return GREY if picture.mode == "RGB" else 0


def _rotate(picture: Image.Image, degrees: float) -> Image.Image:
    return F.rotate(picture, degrees, InterpolationMode.BILINEAR, fill=_fill(picture))


def _affine(picture: Image.Image, *, shear: tuple[float, float] = (0.0, 0.0), translate: tuple[float, float] = (0.0, 0.0)) -> Image.Image:
    """Shear by pixels a pixel, from the upper left corner, and translate by shares of the sides: each pixel from so much further right or down."""
    return F.affine(
        picture,
        angle=0.0,
        translate=[-share * side for share, side in zip(translate, picture.size, strict=True)],
        scale=1.0,
        shear=[math.degrees(math.atan(slope)) for slope in shear],
        interpolation=InterpolationMode.BILINEAR,
        fill=_fill(picture),
        center=[0, 0],
    )


def _posterize(picture: Image.Image, bits: float) -> Image.Image:
    """Posterize; 0 bits, the strongest, give black, as they did until Pillow 13, which refuses them."""
    return F.posterize(picture, int(bits)) if bits >= 1 else Image.new(picture.mode, picture.size)


def _solarize_add(picture: Image.Image, amount: float) -> Image.Image:
    """Brighten the darker half of the levels; torchvision has no such operation."""
    return picture.point([min(255, level + int(amount)) if level < 128 else level for level in range(256)] * 3)


# Operations that move pixels.
DISTORTIONS: dict[str, Operation] = {
    "rotate": _rotate,  # degrees
    "shear_x": lambda picture, slope: _affine(picture, shear=(slope, 0.0)),
    "shear_y": lambda picture, slope: _affine(picture, shear=(0.0, slope)),
    "translate_x": lambda picture, share: _affine(picture, translate=(share, 0.0)),
    "translate_y": lambda picture, share: _affine(picture, translate=(0.0, share)),
}

# Operations that change colours.
COLOURS: dict[str, Operation] = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "sharpness": F.adjust_sharpness,
    "hue": F.adjust_hue,  # share of the circle, up to half of it either way
    "autocontrast": lambda picture, _: F.autocontrast(picture),
    "equalize": lambda picture, _: F.equalize(picture),
    "invert": lambda picture, _: F.invert(picture),
    "posterize": _posterize,
    "solarize": F.solarize,
    "solarize_add": _solarize_add,
}
