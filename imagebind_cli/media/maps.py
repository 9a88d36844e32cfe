"""Files with one number per pixel to NumPy arrays: 16-bit and floating-point pictures, PFM, OpenEXR, NPY, HDF5."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from imagebind_cli.media import exr
from imagebind_cli.media.arrays import head, read_npy
from imagebind_cli.media.decoding import Source, check_file, decoding
from imagebind_cli.media.image import open_image

MAX_PIXELS = 32_000_000
"""A header that promises more is refused before anything is unpacked: each pixel becomes several numbers of 64 bits."""

MAX_CHUNK_BYTES = 500_000_000
"""A piece of an HDF5 dataset, which is unpacked whole."""

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MATLAB_MAGIC = b"MATLAB 7.3"
USUAL_DATASETS = ("depth", "depths", "thermal")


@dataclass(frozen=True)
class PixelMap:
    """What a file holds for each pixel.

    values: (h, w) in the file's own number type; (h, w, 3) uint8 where colours were allowed and are there.
    notes: what was assumed to read it.
    """

    values: np.ndarray
    notes: tuple[str, ...] = ()


def read_map(source: Source, *, dataset: str | None = None, frame: int = 0, colours: bool = False) -> PixelMap:
    """One value per pixel, from a picture with one channel (PNG, TIFF, PFM, …), an OpenEXR file, an NPY file or an HDF5 file.

    Args:
        dataset: which one of an HDF5 file; if not given, one of `USUAL_DATASETS`, or the only one. Of an OpenEXR file, which channel.
        frame: which one of its three-dimensional dataset.
        colours: whether a picture with unequal channels is given back as it is, and not refused.

    Raises:
        OSError, ValueError: the file cannot be read, or holds something else.
    """
    check_file(source)
    start = head(source, 2056)
    if any(start[at : at + 8] == HDF5_MAGIC for at in (0, 512, 1024, 2048)):  # a user block may stand before it, as MATLAB's does
        found = _read_hdf5(source, dataset, frame, matlab=start.startswith(MATLAB_MAGIC))
    elif start.startswith(b"\x93NUMPY"):
        values = read_npy(source, MAX_PIXELS)
        if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
            values = values.reshape(values.shape[1:] if values.shape[0] == 1 else values.shape[:2])
        found = PixelMap(values)
    elif start.startswith(exr.MAGIC):
        found = PixelMap(exr.read_exr(source, dataset, MAX_PIXELS))
    elif start.startswith(b"PF") and start[2:3].isspace():
        raise ValueError("a colour picture (PFM); one value per pixel is needed")
    else:
        found = _read_picture(source, colours)
    shape = found.values.shape
    if not found.values.size or (len(shape) != 2 and not (colours and found.values.dtype == np.uint8 and shape[2:] == (3,))):
        raise ValueError(f"shape {shape}; one value per pixel, (height, width), is needed")
    return found


def _read_picture(source: Source, colours: bool) -> PixelMap:
    image = open_image(source, MAX_PIXELS)
    notes: tuple[str, ...] = ()
    # Readers of the best-known PFM files ignore the size of the scale and use its sign only, the byte order.
    if image.format == "PPM" and image.info.get("scale", 1) != 1:
        notes = ("the scale of a PFM file is not applied",)
    mode = image.mode
    if mode == "1":
        image = image.convert("L")
    elif mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.ndim == 3 and values.shape[-1] < 3:  # grey with transparency
        values = values[..., 0]
    elif values.ndim == 3:
        values = values[..., :3]
        if (values == values[..., :1]).all():  # many programs save grey as three equal channels
            values = values[..., 0]
        elif not colours:
            raise ValueError(f"a colour picture (mode {mode}); one value per pixel is needed")
    return PixelMap(values, notes)


def _read_hdf5(source: Source, name: str | None, frame: int, matlab: bool) -> PixelMap:
    import h5py

    with decoding("HDF5 file"), h5py.File(source, "r") as file:
        if name is None:
            names = list(file)
            name = next((usual for usual in USUAL_DATASETS if usual in names), names[0] if len(names) == 1 else None)
            if name is None:
                raise ValueError(f"holds {', '.join(names) or 'no dataset'}; choose one with --dataset")
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
    return PixelMap(values, (f"frame {frame} of {frames}",) if frames > 1 else ())


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
