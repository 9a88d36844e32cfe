"""Pictures to Pillow images in RGB, upright."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from imagebind_cli.media.clock import parse_clock
from imagebind_cli.media.decoding import Source, check_file, decoding, first_bytes
from imagebind_cli.media.essential import JPEG, PNG, essential_jpeg, essential_png
from imagebind_cli.media.isolation import call_apart
from imagebind_cli.media.picture_kinds import HEAD, HEIF, HEIF_SEQUENCE, RAW, UnsupportedKind, check_kind

MAX_PIXELS = 178_956_970  # a header that claims more is refused before memory is reserved; Pillow's own limit, twice `MAX_IMAGE_PIXELS`
MAX_PAGES = 10_000  # of a TIFF file; Pillow's time grows with the square of their number
# Of a picture longer than this many times its short side, only the middle is kept: scaled to the encoder's square it would not fit into
# memory, and the crop takes the middle anyway.
LONGEST = 32
TIFF = b"II*\0", b"II+\0", b"MM\0*", b"MM\0+"
# First bytes of WebP, AVIF, HEIF, JPEG 2000 and TIFF, and of icons that hold JPEG 2000.
APART = re.compile(rb"RIFF....WEBP|....ftyp(avi|he[iv]|mi[fa]|msf)|\0\0\0\x0cjP|\xff\x4f\xff\x51|II[*+]\0|MM\0[*+]|icns", re.DOTALL)
TAGS = frozenset((258, 277, 42112, 42113))  # of TIFF: bits and samples of a pixel, GDAL's metadata and its code for no value
CLOCK = ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal
SIZE = "size before decoding"  # key of a picture's `info`, where it was decoded at a smaller scale
INFO = frozenset(("transparency", "background"))  # what conversions between modes heed


@decoding("picture")
def open_image(source: Source, most: int = MAX_PIXELS, page: int = 0, transparent: bool = False, short: int = 0) -> Image.Image:
    """Read a picture in its own mode: the first frame, or that page of a TIFF. transparent: keep a PNG's mark of clear pixels.

    short: decode a JPEG at the smallest scale of 1, 1/2, 1/4 and 1/8 at which its short side has so many pixels; its `info` then has its size
    under `SIZE`.

    Formats whose libraries are large are read in a separate process; what Pillow reads by itself, and JPEG, here.

    Raises:
        OSError, ValueError: the file cannot be read, is not a picture, or would unpack to more than `most` pixels.
    """
    check_file(source)
    start = first_bytes(source, HEAD)
    if not APART.match(start):
        return _open_here(source, most, page, transparent, short)
    if start.startswith(TIFF):
        with identify(source):  # raises, in Pillow's own words, on a TIFF that it refuses
            pass
    pixels: _Pixels = call_apart("imagebind_cli.media.image:_read_pixels", source, most, page)
    return pixels.image()


@dataclass(frozen=True)
class _Pixels:
    """Carry a picture between two processes."""

    mode: str
    size: tuple[int, int]
    content: bytes
    palette: tuple[str, bytes] | None
    format: str | None
    exif: bytes
    info: dict[str | tuple[int, int], Any]
    tags: dict[int, Any]

    def image(self) -> Image.Image:
        image = Image.frombytes(self.mode, self.size, self.content)
        if self.palette is not None:
            image.putpalette(self.palette[1], self.palette[0])
        image.format, image.info = self.format, self.info | {"exif": self.exif}
        image.tag_v2 = self.tags  # type: ignore[attr-defined]
        return image


def _read_pixels(source: Source, most: int, page: int) -> _Pixels:
    image = _open_here(source, most, page, False)
    palette = None if image.palette is None else image.palette.getdata()
    tags = {tag: value for tag, value in getattr(image, "tag_v2", {}).items() if tag in TAGS}
    info: dict[str | tuple[int, int], Any] = {key: value for key, value in image.info.items() if key in INFO}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = exif_orientation(image)
    with suppress(Exception):  # whatever Pillow's parser meets in damaged data
        taken = image.getexif().get_ifd(ExifTags.IFD.Exif)
        exif.get_ifd(ExifTags.IFD.Exif).update({tag: taken[tag] for tag in CLOCK if isinstance(taken.get(tag), str)})
    return _Pixels(image.mode, image.size, image.tobytes(), palette, image.format, exif.tobytes(), info, tags)


@decoding("picture")
def _open_here(source: Source, most: int, page: int, transparent: bool, short: int = 0) -> Image.Image:
    image = identify(source, transparent=transparent, most=most)
    if page and image.format == "TIFF":
        if page >= (pages := count_pages(source)):
            raise ValueError(f"no page {page}; it has {pages}, counted from 0")
        image.seek(page)
    if image.width * image.height > most:
        raise ValueError(f"{image.width} x {image.height} pixels; at most {most:,} are unpacked")
    if short and image.format in ("JPEG", "MPO"):
        image.info[SIZE] = image.size
        image.draft(None, (short, short))  # neither side becomes shorter than this
    image.load()
    return image


@decoding("picture")
def count_pages(source: Source) -> int:
    """Count the pages of a TIFF file.

    Raises:
        ValueError: there are more than `MAX_PAGES`.
    """
    image = identify(source)
    for page in range(1, MAX_PAGES + 1):
        try:
            image.seek(page)
        except EOFError:
            return page
    raise ValueError(f"a TIFF file of more than {MAX_PAGES:,} pages; split it")


@decoding("picture")
def identify(source: Source, moving: bool = False, transparent: bool = False, most: int = MAX_PIXELS) -> Image.Image:
    """Open a picture without unpacking its pixels. moving: with an animation's frames. transparent: as `open_image`'s.

    most: pixels of a HEIC picture, which is unpacked here already.

    Raises:
        OSError, ValueError: the file cannot be read. UnsupportedKind: it is of a kind that is recognised but not read.
    """
    start = first_bytes(source, HEAD)
    try:
        image = _open(essential_png(source, moving, transparent) if start.startswith(PNG) else source)
    except UnidentifiedImageError:
        if HEIF.match(start) and (heif := _open_heif(source, most)):
            return heif
        check_kind(start)
        if HEIF_SEQUENCE.match(start):
            raise ValueError("a HEIC sequence, which is a video: name the modality video, or vision for both") from None
        if start.startswith(PNG):
            raise ValueError("not a readable picture: the structure of this PNG file is damaged") from None
        if not start.startswith(JPEG):
            raise
        image = _open(essential_jpeg(source))
    if image.format == "EPS":  # Pillow would hand it to Ghostscript, and it may be a program that never ends
        raise ValueError("an EPS file, which is a program and not a picture; make it a PNG first")
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


def _open(source: Source) -> Image.Image:
    try:
        return Image.open(source)
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels, which are not unpacked") from None


def _open_heif(source: Source, most: int) -> Image.Image | None:
    """Open a HEIC picture, its tiles assembled and turned upright; None without the extra."""
    try:
        from pi_heif import open_heif
    except ImportError:
        return None
    try:
        file = open_heif(source)
        width, height = file.size
        image = file.to_pillow() if width * height <= most else None
    except ValueError as error:  # of the library; ours would pass the guard in its words
        raise OSError(str(error)) from None
    if image is None:
        raise ValueError(f"{width} x {height} pixels; at most {most:,} are unpacked")
    image.format = "HEIF"
    return image


def exif_orientation(image: Image.Image) -> int:
    """Return EXIF's orientation; 1, upright, where there is none or it cannot be read."""
    with suppress(Exception):  # whatever Pillow's parser meets in damaged data
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    return 1


def exif_clock(image: Image.Image) -> datetime | None:
    """Return when a picture was taken, by EXIF: in UTC where it states an offset, else the camera's local time; None where it does not say."""
    with suppress(Exception):
        exif = image.getexif().get_ifd(ExifTags.IFD.Exif)
        return parse_clock(exif[ExifTags.Base.DateTimeOriginal] + exif.get(ExifTags.Base.OffsetTimeOriginal, "").strip())
    return None


def middle(side: int, other: int) -> slice:
    """Return the part of a side that is kept: all of it, or the middle where it is more than `LONGEST` times as long as the other."""
    spare = max(0, side - LONGEST * other) // 2
    return slice(spare, side - spare)


@decoding("picture")
def read_image(source: Source) -> Image.Image:
    """Read a picture file as RGB, upright.

    Raises:
        OSError, ValueError: as `open_image` and `upright`.
    """
    return upright(open_image(source))


@decoding("picture")
def upright(image: Image.Image, whole: bool = False) -> Image.Image:
    """Convert a picture to RGB with 8 bits a channel, turned upright by its EXIF orientation, 16 bits scaled down.

    Transparency is dropped, as in the published code. The picture passed may itself be turned.

    Args:
        whole: keep all of a very long picture; see `LONGEST`.
    Raises:
        ValueError: a floating-point picture, whose range nothing says.
    """
    if exif_orientation(image) != 1:
        with suppress(Exception):  # it is turned before Pillow writes what is left of its EXIF, which may fail
            ImageOps.exif_transpose(image, in_place=True)  # a large picture is never copied without need
    across, down = middle(image.width, image.height), middle(image.height, image.width)
    if (across.start, down.start) != (0, 0) and not whole:
        image = image.crop((across.start, down.start, across.stop, down.stop))
    return as_rgb(image)


@decoding("picture")
def as_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture to RGB with 8 bits a channel, 16 bits scaled down; transparency is dropped.

    Raises:
        ValueError: a floating-point picture, whose range nothing says.
    """
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to white
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"32-bit picture with values from {values.min()} to {values.max()}; 0 to 65535 are understood")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("a floating-point picture has no stated range; save it with 8 or 16 bits")
    return image if image.mode == "RGB" else image.convert("RGB")
