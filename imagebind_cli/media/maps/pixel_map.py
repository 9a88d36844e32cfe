"""Files with one number per pixel to NumPy arrays: pictures, PFM, OpenEXR, NPY, NPZ, HDF5, tables of numbers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from imagebind_cli.media.arrays import choose, head, read_npy, read_npz
from imagebind_cli.media.decoding import Source, check_file, decoding
from imagebind_cli.media.image import open_image
from imagebind_cli.media.maps import exr
from imagebind_cli.media.maps.matrices import looks_like_text, read_matrix
from imagebind_cli.media.maps.netpbm import COLOUR_MAP, read_netpbm

MAX_PIXELS = 32_000_000
"""A header that promises more is refused before anything is unpacked: each pixel becomes several numbers of 64 bits."""

MAX_CHUNK_BYTES = 500_000_000
"""A piece of an HDF5 dataset, which is unpacked whole."""

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MATLAB_MAGIC = b"MATLAB 7.3"
USUAL_DATASETS = ("depth", "depths", "thermal")

NO_DATA_ATTRIBUTES = {"fillvalue", "missingvalue", "nodata", "nodatavalue"}  # without underscores, in lower case; netCDF's and others'
GDAL_METADATA, GDAL_NO_DATA = 42112, 42113  # TIFF tags
BITS_PER_SAMPLE, SAMPLES_PER_PIXEL = 258, 277  # TIFF tags
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; a palette's is one
UNREAD = {
    b"\xff\xd8\xff\xf7": "JPEG-LS is not supported; convert it to PNG (ffmpeg -i IN -pix_fmt gray16be OUT.png)",
    b"MATLAB 5.0": "a MATLAB 5 file is not supported; save it with -v7.3, or as NPY",  # scipy crashes on damaged ones
    b"SIMPLE  =": "FITS is not supported; save the numbers as NPY, with BSCALE and BZERO applied",
}
"""First bytes of formats that nothing here reads, or not rightly, and what to do."""

CODES = (-99999, -32768, -32767, -10000, -9999, -999, -273.15)
"""What programs write where they have no value, beside the largest numbers of a type."""
BEYOND_MEASURE = 1e20


@dataclass(frozen=True)
class PixelMap:
    """What a file holds for each pixel.

    values: (h, w) in the file's own number type; (h, w, 3) uint8 where colours were allowed and are there.
    notes: what was assumed to read it.
    missing: (h, w) bool, the pixels that the file itself marks as having no value; None where it marks none.
    """

    values: np.ndarray
    notes: tuple[str, ...] = ()
    missing: np.ndarray | None = None

    @property
    def known(self) -> np.ndarray:
        """(h, w) bool: the pixels with a finite value that the file does not mark as missing."""
        known = np.isfinite(self.values if self.values.ndim == 2 else self.values[..., 0])
        return known if self.missing is None else known & ~self.missing


def read_map(source: Source, *, dataset: str | None = None, frame: int = 0, colours: bool = False) -> PixelMap:
    """Read one value per pixel: a picture with one channel, OpenEXR, NPY, NPZ, HDF5, or a text file with rows of numbers.

    Args:
        dataset: which one of an HDF5 or NPZ file; if not given, one of `USUAL_DATASETS`, or the only one. Of OpenEXR, which channel.
        frame: which one of a three-dimensional dataset, or page of a TIFF.
        colours: whether a picture with unequal channels is given back as it is, and not refused.

    Raises:
        OSError, ValueError: the file cannot be read, or holds something else.
    """
    check_file(source)
    start = head(source, 2056)
    for magic, reason in UNREAD.items():
        if start.startswith(magic):
            raise ValueError(reason)
    if any(start[at : at + 8] == HDF5_MAGIC for at in (0, 512, 1024, 2048)):  # a user block may stand before it, as MATLAB's does
        found = _read_hdf5(source, dataset, frame, matlab=start.startswith(MATLAB_MAGIC))
    elif start.startswith(b"\x93NUMPY"):
        found = PixelMap(_without_single(read_npy(source, MAX_PIXELS)))
    elif start.startswith(b"PK\x03\x04"):
        found = PixelMap(_without_single(read_npz(source, dataset, USUAL_DATASETS, MAX_PIXELS)))
    elif start.startswith(exr.MAGIC):
        found = PixelMap(exr.read_exr(source, dataset, MAX_PIXELS))
    elif start.startswith(b"PF") and start[2:3].isspace():
        raise ValueError("a colour picture (PFM); one value per pixel is needed")
    elif (grey := read_netpbm(source, MAX_PIXELS)) is not None:
        found = PixelMap(*grey)
    else:
        found = _read_picture_or_text(source, start, frame, colours)
    shape = found.values.shape
    if not found.values.size or (len(shape) != 2 and not (colours and found.values.dtype == np.uint8 and shape[2:] == (3,))):
        raise ValueError(f"shape {shape}; one value per pixel, (height, width), is needed")
    return found


def coded_as_missing(values: np.ndarray, known: np.ndarray, codes: Iterable[float], notes: list[str]) -> np.ndarray:
    """Find the pixels that hold one of some codes for no value, or an immense number, each only where it lies far from all other values.

    Args:
        values: (h, w). known: (h, w) bool. notes: is told of each code that was found.
    Returns:
        (h, w) bool.
    """
    missing = np.zeros_like(known)
    if values.dtype.itemsize < 2 or values.ndim > 2:
        return missing
    numbers = values.astype(np.float64)
    kind = np.promote_types(values.dtype, np.float32)  # -273.15 in 32 bits is another number than in 64
    groups = [known & (numbers == kind.type(code)) for code in codes]
    groups += [known & (numbers >= BEYOND_MEASURE), known & (numbers <= -BEYOND_MEASURE)]
    groups = [group for group in groups if group.any()]
    others = numbers[known & ~np.any(groups, axis=0)] if groups else numbers[:0]
    if not others.size:
        return missing
    low, high = float(others.min()), float(others.max())
    for group in groups:
        code = float(numbers[group][0])
        if low < high and max(low - code, code - high) > (high - low) / 2:
            missing |= group
            notes.append(f"{group.sum():,} pixels hold {code:g}, far from all others ({low:g} to {high:g}): taken as missing")
    return missing


def stretched_range(values: np.ndarray) -> tuple[float, float] | None:
    """Find the range of some values (n,) without the few, or the one number at its end, that alone make it ten times as wide.

    Returns:
        The range that nearly all lie in; None where it is as wide as that of all, within that factor.
    """
    smallest, largest = float(values.min()), float(values.max())
    inside = values[(values > smallest) & (values < largest)]
    ranges = [tuple(float(limit) for limit in np.percentile(values, (1, 99)))]
    ranges += [(float(inside.min()), float(inside.max()))] if inside.size else []
    for low, high in ranges:
        if 0 < 10 * (high - low) < largest - smallest:
            return low, high
    return None


def _without_single(values: np.ndarray) -> np.ndarray:
    """An array (h, w, 1) or (1, h, w) as (h, w), every other as it is."""
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        return values.reshape(values.shape[1:] if values.shape[0] == 1 else values.shape[:2])
    return values


def _read_picture_or_text(source: Source, start: bytes, frame: int, colours: bool) -> PixelMap:
    try:
        # A file of our own, since Pillow would keep one with several pages open.
        with open(source, "rb") if isinstance(source, str | os.PathLike) else nullcontext(source) as file:
            return _read_picture(file, start, frame, colours)
    except ValueError as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):
            raise
        if start.startswith((b"II*\0", b"MM\0*")):
            raise ValueError("a TIFF with channels or bits that are not supported; save one channel of 16 bits or 32-bit floats") from None
        table = read_matrix(source, MAX_PIXELS) if looks_like_text(start) else None
        if table is None:
            raise
    values, no_data, notes = table
    return PixelMap(values, notes, None if no_data is None else _equal(values, no_data))


def _read_picture(source: Source, start: bytes, frame: int, colours: bool) -> PixelMap:
    image = open_image(source, MAX_PIXELS, frame, transparent=True)
    notes: list[str] = []
    # Readers of the best-known PFM files ignore the size of the scale and use its sign only, the byte order.
    if image.format == "PPM" and image.info.get("scale", 1) != 1:
        notes.append("the scale of a PFM file is not applied")
    if image.format == "TIFF" and (pages := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"page {frame} of {pages}")
    kind, mode, transparent = image.format, image.mode, image.info.get("transparency")
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    bits, channels = _depth(image, start)
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
        values, marked = _unpacked(values, tags.get(GDAL_NO_DATA, ()), _gdal_scale(str(tags.get(GDAL_METADATA, ""))), notes)
        missing = marked if missing is None else missing if marked is None else missing | marked
    return PixelMap(values, tuple(notes), missing)


def _depth(image: Image.Image, start: bytes) -> tuple[int, int]:
    """Bits of a number and channels of a pixel as they are in the file; Pillow gives colours 8 bits whatever they had."""
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


def _equal(values: np.ndarray, code: float) -> np.ndarray:
    """Return where a map holds a number that may have been written with fewer digits than it has."""
    return np.abs(values - np.float64(code)) <= 1e-6 * abs(code)


def _gdal_scale(metadata: str) -> tuple[float, float]:
    """Scale and offset that GDAL's metadata give for the first band; 1 and 0 where they give none."""
    found: dict[str, float] = {}
    for item in re.findall(r"<Item([^>]*)>([^<]*)<", metadata):
        role = re.search(r'role="(scale|offset)"', item[0])
        if role and 'sample="0"' in item[0]:
            found[role[1]] = float(item[1])
    return found.get("scale", 1.0), found.get("offset", 0.0)


def _unpacked(values: np.ndarray, codes: Any, scale: tuple[float, float], notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """A file's numbers times the scale, plus the offset, that it gives for them, and which pixels hold one of its codes for no value."""
    missing = None
    for code in np.atleast_1d(np.asarray(codes)).ravel().tolist():
        try:
            same = _equal(values, float(code.strip("\0 ") if isinstance(code, str) else code))
        except ValueError:
            notes.append(f"what it gives as having no value, {code!r}, is not a number and plays no part")
            continue
        missing = same if missing is None else missing | same
    if scale != (1, 0):
        notes.append(f"numbers times {scale[0]:g} plus {scale[1]:g}, as the file says")
        values = values * scale[0] + scale[1]
    return values, missing


def _read_hdf5(source: Source, name: str | None, frame: int, matlab: bool) -> PixelMap:
    import h5py

    with decoding("HDF5 file"), h5py.File(source, "r") as file:
        name = name or choose(file, None, USUAL_DATASETS)
        node = _inside(file, name)
        shape: tuple[int, ...] = node.shape or ()
        if node.dtype.kind not in "iuf" or len(shape) not in (2, 3) or not math.prod(shape):
            raise ValueError(
                f"dataset {name} holds {node.dtype} of shape {shape}; numbers (height, width) or (frames, height, width) are needed"
            )
        frames = shape[0] if len(shape) == 3 else 1
        if not 0 <= frame < frames:
            raise ValueError(f"no frame {frame}; dataset {name} has {frames}, counted from 0")
        if math.prod(shape[-2:]) > MAX_PIXELS or math.prod(node.chunks or ()) * node.dtype.itemsize > MAX_CHUNK_BYTES:
            raise ValueError(f"dataset {name} promises {shape} values; at most {MAX_PIXELS:,} are unpacked")
        values = node[frame] if len(shape) == 3 else node[()]
        if matlab or "MATLAB_class" in node.attrs:  # MATLAB stores columns first: (frames, width, height)
            values = values.T
        notes = [f"frame {frame} of {frames}"] if frames > 1 else []
        attributes = {key.lower().replace("_", ""): value for key, value in node.attrs.items()}
        codes = [code for key in NO_DATA_ATTRIBUTES & attributes.keys() for code in np.ravel(attributes[key])[:1].tolist()]
        codes = [code.decode("latin-1") if isinstance(code, bytes) else code for code in codes]
        codes += [node.fillvalue] if node.fillvalue else []
        scale, offset = (float(np.ravel(attributes.get(key, usual))[0]) for key, usual in (("scalefactor", 1), ("addoffset", 0)))
        values, missing = _unpacked(values, codes, (scale, offset), notes)
    return PixelMap(values, tuple(notes), missing)


def _inside(file: Any, name: str) -> Any:
    """A dataset of this file alone: one that is a link to another file, or made of other files, is refused."""
    import h5py

    node = file
    for part in name.strip("/").split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) and part else None
        if link is None:
            raise ValueError(f"no dataset {name}; it holds {', '.join(file) or 'nothing'}")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"dataset {name} is a link; the numbers themselves are needed")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise ValueError(f"{name} is no dataset; name one with --dataset")
    if node.is_virtual or node.external:
        raise ValueError(f"dataset {name} lies in other files; the numbers themselves are needed")
    return node
