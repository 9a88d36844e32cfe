"""Pictures to Pillow images in RGB, upright."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from imagebind_cli.media.decoding import Source, check_file, decoding

MAX_PIXELS = 200_000_000
"""A header that promises more is refused before anything is unpacked."""


def open_image(source: Source) -> Image.Image:
    """A picture as its file holds it: first frame, own mode, pixels read.

    Raises:
        OSError, ValueError: the file cannot be read, is no picture, or would unpack to more than `MAX_PIXELS`.
    """
    check_file(source)
    with decoding("picture"):
        image = Image.open(source)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are unpacked")
        image.load()
    return image


def read_image(source: Source) -> Image.Image:
    """A picture as RGB with 8 bits a channel: turned upright by its EXIF orientation, 16 bits scaled down, CMYK and palette converted.

    Transparency is dropped, as in the published code.

    Raises:
        OSError, ValueError: as `open_image`; also for floating-point pictures, whose range nothing says.
    """
    image = open_image(source)
    with decoding("picture"):
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # Pillow would clip 16 bits to white
            values = np.asarray(image).astype(np.int64)
            if values.min() < 0 or values.max() > 65535:
                raise ValueError(f"32-bit picture with values from {values.min()} to {values.max()}; 0 to 65535 are understood")
            image = Image.fromarray((values >> 8).astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("a floating-point picture has no stated range; save it with 8 or 16 bits")
        return image.convert("RGB")
