"""Pictures to Pillow images in RGB, upright."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from imagebind_cli.media.decoding import Source, check_file, decoding

MAX_PIXELS = 200_000_000
"""A header that promises more is refused before anything is unpacked."""


LONGEST = 32
"""Of a picture longer than this many times its short side, only the middle is kept: scaled to the encoder's square it would not fit into
memory, and the crop takes the middle anyway."""


def open_image(source: Source, most: int = MAX_PIXELS, page: int = 0) -> Image.Image:
    """A picture as its file holds it: first frame, or that page of a TIFF, own mode, pixels read.

    Raises:
        OSError, ValueError: the file cannot be read, is no picture, or would unpack to more than `most` pixels.
    """
    check_file(source)
    with decoding("picture"):
        image = Image.open(source)
        if image.format == "EPS":  # Pillow would hand it to Ghostscript, and it may be a program that never ends
            raise ValueError("an EPS file, which is a program and no picture; make it a PNG first")
        if page and image.format == "TIFF":
            if page >= (pages := getattr(image, "n_frames", 1)):
                raise ValueError(f"no page {page}; it has {pages}, counted from 0")
            image.seek(page)
        if image.width * image.height > most:
            raise ValueError(f"{image.width} x {image.height} pixels; at most {most:,} are unpacked")
        image.load()
    return image


def middle(side: int, other: int) -> slice:
    """What of a side of a picture is kept beside the other one: all, or the middle of one more than `LONGEST` times as long."""
    spare = max(0, side - LONGEST * other) // 2
    return slice(spare, side - spare)


def read_image(source: Source) -> Image.Image:
    """A picture file as `upright` gives it.

    Raises:
        OSError, ValueError: as `open_image` and `upright`.
    """
    return upright(open_image(source))


def upright(image: Image.Image) -> Image.Image:
    """A picture as RGB with 8 bits a channel: turned upright by its EXIF orientation, 16 bits scaled down, CMYK and palette converted.

    Transparency is dropped, as in the published code. The picture itself may be turned, too.

    Raises:
        ValueError: a floating-point picture, whose range nothing says.
    """
    with decoding("picture"):
        ImageOps.exif_transpose(image, in_place=True)  # a large picture is never copied without need
        across, down = middle(image.width, image.height), middle(image.height, image.width)
        if (across.start, down.start) != (0, 0):
            image = image.crop((across.start, down.start, across.stop, down.stop))
        if image.mode.startswith("I"):  # Pillow would clip 16 bits to white
            values = np.asarray(image)
            if values.min() < 0 or values.max() > 65535:
                raise ValueError(f"32-bit picture with values from {values.min()} to {values.max()}; 0 to 65535 are understood")
            image = Image.fromarray((values >> 8).astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("a floating-point picture has no stated range; save it with 8 or 16 bits")
        return image if image.mode == "RGB" else image.convert("RGB")
