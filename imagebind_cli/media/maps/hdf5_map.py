"""Datasets of HDF5 and MATLAB 7.3 files as maps of one number per pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from imagebind_cli.media.arrays import choose_dataset
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.hdf5 import find_dataset, open_hdf5, read_attribute
from imagebind_cli.media.isolation import call_apart
from imagebind_cli.media.maps.pixel_map import MAX_MAP_PIXELS, PixelMap, scale_values

if TYPE_CHECKING:
    import h5py

USUAL_DATASETS = "depth", "depths", "thermal"
NO_DATA_ATTRIBUTES = {"fillvalue", "missingvalue", "nodata", "nodatavalue"}  # without underscores, in lower case; netCDF's and others'


def read_hdf5_map(source: Source, name: str | None, frame: int, matlab: bool) -> PixelMap:
    """Read a dataset (height, width), or one frame of a dataset (frames, height, width), in a separate process.

    Args:
        name: of the dataset; if not given, one of `USUAL_DATASETS`, or the only one. matlab: whether MATLAB wrote the file.
    """
    pixels: PixelMap = call_apart("imagebind_cli.media.maps.hdf5_map:_read", source, name, frame, matlab)
    return pixels


def _read(source: Source, name: str | None, frame: int, matlab: bool) -> PixelMap:
    with open_hdf5(source) as file:
        name = name or choose_dataset(file, None, USUAL_DATASETS)
        node = find_dataset(file, name)
        shape: tuple[int, ...] = node.shape or ()
        if node.dtype.kind not in "iuf" or len(shape) not in (2, 3) or not math.prod(shape):
            raise ValueError(
                f"dataset {name} holds {node.dtype} of shape {shape}; numbers (height, width) or (frames, height, width) are needed"
            )
        frames = shape[0] if len(shape) == 3 else 1
        if not 0 <= frame < frames:
            raise ValueError(f"no frame {frame}; dataset {name} has {frames}, counted from 0")
        if math.prod(shape[-2:]) > MAX_MAP_PIXELS:
            raise ValueError(f"dataset {name} promises {shape} values; at most {MAX_MAP_PIXELS:,} are unpacked")
        values = node[frame] if len(shape) == 3 else node[()]
        if matlab or "MATLAB_class" in node.attrs:  # MATLAB stores columns first: (frames, width, height)
            values = values.T
        notes = [f"frame {frame} of {frames}"] if frames > 1 else []
        spelled = {key.lower().replace("_", ""): key for key in node.attrs}
        codes = [read_attribute(node, spelled[key]) for key in sorted(NO_DATA_ATTRIBUTES & spelled.keys())]
        codes = [code for code in codes if code is not None]
        codes += [node.fillvalue] if node.fillvalue else []
        scale, offset = (_number(node, spelled.get(key), usual) for key, usual in (("scalefactor", 1.0), ("addoffset", 0.0)))
        values, missing = scale_values(values, codes, (scale, offset), notes)
    return PixelMap(values, tuple(notes), missing)


def _number(dataset: h5py.Dataset, attribute: str | None, usual: float) -> float:
    value = None if attribute is None else read_attribute(dataset, attribute)
    return usual if value is None else float(value)
