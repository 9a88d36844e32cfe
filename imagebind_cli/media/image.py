"""Pictures to Pillow images in RGB, upright."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from imagebind_cli.media.arrays import head
from imagebind_cli.media.decoding import Source, check_file, decoding
from imagebind_cli.media.essential import JPEG, PNG, essential_jpeg, essential_png
from imagebind_cli.media.kinds import HEAD, HEIF, HEIF_SEQUENCE, RAW, UnsupportedKind, check_kind

MAX_PIXELS = 200_000_000
"""A header that promises more is refused before anything is unpacked."""


LONGEST = 32
"""Of a picture longer than this many times its short side, only the middle is kept: scaled to the encoder's square it would not fit into
memory, and the crop takes the middle anyway."""


def open_image(source: Source, most: int = MAX_PIXELS, page: int = 0, transparent: bool = False) -> Image.Image:
    """A picture as its file holds it: first frame, or that page of a TIFF, own mode, pixels read. transparent: with a PNG's mark of clear pixels.

    Raises:
        OSError, ValueError: the file cannot be read, is no picture, or would unpack to more than `most` pixels.
    """
    check_file(source)
    with decoding("picture"):
        image = identify(source, transparent=transparent)
        if page and image.format == "TIFF":
            if page >= (pages := getattr(image, "n_frames", 1)):
                raise ValueError(f"no page {page}; it has {pages}, counted from 0")
            image.seek(page)
        if image.width * image.height > most:
            raise ValueError(f"{image.width} x {image.height} pixels; at most {most:,} are unpacked")
        image.load()
    return image


def identify(source: Source, moving: bool = False, transparent: bool = False) -> Image.Image:
    """A picture of which nothing is unpacked yet, without what no pixel depends on. moving: with an animation's frames. transparent: see above.

    Raises:
        OSError, ValueError: the file cannot be read. UnsupportedKind: it is of a kind that is known and not read.
    """
    start = head(source, HEAD)
    try:
        image = Image.open(essential_png(source, moving, transparent) if start.startswith(PNG) else source)
    except UnidentifiedImageError:
        if HEIF.match(start) and (heif := _open_heif(source)):
            return heif
        check_kind(start)
        if HEIF_SEQUENCE.match(start):
            raise ValueError("a HEIC sequence, which is a video: name the modality video, or vision for both") from None
        if start.startswith(PNG):
            raise ValueError("not a readable picture: the structure of this PNG file is damaged") from None
        if not start.startswith(JPEG):
            raise
        image = Image.open(essential_jpeg(source))
    if image.format == "EPS":  # Pillow would hand it to Ghostscript, and it may be a program that never ends
        raise ValueError("an EPS file, which is a program and no picture; make it a PNG first")
    if image.format == "TIFF" and _is_raw(image):
        image.close()
        raise UnsupportedKind(f"{RAW[0]} is not supported, its first picture is a preview; {RAW[1]}")
    if not isinstance(image.info.get("xmp", b""), bytes):  # of another type than it must have, it would make `load` fail
        del image.info["xmp"]
    return image


def _is_raw(image: Any) -> bool:
    """Check whether a TIFF file is camera raw: its first picture is a small one."""
    reduced, children, dng = 254, 330, 50706  # tags NewSubfileType, SubIFDs and DNGVersion
    return dng in image.tag_v2 or (children in image.tag_v2 and image.tag_v2.get(reduced) == 1)


def _open_heif(source: Source) -> Image.Image | None:
    """A HEIC picture, its tiles assembled and turned upright; None without the extra."""
    try:
        from pi_heif import open_heif
    except ImportError:
        return None
    try:
        file = open_heif(source)
        pixels = file.size[0] * file.size[1]
        image = file.to_pillow() if pixels <= MAX_PIXELS else None
    except ValueError as error:  # of the library; ours would pass the fence in its words
        raise OSError(str(error)) from None
    if image is None:
        raise ValueError(f"{pixels:,} pixels; at most {MAX_PIXELS:,} are unpacked")
    image.format = "HEIF"
    return image


def exif_orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, where there is none or it cannot be read."""
    with suppress(Exception):  # whatever Pillow's parser meets in damaged data
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    return 1


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
        if exif_orientation(image) != 1:
            with suppress(ValueError, TypeError, KeyError, struct.error):  # it is turned before what is left of its EXIF is written anew
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
