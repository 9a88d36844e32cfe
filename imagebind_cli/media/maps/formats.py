"""Choose the reader for a file with one number per pixel, by its first bytes."""

from __future__ import annotations

import numpy as np
from PIL import UnidentifiedImageError

from imagebind_cli.media.arrays import NPY_MAGIC, ZIP_MAGIC, read_npy, read_npz
from imagebind_cli.media.decoding import Source, check_file, decoding, first_bytes, opened
from imagebind_cli.media.hdf5 import HDF5_MAGIC, MATLAB_MAGIC
from imagebind_cli.media.maps import exr
from imagebind_cli.media.maps.hdf5_map import USUAL_DATASETS, read_hdf5_map
from imagebind_cli.media.maps.matrices import looks_like_text, read_matrix
from imagebind_cli.media.maps.netpbm import read_netpbm
from imagebind_cli.media.maps.picture_map import read_picture_map
from imagebind_cli.media.maps.pixel_map import MAX_MAP_PIXELS, PixelMap, equals_code

# First bytes of formats that are not read here, or not correctly, and what to do.
UNREAD = {
    b"\xff\xd8\xff\xf7": "JPEG-LS is not supported; convert it to PNG (ffmpeg -i IN -pix_fmt gray16be OUT.png)",
    b"MATLAB 5.0": "a MATLAB 5 file is not supported; save it with -v7.3, or as NPY",
    b"SIMPLE  =": "FITS is not supported; save the numbers as NPY, with BSCALE and BZERO applied",
}


@decoding("map")
def read_map(source: Source, *, dataset: str | None = None, frame: int = 0, colours: bool = False) -> PixelMap:
    """Read a picture with one channel, PFM, OpenEXR, NPY, NPZ, HDF5, or a text file with rows of numbers.

    Args:
        dataset: which one of an HDF5 or NPZ file; if not given, one of `USUAL_DATASETS`, or the only one. Of OpenEXR, which channel.
        frame: which one of a three-dimensional dataset, or page of a TIFF.
        colours: return a picture with unequal channels unchanged; else it is refused.

    Raises:
        OSError, ValueError: the file cannot be read, or holds something else.
    """
    check_file(source)
    start = first_bytes(source, 2056)
    for magic, reason in UNREAD.items():
        if start.startswith(magic):
            raise ValueError(reason)
    if any(start[at : at + 8] == HDF5_MAGIC for at in (0, 512, 1024, 2048)):  # a user block may precede it, as MATLAB's does
        content = read_hdf5_map(source, dataset, frame, matlab=start.startswith(MATLAB_MAGIC))
    elif start.startswith(NPY_MAGIC):
        content = PixelMap(_without_single(read_npy(source, MAX_MAP_PIXELS)))
    elif start.startswith(ZIP_MAGIC):
        content = PixelMap(_without_single(read_npz(source, dataset, USUAL_DATASETS, MAX_MAP_PIXELS)))
    elif start.startswith(exr.MAGIC):
        content = PixelMap(exr.read_exr(source, dataset, MAX_MAP_PIXELS))
    elif start.startswith(b"PF") and start[2:3].isspace():
        raise ValueError("a colour picture (PFM); one value per pixel is needed")
    elif (grey := read_netpbm(source, MAX_MAP_PIXELS)) is not None:
        content = PixelMap(*grey)
    else:
        content = _read_picture_or_text(source, start, frame, colours)
    shape = content.values.shape
    if not content.values.size or (len(shape) != 2 and not (colours and content.values.dtype == np.uint8 and shape[2:] == (3,))):
        raise ValueError(f"shape {shape}; one value per pixel, (height, width), is needed")
    return content


def _without_single(values: np.ndarray) -> np.ndarray:
    """Return an array (h, w, 1) or (1, h, w) as (h, w), any other unchanged."""
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        return values.reshape(values.shape[1:] if values.shape[0] == 1 else values.shape[:2])
    return values


def _read_picture_or_text(source: Source, start: bytes, frame: int, colours: bool) -> PixelMap:
    try:
        with opened(source) as file:  # which Pillow would keep open if it has several pages
            return read_picture_map(file, start, frame, colours)
    except ValueError as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):
            raise
        if start.startswith((b"II*\0", b"MM\0*")):
            raise ValueError("a TIFF with channels or bits that are not supported; save one channel of 16 bits or 32-bit floats") from None
        table = read_matrix(source, MAX_MAP_PIXELS) if looks_like_text(start) else None
        if table is None:
            raise
    values, no_data, notes = table
    return PixelMap(values, notes, None if no_data is None else equals_code(values, no_data))
