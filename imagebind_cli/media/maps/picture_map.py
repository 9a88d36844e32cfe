"""Pictures as maps of one number per pixel: bits and channels as in the file, GDAL's scale, pixels marked as transparent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from imagebind_cli.media.decoding import Source, decoding
from imagebind_cli.media.image import count_pages, open_image
from imagebind_cli.media.maps.netpbm import COLOUR_MAP
from imagebind_cli.media.maps.pixel_map import MAX_MAP_PIXELS, PixelMap, scale_values

GDAL_METADATA, GDAL_NO_DATA = 42112, 42113  # TIFF tags
BITS_PER_SAMPLE, SAMPLES_PER_PIXEL = 258, 277  # TIFF tags
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; a palette's is one


@decoding("picture")
def read_picture_map(source: Source, start: bytes, frame: int, colours: bool) -> PixelMap:
    """Read a picture's one channel in its own bits. start: the file's first bytes. frame, colours: as `read_map`'s."""
    image = open_image(source, MAX_MAP_PIXELS, frame, transparent=True)
    notes: list[str] = []
    # Readers of the best-known PFM files ignore the size of the scale and use its sign only, the byte order.
    if image.format == "PPM" and image.info.get("scale", 1) != 1:
        notes.append("the scale of a PFM file is not applied")
    if image.format == "TIFF" and (pages := count_pages(source)) > 1:
        notes.append(f"page {frame} of {pages}")
    kind, mode, transparent = image.format, image.mode, image.info.get("transparency")
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    bits, channels = _stored_depth(image, start)
    if bits > 8 and channels > 1:
        raise ValueError(f"{bits}-bit, {channels} channels; a map has one: save the channel that holds it as {bits}-bit grey")
    alpha = np.asarray(image.getchannel("A")) == 0 if "A" in image.getbands() else None
    if mode == "1":
        image = image.convert("L")
    elif mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    values = np.asarray(image)
    if kind == "JPEG2000" and bits not in (8, 16):
        values = values >> (8 * values.dtype.itemsize - bits)  # Pillow shifts them up to fill the type
    if values.ndim == 3 and values.shape[-1] < 3:  # grey with transparency
        values = values[..., 0]
    elif values.ndim == 3:
        values = values[..., :3]
        if (values == values[..., :1]).all():  # many programs save grey as three equal channels
            values = values[..., 0]
        elif not colours:
            raise ValueError(f"a colour picture (mode {mode}); one value per pixel is needed")
    missing = alpha if alpha is not None and not alpha.all() else None
    if mode in ("L", "I;16") and isinstance(transparent, int) and bits in (8, 16):  # the grey that a PNG declares transparent
        missing = values == transparent
    if kind == "TIFF" and values.ndim == 2:
        values, marked = scale_values(values, tags.get(GDAL_NO_DATA, ()), _gdal_scale(str(tags.get(GDAL_METADATA, ""))), notes)
        missing = marked if missing is None else missing if marked is None else missing | marked
    return PixelMap(values, tuple(notes), missing)


def _stored_depth(image: Image.Image, start: bytes) -> tuple[int, int]:
    """Return bits per number and channels per pixel as in the file; Pillow gives colours 8 bits whatever they had."""
    channels = len(image.getbands())
    if image.format == "PNG":
        return start[24], PNG_CHANNELS.get(start[25], channels)
    if image.format == "TIFF":
        tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
        return max(tags.get(BITS_PER_SAMPLE, (1,))), tags.get(SAMPLES_PER_PIXEL, 1)
    if image.format == "PPM" and (colours := COLOUR_MAP.match(start)):
        return (16 if int(colours[1]) > 255 else 8), channels
    if image.format == "JPEG2000" and (at := start.find(b"\xff\x4f\xff\x51")) >= 0 and len(start) > at + 42:
        return (start[at + 42] & 0x7F) + 1, channels
    return 8, channels


def _gdal_scale(metadata: str) -> tuple[float, float]:
    """Return the scale and offset that GDAL's metadata give for the first band; 1 and 0 where they give none."""
    roles: dict[str, float] = {}
    for item in re.findall(r"<Item([^>]*)>([^<]*)<", metadata):
        role = re.search(r'role="(scale|offset)"', item[0])
        if role and 'sample="0"' in item[0]:
            roles[role[1]] = float(item[1])
    return roles.get("scale", 1.0), roles.get("offset", 0.0)
